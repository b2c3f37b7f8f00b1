"""What can go wrong on a machine, in one line: no memory, a full disk, a killed worker, a lost process."""

import errno
import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from solo.errors import UserError, no_access

_LAUNCHER = "lightning.fabric.strategies.launchers.subprocess_script"
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|Cannot allocate memory|CUDNN_STATUS_ALLOC_FAILED", re.I)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (exited unexpectedly|is killed by signal: \w+)")
_SOURCE_LINE = re.compile(r"\[\S+\.(cc|cpp|h):\d+\] ")
# gloo, NCCL and the store say in many ways that the other side of a connection is gone.
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Socket (closed|Timeout)|NCCL.*(remote|timeout|aborted)"
    r"|Timed out waiting \d+ms for (recv|send)|gloo.*(peer|timeout)|Watchdog caught collective operation timeout",
    re.I | re.S,
)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Functions of Lightning and of this library that read the state of a run, but not its weights.
_RESTORING = {
    *("restore_training_state", "restore_callbacks", "on_load_checkpoint", "loaded_state", "set_rng_state", "restore"),
    *("step_plateaus", "_of_other_optimizers"),
}
_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the user's machine is the cause of into a `UserError`; everything else stays as it is."""
    try:
        yield
    except Exception as error:
        text = explain(error)
        if text is None or isinstance(error, UserError):
            raise
        raise UserError(text) from error


class _Said(logging.Handler):
    """Lightning ends the first process by SIGKILL if another one has failed, and says so where nobody looks."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line on the screen."""
        ended = re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage())
        if ended:
            sys.stderr.write(
                f"error: process {ended[1]} of this run has ended with code {ended[2]}; all are stopped, and "
                "resume_from_checkpoint=FOLDER_OF_THE_RUN goes on from what was saved last\n"
            )
            sys.stderr.flush()


def watch_children() -> None:
    """Say which process was lost, where Lightning has started them; twice = once."""
    logger = logging.getLogger(_LAUNCHER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Said()]


def explain(error: BaseException) -> str | None:
    """The line for the user, or None if the error is none of a user's machine."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return str(error)
    full = isinstance(error, RuntimeError) and _NO_MEMORY.search(text)
    if full or isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return (
            f"there is not enough memory ({text[:160] or type(error).__name__}); lower optimizer.batch_size, "
            "data.image_size or the network's width"
        )
    if worker := _WORKER.search(text):
        how = worker[2].replace("is killed by signal: ", "was killed by the signal ")
        return (
            f"a process that loads images (pid {worker[1].strip()}) {how.replace('exited unexpectedly', 'has ended')}, "
            "mostly for want of memory; lower data.num_workers or optimizer.batch_size"
        )
    if isinstance(error, RuntimeError) and _LOST.search(text):
        reason = textwrap.shorten(_SOURCE_LINE.sub("", text), 120, placeholder=" ...")
        return f"another process of this run has ended, and this one with it; see its message, if it had any ({reason})"
    if isinstance(error, OSError) and error.errno in _FULL:
        where = error.filename or "a file of the run"
        return f"{where} can't be written: {error.strerror}; free the disk or choose another checkpoint.dir"
    if isinstance(error, OSError) and error.errno in _LOCKED and error.filename:
        return no_access(error)
    frames = traceback.extract_tb(error.__traceback__)
    if {frame.name for frame in frames} & _RESTORING and isinstance(
        error, (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError)
    ):
        return f"the state of the run in the checkpoint can't be taken over ({type(error).__name__}: {text[:160]})"
    if "loading state_dict" in text:
        return f"the checkpoint doesn't fit the network that the settings describe: {text[:300]}"
    by_lightning = bool(frames) and "lightning" in Path(frames[-1].filename).parts
    if isinstance(error, MisconfigurationException) or (isinstance(error, ValueError) and by_lightning):
        return f"Lightning refuses the settings: {text}"
    return None
