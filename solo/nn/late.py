"""Buffers whose size is known only when training starts."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class LateBuffers(nn.Module):
    """Buffers that are None until training starts or a checkpoint brings them, in its size: so they load on resume."""

    late: ClassVar[tuple[str, ...]] = ()

    def make_late_buffers(self) -> None:
        """Register the names of `late`, without tensors; these are in no state dict."""
        for name in self.late:
            self.register_buffer(name, None)
        # DistributedDataParallel would copy the first process's tensors, if it saw them, to all others at each step.
        self._ddp_params_and_buffers_to_ignore = list(self.late)

    def set_late_buffer(self, name: str, start: Tensor) -> bool:
        """Use `start` unless a tensor of its shape is there; whether it was used."""
        present: Tensor | None = getattr(self, name)
        if present is not None and present.shape == start.shape:
            return False
        self.register_buffer(name, start)
        return True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        device = next(self.parameters()).device
        for name in self.late:
            if prefix + name in state_dict:
                self.register_buffer(name, torch.empty_like(state_dict[prefix + name], device=device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
