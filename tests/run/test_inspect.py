from __future__ import annotations

from PIL import Image

from solo.cli import main


def test_says_what_is_there(tmp_path, capsys):
    for name, value in [("birds/owls", 0), ("birds/eagles", 51), ("fish/cod", 102)]:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (12, 10), value).save(tmp_path / "data" / name / "1.png")
    (tmp_path / "data" / "fish" / "cod" / "empty.png").write_bytes(b"")
    assert main(["inspect", f"data.train_path={tmp_path}/data"]) == 0
    out = capsys.readouterr().out
    for text in ("3 images", "12 x 10 (3)", "level1 (2), level2 (3): 3 classes", "│   ├── eagles (1)", "mean: [0.2]"):
        assert text in out
    assert (
        "unreadable: 1" in out
        and "empty.png can't be read as an image (it is empty (0 bytes))" in out
        and "on_error: skip" in out
    )


def test_table_and_wrong_path(tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    (tmp_path / "t.csv").write_text("path,label\n1.png,cat\n")
    assert main(["inspect", str(tmp_path / "t.csv")]) == 0
    out = capsys.readouterr().out
    assert "format: table" in out and "std: [1.0, 1.0, 1.0]" in out  # of one colour: what is proposed can be trained
    (tmp_path / "t.csv").write_bytes("path,label\n1.png,größe\n".encode("latin-1"))
    assert main(["inspect", str(tmp_path / "t.csv")]) == 1 and "write it as UTF-8" in capsys.readouterr().err
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.svg").write_text("<svg/>")
    assert main(["inspect", str(tmp_path / "texts")]) == 1 and ".svg (1)" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err
