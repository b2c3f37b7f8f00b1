"""What data have to be: there, or to be fetched, with labels at the levels that other settings speak of."""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from solo.args.check import ParseError, Problem, Values, get, unknown
from solo.data.catalogue.registry import DATASETS, DatasetSpec, check_path, is_here, is_there, obtain, validation_path
from solo.data.catalogue.rows import wrong_statistics
from solo.errors import UserError
from solo.hex.catalogue import policy_facts, whom_shown


def check_data(values: Values) -> Iterator[Problem]:
    """The data set's name, shares and statistics of a checked config, where a refused value is None."""
    data, entries = values["data"], values.get("augmentations") or []
    dataset, fraction, classes, spec = data["dataset"], data["fraction"], data["num_classes"], spec_of(values)
    if dataset is not None and spec is None:
        yield Problem("data.dataset", unknown(dataset, DATASETS))
    if fraction is not None and fraction != -1 and fraction <= 0:
        yield Problem("data.fraction", f"={fraction:g} is no share; give a number in (0, 1], or -1 for all images")
    if spec is not None and None not in (spec.num_classes, classes) and classes != spec.num_classes:
        text = f"={classes}, but {spec.name} has {spec.num_classes} classes; leave it out"
        yield Problem("data.num_classes", text)
    for key in ("train_path", "val_path"):
        if "://" in str(data[key]) and data["format"] != "hf":
            advice = "images are files: mount the store (mount-s3, gcsfuse, rclone), copy it, or take data.format=hf"
            advice = "leave file:// out" if str(data[key]).startswith("file://") else advice
            yield Problem(f"data.{key}", f"={data[key]} is an address; {advice}")
    places = {"data": data, **{f"augmentations[{i}]": entry for i, entry in enumerate(entries)}}
    for place, section in places.items():
        for name, text in wrong_statistics(get(section, "mean"), get(section, "std")).items():
            yield Problem(f"{place}.{name}", text)
        least, most = get(section, "rrc.crop_min_scale"), get(section, "rrc.crop_max_scale")
        if least is not None and most is not None and least > most:
            text = f"={least} is more than crop_max_scale={most}; exchange them"
            yield Problem(f"{place}.rrc.crop_min_scale", text)


def spec_of(values: Values) -> DatasetSpec | None:
    """The data set's row, `None` if there is none of that name."""
    return DATASETS.get(str(values["data"]["dataset"]))


def check_levels(values: Values, spec: DatasetSpec | None) -> Iterator[Problem]:
    """Labels and levels that aren't there, and batches that a sampler can't make of the labels.

    `spec` is the resolved data set, `None` where it can't be read, which is said elsewhere.
    """
    data = values["data"]
    shares = data.get("label_fraction")
    several = shares if isinstance(shares, list) else [shares]
    for share in several:
        if share is not None and -1 < share < 0:
            yield Problem("data.label_fraction", f"={share} is no share; give 0 to 1, or -1 for all labels")
    if data.get("no_labels"):
        partial = {"label_fraction": shares not in (None, -1.0)}
        for name in ("label_fraction", "unseen_classes", "labelled_share"):
            if partial.get(name, data.get(name)):
                yield Problem(f"data.{name}", " needs labels, and data.no_labels=True has none; leave it out")
    if spec is None:
        return
    if isinstance(shares, list):
        whole = [1.0 if share < 0 else share for share in shares]
        if len(shares) not in (1, len(spec.levels)):
            levels = f"{spec.name} has {len(spec.levels)} ({', '.join(spec.levels)})"
            yield Problem("data.label_fraction", f" gives {len(shares)} levels, and {levels}; give one number a level")
        elif whole != sorted(whole, reverse=True):
            text = f"={shares} keeps more fine labels than coarse ones, which follow from them; let it not increase"
            yield Problem("data.label_fraction", text)
    policy, level = get(values, "hex.policy"), get(values, "hex.level")
    by_label, shown = policy_facts(policy).labels, whom_shown(policy, get(values, "hex.show"))
    if by_label == "tree" or get(values, "hex.named"):
        if len(spec.levels) > 1:
            yield from _level("hex.level", level, spec.levels)
        else:
            rich = ", ".join(name for name, row in DATASETS.items() if len(row.levels) > 1)
            key = "hex.policy" if by_label == "tree" else "hex.named"
            text = f"={get(values, key)!r} needs a label tree, and {spec.name} has one level only"
            yield Problem(key, f"{text}; take a data set with several levels ({rich}) or HEX_adaptive")
    elif by_label or (shown and shown.labels):
        yield from _level("hex.level", level, spec.levels)
    kind, batch_size = data.get("sampler"), get(values, "optimizer.batch_size")
    if kind in (None, "random"):
        return
    level, per_class = data["sampler_level"], data["per_class"]
    if data["no_labels"]:
        yield Problem("data.sampler", f"={kind!r} needs labels, and data.no_labels=True has none; take random")
        return
    wrong = list(_level("data.sampler_level", level, spec.levels))
    yield from wrong
    if wrong or batch_size is None or per_class is None:
        return
    if kind == "hierarchical" and batch_size <= len(spec.levels):
        fits = f"an anchor and a partner at each level are {len(spec.levels) + 1} images"
        yield Problem("optimizer.batch_size", f"={batch_size} is too small for data.sampler=hierarchical: {fits}")
    if kind == "pxk" and batch_size % per_class:
        text = f"={per_class} must divide optimizer.batch_size={batch_size}, which has classes of that many images"
        yield Problem("data.per_class", text)
    elif kind == "pxk":
        nodes = spec.num_classes
        if level is not None and spec.taxonomy is not None:
            nodes = len(spec.taxonomy.names[level if isinstance(level, int) else spec.levels.index(level)])
        if nodes is not None and nodes < batch_size // per_class:
            text = f"={per_class} makes batches of {batch_size // per_class} classes, and there are {nodes}"
            yield Problem("data.per_class", f"{text}; raise it, or lower optimizer.batch_size={batch_size}")


def _level(key: str, level: int | str | None, levels: Sequence[str]) -> Iterator[Problem]:
    if isinstance(level, int) and not 0 <= level < len(levels):
        yield Problem(key, f"={level} is out of range; give 0 (coarsest) to {len(levels) - 1}")
    elif isinstance(level, str) and level not in levels:
        yield Problem(key, unknown(level, levels))


def check_folders(values: Values) -> Iterator[Problem]:
    """Folders and files of images that a real run needs; touches no image."""
    spec, data = spec_of(values), values["data"]
    train, val = data["train_path"], data["val_path"]
    if spec is not None and spec.layout and data["format"] == "image_folder":
        # In its authors' layout, unless what is missing can be fetched, see `to_fetch`.
        key = "train_path"
        try:
            here = is_there(spec, train, data["download"])
            val = val or validation_path(spec, train)
            if train and not val and here:
                yield Problem("data.val_path", " is missing; give the folder of the validation images")
            key = "val_path"
            if val and val != train:
                is_there(spec, val, data["download"])
        except UserError as error:
            yield Problem(f"data.{key}", f": {error}")
    elif spec is not None and data["format"] in ("image_folder", "h5"):
        own, must_validate = spec.folders or data["format"] == "h5", "pretrained_feature_extractor" in values
        for key in ("train_path", "val_path"):
            if data[key] is None:
                if key == "val_path" and data["format"] == "image_folder" and validation_path(spec, train):
                    continue
                if own and (key == "train_path" or must_validate):
                    yield Problem(f"data.{key}", " is missing; give the folder that holds the images")
                continue
            if "://" in data[key]:  # `check_data` has said so
                continue
            try:
                check_path(spec, data[key], bool(data.get("no_labels")), data["format"])
            except UserError as error:
                yield Problem(f"data.{key}", f": {error}")


def to_fetch(values: Values) -> list[str | None]:
    """The folders (`None`: the package's own) or hub names that a run has to fetch before it can start.

    Of a checked config without problems; looks at the disk only.
    """
    spec, data = spec_of(values), values["data"]
    if data["format"] == "hf":
        return [] if is_here(data["train_path"]) else [data["train_path"]]
    if spec is None or not spec.layout or data["format"] != "image_folder":
        return []
    places = dict.fromkeys((data["train_path"], data["val_path"] or data["train_path"]))
    return [place for place in places if not is_there(spec, place, data["download"])]


def obtain_all(values: Values, places: Iterable[str | None]) -> None:
    """Fetch what `to_fetch` has found; a `ParseError` if it can't be."""
    spec, data = spec_of(values), values["data"]
    try:
        for place in places if spec and data["format"] == "image_folder" else ():
            obtain(cast(DatasetSpec, spec), place, data["download"])
    except UserError as error:
        raise ParseError(f"data.train_path: {error}") from error
