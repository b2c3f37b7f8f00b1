"""The patch tokens of one of timm's ViTs while it runs: some are hidden or left out, and those of the last layer seen.

By hooks, so that the network is called as ever, and any ViT that timm builds will do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from solo.errors import UserError


class PatchTokens:
    """What a network's patches are, in its next pass and in its last layer.

    Args:
        network: its modules `patch_embed` and `norm` are listened to, and `patch_drop` if it has one.
        name: of the network, for the error.

    Attributes:
        grid: (rows, columns) of patches of an image of the network's own size.
        patch: side of a patch in pixels.

    Raises:
        UserError: a network without these, or that drops patches itself.
    """

    def __init__(self, network: Any, name: str) -> None:
        dropping = getattr(network, "patch_drop", None)
        if not all(hasattr(network, part) for part in ("patch_embed", "norm", "num_prefix_tokens")):
            raise UserError(f"backbone.name={name!r} has no patches to hide, choose vit_small or another ViT")
        if not isinstance(dropping, (nn.Identity, type(None))):
            raise UserError("backbone.kwargs.patch_drop_rate doesn't go with a method that hides patches; leave it out")
        self.grid, self.patch = tuple(network.patch_embed.grid_size), int(network.patch_embed.patch_size[0])
        self._prefix: int = network.num_prefix_tokens
        self._hidden: tuple[Tensor, Tensor] | None = None
        self._kept: Tensor | None = None
        self._seen: Tensor | None = None
        network.patch_embed.register_forward_hook(self._hide)
        network.norm.register_forward_hook(self._see)
        if dropping is not None:
            dropping.register_forward_hook(self._keep)

    @contextmanager
    def hiding(self, mask: Tensor, token: Tensor) -> Iterator[None]:
        """In the block the patches of `mask` (N, L), bool, are `token` (1, 1, D) before positions are added."""
        self._hidden = mask, token
        try:
            yield
        finally:
            self._hidden = None

    @contextmanager
    def keeping(self, index: Tensor) -> Iterator[None]:
        """In the block only the patches `index` (N, K) go on after positions are added, beside class token and such."""
        self._kept = index
        try:
            yield
        finally:
            self._kept = None

    def take(self) -> Tensor:
        """The patches of the last pass, behind the last norm: (N, L or K, D); once."""
        seen, self._seen = self._seen, None
        assert seen is not None
        return seen[:, self._prefix :]

    def _hide(self, module: nn.Module, inputs: Any, x: Tensor) -> Tensor:
        if self._hidden is None:
            return x
        mask, token = self._hidden
        return torch.where(mask.view(*x.shape[:-1], 1), token.to(x.dtype).view(-1), x)

    def _keep(self, module: nn.Module, inputs: Any, x: Tensor) -> Tensor:
        if self._kept is None:
            return x
        return torch.cat([x[:, : self._prefix], rows_of(x[:, self._prefix :], self._kept)], dim=1)

    def _see(self, module: nn.Module, inputs: Any, x: Tensor) -> None:
        self._seen = x


def rows_of(tokens: Tensor, index: Tensor) -> Tensor:
    """Of tokens (N, L, D) those of `index` (N, K), image by image: (N, K, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))
