"""`solo export RUN to=TARGET out=FOLDER`: the backbone of a run for another program."""

from __future__ import annotations

from collections.abc import Sequence

from solo.args.take_schema import ExportCfg
from solo.run.report import say
from solo.run.take import open_model, read_words


def main(words: Sequence[str]) -> int:
    """Run the command.

    Raises:
        ConfigError: wrong words.
        UserError: the program doesn't know such a network, or the folder can't be written.
    """
    cfg = read_words("export", ExportCfg, words)
    if cfg is None:
        return 0
    done = open_model(cfg).export(cfg.to, cfg.out)
    files = ", ".join(sorted(file.name for file in done.folder.iterdir() if not file.name.startswith(".")))
    checked = "read back, features are equal" if done.checked else "not read back: its program is not here"
    say(f"{done.folder}: {files} ({checked})\n\n" + "\n".join(done.usage))
    return 0
