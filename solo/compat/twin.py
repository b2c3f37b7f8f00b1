"""Two packages of one name: solo-learn is `solo`, too, and the one that is installed last wins, file by file."""

import importlib.metadata
from pathlib import Path


def twin() -> str | None:
    """What to know and do where solo-learn is installed beside this package, in one line; None where it isn't."""
    try:
        other = importlib.metadata.distribution("solo-learn")
    except importlib.metadata.PackageNotFoundError:
        return None
    here = Path(__file__).parents[1]
    return (
        f"solo-learn {other.version} is installed too, and both are imported as `solo` (here from {here}), so that "
        "files of one may stand in for the other's; part them: pip uninstall -y solo-learn && pip install "
        "--force-reinstall --no-deps solo-hex, and keep solo-learn in an environment of its own"
    )
