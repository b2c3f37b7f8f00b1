"""Asking a run to stop: by a signal, or by a time limit. It stops between two steps, with everything saved."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from solo.errors import UserError
from solo.screen import PIPE_CLOSED, reader_is_gone

TIME_LIMIT = 124  # exit code, that of `timeout`
_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGHUP")


class StopRunError(SystemExit):
    """The run stopped because it was asked to, everything is saved.

    Attributes:
        code: of the process: 128 and the signal's number, or 124 at the time limit.
        reason: in words.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        name = signal.Signals(code - 128).name if code > 128 else ""
        self.reason = name or "the time limit (max_time)"


class StopRequests:
    """Whether the run shall end: SIGTERM, SIGUSR1, SIGHUP, a reader of the output that left, or a time limit.

    Nothing happens in the handler itself. `max_time` is Lightning's, `DD:HH:MM:SS`, a timedelta or its arguments, of
    this start of the program; `code` is the exit code of the latest request, 0 without one.

    Raises:
        UserError: `max_time` can't be read.
    """

    def __init__(self, max_time: str | timedelta | dict[str, Any] | None = None) -> None:
        self.code = 0
        self._limit = None if max_time is None else seconds_of(max_time)
        self._started = time.monotonic()
        self._former: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals from here on, in place of Lightning, which would stop inside an accumulation of batches."""
        if threading.current_thread() is not threading.main_thread():
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.code = 128 + number

        for name in _SIGNALS:
            number = getattr(signal, name, None)  # not all on Windows
            if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):  # nohup
                self._former[number] = signal.signal(number, note)

    def unlisten(self) -> None:
        """Give the signals back to their former handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def pending(self) -> int:
        """The exit code to stop with, 0 to go on."""
        if self._limit is not None and time.monotonic() - self._started >= self._limit:
            return self.code or TIME_LIMIT
        return self.code or (PIPE_CLOSED if reader_is_gone() else 0)


def requeue(trainer: Trainer, run: Callable[[list[str]], Any] = subprocess.check_call) -> bool:
    """Put a SLURM job that got SIGUSR1 back into the queue; False outside of SLURM or where that is switched off."""
    environment = trainer._accelerator_connector.cluster_environment
    if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
        return False
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    run(["scontrol", "requeue", job])
    return True


def seconds_of(max_time: str | timedelta | dict[str, Any]) -> float:
    """Seconds of Lightning's three ways to write a duration.

    Raises:
        UserError: it is none of them.
    """
    try:
        return float(Timer(duration=max_time).time_remaining() or 0)
    except (TypeError, ValueError, AttributeError, MisconfigurationException):
        raise UserError(f"max_time={max_time!r} is no duration; write DD:HH:MM:SS, or {{hours: 4}}") from None
