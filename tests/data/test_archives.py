"""Archives that try to write elsewhere, or without end; and one that is as it should be."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile

import pytest

from solo.data.storage.containers import extract_tar, extract_zip, guarded
from solo.errors import UserError


def tar(path, *members, mode="w"):
    """Members are (name, content) or a TarInfo."""
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, to, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def test_files_and_folders(tmp_path):
    extract_tar(tar(tmp_path / "x.tar.gz", ("a/b.txt", b"hello"), ("c", b""), mode="w:gz"), tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"hello" and (tmp_path / "out" / "c").is_file()


@pytest.mark.fault(5, "a tar whose chain of links leaves its folder", "refused; no link is ever made")
def test_a_chain_of_links(tmp_path):
    long = "d" * 240  # the way out that realpath doesn't see: longer than a path may be
    steps = [link("x", "/".join([long] * 17 + [".."] * 18)), ("x/evil", b"x")]
    chains = [
        [link("x", "d/.."), link("d", "."), ("x/evil", b"x")],
        [link("d", "."), link("x", "d/.."), link("y", "x/..", tarfile.LNKTYPE), ("y/evil", b"x")],
        [link("a", "b"), link("b", "a")],
        steps,
    ]
    for place, members in enumerate(chains):
        source = tar(tmp_path / f"{place}.tar", *members)
        with pytest.raises(UserError, match="no link is ever made"):
            extract_tar(source, tmp_path / "in" / f"{place}")
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob("*evil*")]
    assert all(path.parts[0] == "in" and len(path.parts) > 2 for path in found)
    assert not [path for path in (tmp_path / "in").rglob("*") if path.is_symlink()]


@pytest.mark.fault(5, "tar members with absolute paths, `..`, devices, sizes without end", "refused")
@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([("../evil", b"x")], "'../evil' would be written outside"),
        ([("/tmp/solo-evil", b"x")], "'/tmp/solo-evil' would be written outside"),
        ([("a/../../evil", b"x")], "would be written outside"),
        ([link("a", "/"), ("a/evil", b"x")], "'a' is neither file nor folder"),
        ([link("a", ".."), ("a/evil", b"x")], "'a' is neither file nor folder"),
        ([link("d/a", "../../evil")], "'d/a' is neither file nor folder"),
        ([link("a", "../evil", tarfile.LNKTYPE)], "'a' is neither file nor folder"),
        ([special("a", tarfile.CHRTYPE)], "'a' is neither file nor folder"),
        ([special("a", tarfile.FIFOTYPE)], "'a' is neither file nor folder"),
        ([("a", bytes(2000))], "is too large to unpack: 2,000 bytes of at most 1,000"),
        ([("a", bytes(600)), ("b", bytes(600))], "is too large to unpack: 1,200 bytes"),
    ],
)
def test_tar_files_that_are_refused(members, text, tmp_path):
    source = tar(tmp_path / "x.tar", *members)
    with pytest.raises(UserError, match=re.escape(text)):
        extract_tar(source, tmp_path / "in" / "out", most=1000)
    assert not list(tmp_path.rglob("*evil*"))


def zipped(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_zip_files(tmp_path):
    extract_zip(zipped(tmp_path / "a.zip", **{"a/b": "hello"}), tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b").read_text() == "hello"
    with pytest.raises(UserError, match="'../evil' would be written outside"):
        extract_zip(zipped(tmp_path / "b.zip", **{"fine": "x", "../evil": "x"}), tmp_path / "other")
    assert not list(tmp_path.rglob("*evil*")) and not list((tmp_path / "other").iterdir())
    bomb = zipped(tmp_path / "c.zip", zeros=bytes(10**6))
    assert bomb.stat().st_size < 2000
    with pytest.raises(UserError, match="is too large to unpack: 1,000,000 bytes of at most 1,000"):
        extract_zip(bomb, tmp_path / "third", most=1000)


@pytest.mark.parametrize("extract", [extract_tar, extract_zip])
@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
def test_no_archives(extract, content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    if extract is extract_tar and content == bytes(5000):
        extract(tmp_path / "x", tmp_path / "out")  # an empty tar file looks like that
        return
    with pytest.raises(UserError, match="is no complete archive"):
        extract(tmp_path / "x", tmp_path / "out")


def test_a_truncated_tar(tmp_path):
    source = tar(tmp_path / "x.tar.gz", *((str(i), bytes(range(256)) * 50) for i in range(20)), mode="w:gz")
    source.write_bytes(source.read_bytes()[:200])
    with pytest.raises(UserError, match="is no complete archive"):
        extract_tar(source, tmp_path / "out")


def test_torchvision_unpacks_by_these(tmp_path):
    from torchvision.datasets.utils import extract_archive

    with guarded(), pytest.raises(UserError, match="outside"):
        extract_archive(str(tar(tmp_path / "x.tar", ("../evil", b"x"))), str(tmp_path / "out"))
    with guarded():
        extract_archive(str(zipped(tmp_path / "y.zip", a="hello")), str(tmp_path / "out"))
    assert (tmp_path / "out" / "a").read_text() == "hello" and not (tmp_path / "evil").exists()
