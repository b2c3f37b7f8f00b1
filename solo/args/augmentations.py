"""Keys of the list `augmentations`: how views of an image are made."""

from dataclasses import dataclass

from solo.args.fields import REQUIRED, key


@dataclass(kw_only=True, frozen=True)
class RandomResizedCropCfg:
    """Cut a random part and resize it to crop_size."""

    enabled: bool = key(True, "false: resize the whole image")
    crop_min_scale: float = key(0.08, "smallest share of the area", gt=0, le=1)
    crop_max_scale: float = key(1.0, "largest share of the area", gt=0, le=1)


@dataclass(kw_only=True, frozen=True)
class ColorJitterCfg:
    """Change brightness, contrast, saturation and hue, in random order."""

    prob: float = key(0.0, "how often", ge=0, le=1)
    brightness: float = key(0.0, "strength", ge=0)
    contrast: float = key(0.0, "strength", ge=0)
    saturation: float = key(0.0, "strength", ge=0)
    hue: float = key(0.0, "strength", ge=0, le=0.5)


@dataclass(kw_only=True, frozen=True)
class SometimesCfg:
    """An operation without further settings."""

    prob: float = key(0.0, "how often", ge=0, le=1)


@dataclass(kw_only=True, frozen=True)
class GrayscaleCfg(SometimesCfg):
    """Replace the colours by their brightness, in all channels."""

    channels: bool = key(False, "true: make grey images RGB first")


@dataclass(kw_only=True, frozen=True)
class AugmentationCfg:
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
