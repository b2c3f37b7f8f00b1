"""Code of the user's own, named by its import path `module:name`: methods, policies, backbones, data sets, ...

A file that someone else wrote (a recipe, a checkpoint) must not run code. So an import path counts where the user gave
it, on the command line or in a program; one in a file is refused until the user names its module, see `permit`.
"""

import importlib
import itertools
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, TypeGuard

from solo.errors import UserError, did_you_mean

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_permitted: set[str] = set()


def is_path(value: object) -> TypeGuard[str]:
    """Whether a value is an import path."""
    return isinstance(value, str) and _PATH.fullmatch(value) is not None


def permit(paths: Iterable[str]) -> None:
    """Let these import paths, or all of these modules, be loaded in this process: the user has named them."""
    _permitted.update(paths)


def forbid(paths: Iterable[str]) -> None:
    """Take back what `permit` did."""
    _permitted.difference_update(paths)


def load(path: str, key: str, makes: str = "") -> Any:
    """What an import path leads to; its module may lie in the working directory. `key` is the setting that names it.

    With `makes` it must be a function or class that returns that. Raises a `UserError`: it isn't, nobody permitted it,
    the module or the name is missing, or the module can't be imported.
    """
    module, _, name = path.partition(":")
    packages = itertools.accumulate(module.split("."), "{}.{}".format)
    if _permitted.isdisjoint([path, *packages]):  # neither it, its module nor a package around it
        raise UserError(
            f"{key}={path} would run code of the module {module}, which a file names and not you; if you trust it, "
            f"give {key}={path} or trust=[{module.partition('.')[0]}] on the command line"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # behind everything that is installed
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever the user's module raises
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "") in (module, module.partition(".")[0])
        reason = f"there is no module {error.name}" if missing else f"{type(error).__name__}: {error}"  # type: ignore[attr-defined]
        where = "; it must be installed, or lie in the working directory" if missing else ""
        raise UserError(f"{key}={path} can't be imported: {' '.join(reason.split())}{where}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [known for known in dir(found) if not known.startswith("_")])
            raise UserError(f"{key}={path} can't be imported: {module} has no {part!r}{hint and '; ' + hint.rstrip()}")
        found = getattr(found, part)
    if makes and not callable(found):
        raise UserError(f"{key}={path} can't be called; give a function that returns {makes}")
    return found
