"""The past: names, spellings and call forms of solo-learn 1.0.6 and of the HEX release, and what they mean here."""


def twin() -> str | None:
    """What to know and do where solo-learn is installed beside this package, in one line; None where it isn't."""
    import importlib.metadata  # here, so that `import solo` costs nothing
    from pathlib import Path

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
