"""Tables of paths and labels, as they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from solo.data.storage.listing import read_table, table_columns
from solo.errors import UserError

ROWS = [("a/1.png", "cat", "3"), ("a/2.png", "", "4"), ("b/3.png", "owl, barn", "")]
NAMES = ("file", "kind", "number")
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimited(tmp_path: Path, delimiter: str, mark: str) -> None:
    lines = [delimiter.join(NAMES), *(delimiter.join(f'"{cell}"' for cell in row) for row in ROWS), ""]
    assert read_table(write(tmp_path / "t.csv", mark + "\n".join(lines))) == COLUMNS


def test_json_in_three_forms(tmp_path: Path) -> None:
    records = [
        {"file": "a/1.png", "kind": "cat", "number": 3},
        {"file": "a/2.png", "kind": None, "number": 4.0},
        {"file": "b/3.png", "kind": "owl, barn"},
    ]
    columns = {name: [row.get(name) for row in records] for name in NAMES}
    assert read_table(write(tmp_path / "r.json", json.dumps(records))) == COLUMNS
    assert read_table(write(tmp_path / "c.json", json.dumps(columns))) == COLUMNS
    assert read_table(write(tmp_path / "l.jsonl", "\n\n".join(map(json.dumps, records)))) == COLUMNS


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "file": [row[0] for row in ROWS],
        "kind": pyarrow.array(["cat", None, "owl, barn"]).dictionary_encode(),
        "number": pyarrow.array([3.0, 4.0, float("nan")]),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == COLUMNS
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"broken\.parquet can't be read as parquet"):
        read_table(tmp_path / "broken.parquet")


@pytest.mark.fault(2, "columns of one name, open quotes, deep JSON, other things than rows in a table", "one line")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "file,kind\na.png,cat\nb.png\n", r"can't be read as csv \(row 3 has 1 cells, the header 2\)"),
        ("t.csv", "file,kind\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.json", "{", "can't be read as json"),
        ("t.json", '{"file": ["a.png"], "kind": []}', "its columns differ in length"),
        ("t.json", "[1, 2]", "can't be read as json"),
        ("t.jsonl", '{"file": "a.png"}\n{', "can't be read as jsonl"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.jsonl", '{"file": "a.png"}\n[1]', "each row has to be an object"),
        ("t.csv", "file,kind,kind\na.png,cat,x\n", "two columns are named 'kind'"),
        ("t.csv", 'file,kind\na.png,"cat\nb.png,"dog"\n', "can't be read as csv"),
        ("t.xlsx", "", r"is of no known kind; its name must end in \.csv"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path / name, text))


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)


def test_columns_that_need_no_word(tmp_path: Path) -> None:
    two = {"kind": ["cat"], "file": ["a.JPG"]}
    assert table_columns(two, tmp_path, None, None) == ("file", ["kind"])
    assert table_columns({"file": ["a.png"]}, tmp_path, None, None) == ("file", [])
    assert table_columns(COLUMNS, tmp_path, None, ["number", "kind"]) == ("file", ["number", "kind"])
    assert table_columns(COLUMNS, tmp_path, "kind", []) == ("kind", [])


@pytest.mark.parametrize(
    ("path", "labels", "message"),
    [
        ("fiel", None, "data.path_column: .*no column 'fiel'; did you mean 'file'"),
        (None, ["knd"], "data.label_columns: .*no column 'knd'; did you mean 'kind'.*it has file, kind, number"),
        (None, None, "several columns that may be labels: kind, number; set data.label_columns"),
    ],
)
def test_wrong_columns(path: str | None, labels: list[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table_columns(COLUMNS, Path("t.csv"), path, labels)


def test_no_column_of_images() -> None:
    with pytest.raises(UserError, match="no column of image files; set data.path_column to one of kind, number"):
        table_columns({"kind": ["cat"], "number": ["1"]}, Path("t.csv"), None, None)


@pytest.mark.fault(2, "a table without header, or with lists of labels", "refused: what to write is said")
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a.png": ["b.png"], "cat": ["dog"]}, "has no header: it begins with a.png"),
        ({"file": ["a.png"], "kind": ["['cat', 'dog']"]}, "'kind' holds lists.*a column for each level"),
        ({f"c{i}": ["1"] for i in range(3000)}, "c19 and 2,980 more"),
    ],
)
def test_tables_that_say_something_else(table: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        table_columns(table, Path("t.csv"), None, None)


def test_ends_of_lines_inside_of_texts(tmp_path: Path) -> None:
    text = '{"file": "a.png", "kind": "x\u2028y"}\n'
    assert read_table(write(tmp_path / "t.jsonl", text * 2))["kind"] == ["x\u2028y"] * 2
