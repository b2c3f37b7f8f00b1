"""How large the tensors are that a computation makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Sizes(TorchFunctionMode):
    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names, self.sizes = names, list[int]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ in self.names:
            parts = result if isinstance(result, tuple) else (result,)
            self.sizes += [part.numel() for part in parts if isinstance(part, Tensor)]
        return result


@pytest.fixture
def sizes_of_results() -> Callable[..., AbstractContextManager[list[int]]]:
    """A block that lists the numbers of elements of what torch's functions of some names return in it."""

    @contextmanager
    def watch(*names: str) -> Iterator[list[int]]:
        with _Sizes(names) as mode:
            yield mode.sizes

    return watch
