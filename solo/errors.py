"""Errors that are the user's to solve: one clear line, no traceback; and the name that was probably meant."""

import difflib
import errno
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

# What a machine can run out of, where nobody says with which file -> what helps.
_OF_THE_SYSTEM = {
    errno.ENOENT: "the working directory was removed, change to another one",
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free some of your quota",
    errno.EIO: "a disk or a network drive has failed",
    errno.EROFS: "choose a folder that can be written",
    errno.EMFILE: "raise `ulimit -n`, or lower data.num_workers",
    errno.ENFILE: "end other programs",
    errno.ENOMEM: "lower optimizer.batch_size or data.num_workers",
    errno.EAGAIN: "raise `ulimit -u`, or lower data.num_workers",
}


class UserError(ValueError):
    """Something the user gave can't be used; the message says what came, what is allowed and what to do.

    A loader's worker hands an error over with its whole traceback as the message; only the last line is for users.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught "):
            message = message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip()
        super().__init__(message)


class ConfigError(UserError):
    """One or more problems in a configuration, all of them in one message, one a line."""


class NonFiniteError(UserError):
    """A loss that is NaN or infinite; `terms`: name -> value of what makes up the loss."""

    def __init__(self, message: str, terms: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.terms = terms or {}


class BrokenImageError(UserError):
    """An image that can't be decoded."""


def no_access(error: OSError) -> str:
    """The line for a file or folder that the user may not read or write."""
    return f"{error.filename} can't be opened: {error.strerror}; change its permissions or choose another folder"


def refusal(error: OSError) -> str | None:
    """The line for what the operating system refuses; None if that is nobody's fault but ours."""
    if isinstance(error, PermissionError):
        return no_access(error)
    if error.errno == errno.ENAMETOOLONG and error.filename is not None:
        return f"{str(error.filename)[:60]}... is too long for the name of a file"
    if error.filename is not None:
        return f"{error.filename} can't be used: {error.strerror}; choose another file or folder"
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return "no folder for temporary files can be written to; set TMPDIR to one"
    helps = _OF_THE_SYSTEM.get(error.errno or 0)
    return f"the system refuses: {error.strerror}; {helps}" if helps else None


def reason(error: BaseException) -> str:
    """What somebody else's error says, on one line; its type where it says nothing."""
    said = str(getattr(error, "strerror", None) or error)
    said = f"no {said}" if isinstance(error, KeyError) and len(said.split()) < 5 else said  # a key, not h5py's sentence
    return printable(" ".join(said.split())[:300]) or type(error).__name__


@contextmanager
def explained(what: str, cure: str, *kinds: type[Exception]) -> Iterator[None]:
    """Make a `UserError`, `what (reason); cure`, of errors of these kinds, by default all; our own stay as they are."""
    kinds = kinds or (Exception,)
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(f"{what} ({reason(error)}); {cure}") from error


def printable(text: object) -> str:
    """A name on one line, as any terminal can show it: line breaks, escapes, bytes that are no text spelled out."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def some(names: Collection[str], most: int = 5) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(name[:60] for name in list(names)[:most]) + more


def _escaped(char: str) -> str:
    code = ord(char)
    # File names may be any bytes; Python keeps those that are no UTF-8 as these code points.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode()


# What people type -> what it may be called here; the last part of a key counts, and case and punctuation don't.
_SYNONYMS = {
    word: tuple(names.split())
    for entry in """
    epoch epochs numepochs nepochs: max_epochs; iterations steps: max_steps; bs batch: batch_size; learningrate: lr
    wd: weight_decay; opt: optimizer; model: backbone method; arch architecture encoder network: backbone
    workers: num_workers; gpu: devices accelerator; gpus: devices; device: accelerator; algorithm loss: method
    ckpt: pretrained_feature_extractor checkpoint; checkpoint: pretrained_feature_extractor
    weights: pretrained_feature_extractor finetune_from; resume: resume_from_checkpoint
    fp16 float16 half amp: precision 16-mixed; bfloat16: bf16-mixed; fp32 float32: 32-true
    tau: temperature; imagesize imgsize: image_size; cropsize: crop_size; root traindir: train_path
    valdir: val_path; outputdir output: dir; augmentation transforms: augmentations; hex: HEX_adaptive hex
    adaptive: HEX_adaptive; fixed: HEX_fixed; none: standard; mnist: digits mnist; fashion: fashion_mnist
    cub: cub200; birds: cub200 nabirds; inat inaturalist: inat21; tinyimagenet: tinyimagenet200; in100: imagenet100
    in1k imagenet1k: imagenet; imagefolder folder: custom image_folder; own: custom
    barlowtwins: barlow barlow_twins; barlow: barlow_twins barlow; moco: mocov2plus mocov3; mocov2: mocov2plus
    dc2 deepcluster: deepclusterv2; ce supervised: crossentropy; supervisedcontrastive: supcon; train: pretrain
    eval test: evaluate; finetune: linear; report: analyze; plot: umap analyze
    """.replace("\n", ";").split(";")
    for words, _, names in [entry.partition(":")]
    for word in words.split()
}


def did_you_mean(word: str, names: Collection[str]) -> str:
    """`did you mean 'x'? `, or nothing; a word and what is possible have one form: keys with dots, values, files."""
    found = closest(word, names)
    return f"did you mean {found!r}? " if found else ""


def closest(word: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    if len(word) > 60:  # comparing takes its square
        return None
    known = list(dict.fromkeys(names))
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_bare(name), name)
    if _bare(word) in plain:
        return plain[_bare(word)]
    section = word.removesuffix(_last(word)).rstrip(".")
    for other in (_last(word), *_SYNONYMS.get(_bare(_last(word)), ())):
        same = [name for name in known if _bare(_last(name)) == _bare(other)]
        if same:
            return min(same, key=lambda name: (not name.startswith(f"{section}."), name.count(".")))
    lower = {_stem(name): name for name in known}
    close = difflib.get_close_matches(_stem(word), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def _last(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else name.rpartition(".")[2]


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", _stem(name))


def _stem(name: str) -> str:
    return re.sub(r"\.ya?ml$", "", name.lower())
