"""`solo export RUN to=TARGET out=FOLDER`: the backbone of a run for another program."""

from solo.args.take_schema import ExportCfg
from solo.run.pretrained import load_pretrained
from solo.run.report import say
from solo.run.take import command


def export(cfg: ExportCfg) -> None:
    """Write the folder and say what is in it."""
    done = load_pretrained(cfg.run, cfg.device).export(cfg.to, cfg.out)
    files = ", ".join(sorted(file.name for file in done.folder.iterdir() if not file.name.startswith(".")))
    checked = "read back, features are equal" if done.checked else "not read back: its program is not here"
    say(f"{done.folder}: {files} ({checked})\n\n" + "\n".join(done.usage))


main = command("export", ExportCfg, export)
