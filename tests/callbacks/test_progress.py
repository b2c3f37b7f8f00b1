import io
import re

import pytest
from rich.console import Console

from solo.callbacks import Meter, RunProgress
from solo.callbacks.meter import clock, status_line


def show(fit, terminal, bar=True):
    screen = io.StringIO()
    meter = Meter()
    console = Console(file=screen, force_terminal=terminal, soft_wrap=True, width=200, highlight=False)
    progress = RunProgress(meter, bar=bar, console=console)
    fit([meter, progress], enable_progress_bar=True)
    return screen.getvalue()


def test_log_files_get_one_plain_line_an_epoch(fit):
    lines = show(fit, terminal=False).splitlines()
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    speed = r"epoch \d/3 · ETA \d:\d\d:\d\d · [\d,]+ img/s · data wait \d+%"
    form = speed + r" · loss \d\.\d{3} · threshold 0\.500 · linear 50\.00% · knn 40\.00%"
    assert all(re.fullmatch(form, line) for line in lines)
    assert lines[-1].startswith("epoch 3/3 · ETA 0:00:00")


def test_a_terminal_gets_one_bar(fit):
    text = show(fit, terminal=True)
    assert "\x1b[" in text and "100%" in text and "epoch 3/3" in text


def test_plain_lines_on_a_terminal_where_asked_for(fit):
    assert len(show(fit, terminal=True, bar=False).splitlines()) == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360000, "100:00:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_what_was_not_measured_is_not_shown():
    assert status_line(Meter(), {}) == "0 img/s · data wait 0%"
