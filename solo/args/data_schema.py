"""Every key of images and of the views that are made of them, as in `schema`."""

from typing import Literal

from solo.args.fields import REQUIRED, Section, derived, idle, key
from solo.data.catalogue.rows import DatasetSpec
from solo.errors import UserError


class RandomResizedCropCfg(Section):
    enabled: bool = key(True, "false: resize the whole image")
    crop_min_scale: float = key(0.08, "smallest share of the area", gt=0, le=1)
    crop_max_scale: float = key(1.0, "largest share of the area", gt=0, le=1)


class ColorJitterCfg(Section):
    """Change brightness, contrast, saturation and hue, in random order."""

    prob: float = key(0.0, "how often", ge=0, le=1)
    brightness: float = key(0.0, "strength", ge=0)
    contrast: float = key(0.0, "strength", ge=0)
    saturation: float = key(0.0, "strength", ge=0)
    hue: float = key(0.0, "strength", ge=0, le=0.5)


class SometimesCfg(Section):
    prob: float = key(0.0, "how often", ge=0, le=1)


class GrayscaleCfg(SometimesCfg):
    channels: bool = key(False, "true: make grey images RGB first")


class AugmentationCfg(Section):
    """One pipeline; entries of the first entry's size give large views, others small ones."""

    crop_size: int | None = key(None, "height and width of a view; null: data.image_size", ge=1)
    num_crops: int = key(REQUIRED, "views drawn from this pipeline", ge=1)
    rrc: RandomResizedCropCfg = key(RandomResizedCropCfg, "random resized crop")
    color_jitter: ColorJitterCfg = key(ColorJitterCfg, "colour jitter")
    grayscale: GrayscaleCfg = key(GrayscaleCfg, "no colours")
    gaussian_blur: SometimesCfg = key(SometimesCfg, "blur")
    solarization: SometimesCfg = key(SometimesCfg, "solarise")
    equalization: SometimesCfg = key(SometimesCfg, "equalise the histogram")
    horizontal_flip: SometimesCfg = key(SometimesCfg, "mirror")
    transforms: tuple[str, ...] | None = key(
        None, "own code, module:function from a PIL image to one, after the crop; then views are made image by image"
    )
    mean: tuple[float, ...] | None = key(None, "null: data.mean")
    std: tuple[float, ...] | None = key(None, "null: data.std", gt=0)


class CommonDataCfg(Section):
    resolved: DatasetSpec | None = derived()
    # Keys of some commands.
    no_labels: bool = derived(False)
    val_only: bool = derived(False)
    unseen_classes: int | tuple[str, ...] | None = derived()
    split_seed: int = derived(42)

    dataset: str = key(REQUIRED, "name of the data set; custom or image_folder: your own images")
    train_path: str | None = idle(None, "folder of the training images; not needed where they can be fetched")
    val_path: str | None = idle(None, "folder of the validation images; null: none, or the data set's own")
    format: Literal["image_folder", "table", "webdataset", "hf", "h5"] = key(
        "image_folder", "how images are stored; webdataset: tar files, hf: Hugging Face"
    )
    fraction: float = key(-1.0, "share of the training images to use; -1: all", ge=-1, le=1)
    holdout: float = key(
        0.0,
        "share of the training images that validate in place of the data set's own, which nobody then looks at: for "
        "choosing settings; whole groups (fonts) where the data set knows some",
        ge=0,
        lt=1,
    )
    num_workers: int | None = idle(
        None, "loader processes for each device; null: as many as there are cores for it", ge=0
    )
    download: bool = idle(True, "fetch the data set if it isn't there")
    num_classes: int | None = key(None, "number of classes; null: the data set's, or the folders counted", ge=1)
    levels: tuple[str, ...] | str | None = key(
        None, "custom: flat (a class per first folder), folders (nested folders are levels), their names; null: see it"
    )
    taxonomy: str | None = key(None, "file with the label tree above the class folders; null: none")
    path_column: str | None = key(None, "table, hf: column of the images; null: the one with image files")
    label_columns: tuple[str, ...] | None = key(
        None, "table, webdataset, hf: columns of labels, coarse first; null: the only other one"
    )
    on_error: Literal["raise", "skip"] = key("raise", "images that can't be read: stop, or go on and list them")
    unknown_classes: Literal["drop", "label"] | None = key(
        None,
        "validation classes that training lacks: leave their images out, or keep the labels that they share; null: "
        "refuse them",
    )
    range: tuple[float, ...] | None = key(
        None,
        "values that are black and white in images with more than 8 bits a value; null: the checkpoint's, else found "
        "in a sample of the training images",
    )
    exif: bool | None = key(None, "turn pictures as their EXIF says; null: the checkpoint's, else true")
    background: tuple[int, ...] | None = key(
        None, "red, green, blue behind transparent pictures; null: the checkpoint's, else white", ge=0, le=255
    )
    max_pixels: int | None = key(None, "of one image, larger ones are refused; null: 178956970", ge=1)

    @property
    def spec(self) -> DatasetSpec:
        """What is known of the data set, once one is named: classes, label tree, how its files are read."""
        if self.resolved is None:
            raise UserError("data.dataset is missing; give the name of a data set")
        return self.resolved

    @property
    def workers(self) -> int:
        """`num_workers`, which is found out where a command is read."""
        return self.num_workers or 0


class AugmentedDataCfg(CommonDataCfg):
    augment: Literal["batch", "sample"] | None = key(
        None, "views of whole batches, from decoded images, or image by image; null: batch if they take little room"
    )
    cache_size: int | None = idle(
        None,
        "batch, image files: pixels of the shorter side that are kept, at most; null: 8/7 of the largest view",
        ge=1,
    )
    cache_dir: str | None = idle(
        None, "batch, image files: where decoded images are kept; null: the user's cache folder"
    )


class DataCfg(AugmentedDataCfg):
    no_labels: bool = key(False, "custom: one flat folder of images without labels")
    label_fraction: float | tuple[float, ...] = key(
        -1.0, "share of the training images that keep their labels, or one a level, coarse first; -1: all", ge=-1, le=1
    )
    unseen_classes: int | tuple[str, ...] | None = key(
        None, "classes whose images are left out: names or indices, or how many to draw; null: none", ge=0
    )
    split_seed: int = key(42, "seed of label_fraction and unseen_classes, apart from that of the training", ge=0)
    sampler: Literal["random", "hierarchical", "balanced", "pxk"] | None = key(
        None,
        "what makes a batch: chance, anchors with a partner at each level, equally many or some images a class; "
        "null: hierarchical in methods that learn from all levels, else random",
    )
    sampler_level: int | str | None = key(
        None, "balanced, pxk: level of the label tree, by name or index, that gives the classes; null: the classes"
    )
    per_class: int = key(4, "pxk: images of each class in a batch", ge=1)
    labelled_share: float | None = key(
        None,
        "share of a batch whose class is known, in (0, 1): few labelled images come as often as that takes; "
        "null: as they come",
        gt=0,
        lt=1,
    )
    resolution_schedule: tuple[float, ...] | None = key(
        None,
        "shares of the views' side that are seen, in as many equal parts of the run, e.g. [0.5,0.75,1]; null: all",
        gt=0,
        le=1,
    )
    num_large_crops: int | None = key(None, "views of full size; null: counted in augmentations", ge=1)
    num_small_crops: int | None = key(None, "smaller views; null: counted in augmentations", ge=0)
    image_size: int | None = key(None, "height and width in pixels; null: the data set's", ge=1)
    small_stem: bool | None = key(None, "ResNets for images of at most 64 pixels; null: the data set's, own: false")
    channels: int | None = key(None, "colour channels; null: the data set's", ge=1)
    mean: tuple[float, ...] | None = key(None, "per channel, of images in [0, 1]; null: the data set's")
    std: tuple[float, ...] | None = key(None, "per channel, of images in [0, 1]; null: the data set's", gt=0)


class EvalDataCfg(CommonDataCfg):
    """Images that a trained network is shown; a checkpoint knows their size and statistics."""

    image_size: int | None = key(None, "height and width in pixels; null: the checkpoint's, else the data set's", ge=1)
    channels: int | None = key(None, "colour channels; null: the checkpoint's, else the data set's", ge=1)
    mean: tuple[float, ...] | None = key(None, "per channel; null: the checkpoint's, else the data set's")
    std: tuple[float, ...] | None = key(None, "per channel; null: the checkpoint's, else the data set's", gt=0)


class SourceDataCfg(EvalDataCfg):
    """The same where a checkpoint can name the data set."""

    dataset: str | None = key(  # type: ignore[assignment]
        None, "name of the data set; custom or image_folder: your own images; null: what the checkpoint was trained on"
    )


class OfflineDataCfg(SourceDataCfg):
    """The same where training images and labels may be missing."""

    no_labels: bool = key(False, "custom: flat folders of images without labels")
    unseen_classes: int | tuple[str, ...] | None = key(
        None,
        "classes that are measured apart as well, those that pretraining left out: names or indices, or how many to "
        "draw; null: those of the checkpoint's run",
        ge=0,
    )
    split_seed: int = key(42, "seed of unseen_classes", ge=0)
    val_only: bool = key(False, "measure the validation images among themselves, without training images")


class LinearDataCfg(EvalDataCfg, AugmentedDataCfg):
    """The same for a classifier that is trained."""

    cache_features: bool = key(False, "run the frozen backbone once and train on its features; no augmentation")
