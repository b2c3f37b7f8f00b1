"""The loss of masked autoencoders (He et al., 2022): reconstruct the removed patches."""

from torch import Tensor

from solo.losses.numerics import full_precision


def patchify(imgs: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches: (N, C, H, H) -> (N, (H / patch_size)^2, patch_size^2 * C).

    A patch is laid out row, column, channel.

    Raises:
        ValueError: if the images are not square or not divisible by the patch size.
    """
    n, c, h, w = imgs.shape
    if h != w or h % patch_size:
        raise ValueError(f"images of {h} x {w} do not split into patches of {patch_size}: use square ones, a multiple")
    side = h // patch_size
    grid = imgs.reshape(n, c, side, patch_size, side, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, side * side, patch_size**2 * c)


@full_precision
def mae_loss_func(imgs: Tensor, pred: Tensor, mask: Tensor, patch_size: int, norm_pix_loss: bool = True) -> Tensor:
    """Mean squared error of the removed patches.

    Args:
        imgs: (N, C, H, H).
        pred: (N, L, patch_size^2 * C) reconstructed patches.
        mask: (N, L), 1 for removed, 0 for kept; every image has lost as many.
        patch_size: side of a patch in pixels.
        norm_pix_loss: standardise every target patch first.

    Returns:
        Scalar; 0 if no patch is removed.
    """
    target = patchify(imgs, patch_size)
    if norm_pix_loss:
        variance, mean = target.var(dim=-1, keepdim=True), target.mean(dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    error = (pred - target).square().mean(dim=-1)  # (N, L)
    return (error * mask).sum() / mask.sum().clamp_min(1)
