"""The keys of `method_kwargs`, method by method: `METHOD_KWARGS[method]` is the typed dataclass.

They live here, and not beside the methods, so that a misspelt key is refused before torch is imported.
A field without a default is required.
"""

from __future__ import annotations

from dataclasses import dataclass

from solo.args.fields import REQUIRED, key


@dataclass(kw_only=True)
class SimCLRKwargs:
    """Keys of `method: simclr`."""

    proj_hidden_dim: int = key(REQUIRED, "width of the projector's hidden layer", ge=1)
    proj_output_dim: int = key(REQUIRED, "width of the projection, on which the loss is computed", ge=1)
    temperature: float = key(REQUIRED, "temperature of the softmax over similarities", gt=0)


METHOD_KWARGS: dict[str, type] = {"simclr": SimCLRKwargs}
