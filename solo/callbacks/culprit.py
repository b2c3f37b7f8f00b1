"""Who made the first value that is not finite: a step is run once more, watched operation by operation."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import lightning
import torch
from torch import Tensor, nn

# One of the few underscored modules that torch documents: the only way to see every operation.
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

_FOREIGN = (os.path.dirname(torch.__file__), os.path.dirname(lightning.__file__), __file__)


@dataclass(frozen=True)
class Finding:
    """Where a value that is not finite came from."""

    value: str = ""  # "nan" or "inf"
    module: str = ""  # dotted name of the innermost module at work, "" outside of all (in a loss)
    kind: str = ""  # its class, "" likewise
    operation: str = ""  # torch's name of the operation
    source: str = ""  # file, line and function of the code that called it
    parameters: tuple[str, ...] = ()  # names of parameters that were not finite before the step

    def __str__(self) -> str:
        if self.parameters:
            others = f" and {len(self.parameters) - 1} more" if len(self.parameters) > 1 else ""
            return f"the weights were broken before this step: {self.parameters[0]}{others}"
        if not self.operation:
            return "the step gave finite values when it was run once more"
        where = f"in module {self.module} ({self.kind})" if self.module else "in the loss"
        return f"the first {self.value} is made {where} by {self.operation}, {self.source}"


def find_culprit(module: nn.Module, step: Callable[[], Any]) -> Finding:
    """Run `step`, which uses `module`, without gradient, and report where the NaN, or else the infinity, began.

    Reported is what reached the result of `step`: losses in log space make infinities and NaNs that are masked later,
    and minus infinity is not looked for.
    """
    parameters = broken(module)
    with _modules_at_work(module) as stack, torch.no_grad(), _Lookout(stack) as lookout:
        result = step()
    found: Finding = lookout.origin_of(result)
    return replace(found, parameters=parameters)


def broken(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that are not finite; of buffers, the failing step itself may have written to."""
    return tuple(name for name, value in module.named_parameters() if not bool(value.isfinite().all()))


@contextmanager
def _modules_at_work(module: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """(name, class) of the modules whose forward runs, the innermost last."""
    stack: list[tuple[str, str]] = []
    hooks: list[RemovableHandle] = []
    for name, part in module.named_modules():
        if name:
            entry = (name, type(part).__name__)
            hooks.append(part.register_forward_pre_hook(lambda *_, entry=entry: stack.append(entry)))
            hooks.append(part.register_forward_hook(lambda *_: stack.pop() and None, always_call=True))
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()


class _Lookout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at what goes into every operation and what comes out, and follows what is not finite."""

    def __init__(self, stack: list[tuple[str, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack = stack
        self._origins: dict[str, dict[int, Finding]] = {"nan": {}, "inf": {}}  # value -> memory -> where it began
        self._kept: list[Tensor] = []  # so that no memory is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Before the call, which may write into its arguments.
        before = {value: [_memory(x) for x in _tensors((args, kwargs)) if _has(value, x)] for value in self._origins}
        out = func(*args, **kwargs)
        operation = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        if "empty" in operation:  # whatever was in that memory
            return out
        for value, origins in self._origins.items():
            for tensor in _tensors(out):
                if not _has(value, tensor):
                    continue
                known = [origins[memory] for memory in before[value] if memory in origins]
                name, kind = self.stack[-1] if self.stack else ("", "")
                origins[_memory(tensor)] = known[0] if known else Finding(value, name, kind, operation, _source())
                self._kept.append(tensor)
        return out

    def origin_of(self, result: Any) -> Finding:
        """Where the first NaN, else the first infinity, of the result began; empty if it is finite."""
        for value, origins in self._origins.items():
            for tensor in _tensors(result):
                if _has(value, tensor) and _memory(tensor) in origins:
                    found: Finding = origins[_memory(tensor)]
                    return found
        return Finding()


def _tensors(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, (list, tuple, dict)):
        for part in item.values() if isinstance(item, dict) else item:
            yield from _tensors(part)


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _has(value: str, x: Tensor) -> bool:
    if not x.is_floating_point():
        return False
    return bool((x.isnan() if value == "nan" else x == float("inf")).any())


def _source() -> str:
    """The innermost code that is neither torch's nor Lightning's nor this file's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOREIGN):
        frame = frame.f_back
    parts = frame.f_code.co_filename.split(os.sep)
    short = os.sep.join(parts[parts.index("solo") :] if "solo" in parts else parts[-2:])
    return f"{short}:{frame.f_lineno} ({frame.f_code.co_name})"
