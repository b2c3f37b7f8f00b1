import os
from pathlib import Path

import pytest

from solo.errors import UserError
from solo.files import cell, clean, replacing, user_cache, write_text


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.fault(
    5, "no `HOME`, an empty or relative `XDG_CACHE_HOME`", "nothing is kept, nothing is written elsewhere"
)
def test_the_folder_of_what_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "solo"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for odd in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert user_cache() == tmp_path / "home" / ".cache" / "solo"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no HOME, no such user
    with pytest.raises(OSError):
        user_cache().mkdir(parents=True)


@pytest.mark.fault(5, "two programs write the same file at the same time", "one of the two, whole; none fails")
def test_two_writers(tmp_path, monkeypatch):
    path, own = tmp_path / "a.txt", os.getpid()
    stale = tmp_path / ".a.txt.1.tmp"
    stale.write_text("of a program that was killed")
    os.utime(stale, (0, 0))
    with replacing(path) as first:
        first.write_text("the first")
        monkeypatch.setattr(os, "getpid", lambda: own + 1)
        with replacing(path) as second:
            second.write_text("2nd")
            assert first.read_text() == "the first"
        monkeypatch.undo()
        assert path.read_text() == "2nd"
    assert path.read_text() == "the first" and list(tmp_path.iterdir()) == [path]


def test_a_leftover_that_another_writer_has_just_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([folder / ".a.txt.1.tmp"]))
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"a.txt can't be written: No such file"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in (".last.ckpt.tmp", ".metrics.csv.tmp", "last.ckpt", "notes.tmp"):
        (tmp_path / name).write_text("x")
    assert sorted(path.name for path in clean(tmp_path)) == [".last.ckpt.tmp", ".metrics.csv.tmp"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "notes.tmp"]


@pytest.mark.parametrize(
    ("value", "written"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("-x", "'-x"), ("cat", "cat"), ("", ""), (-1.5, -1.5), (None, None)],
)
def test_formulas_are_texts_in_csv(value, written):
    assert cell(value) == written
