"""`did you mean ...?`: names that are spelt almost alike, and words that other people use for the same thing."""

import difflib
import re
from collections.abc import Collection, Iterable

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
