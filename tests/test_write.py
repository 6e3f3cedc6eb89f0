import errno

import pytest

from hwgen.emit.write import MARKER, output_folder, write_files, write_folder
from hwgen.errors import HwgenError


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_writes_all_kinds_of_contents(tmp_path):
    target = tmp_path / "a" / "b"
    write_folder(target, {"x.txt": "é\n", "sub/y.bin": b"\0\1", "sub/z.bin": iter([b"\0", "\1", b"\2"])})
    assert listing(target) == [MARKER, "sub/y.bin", "sub/z.bin", "x.txt"]
    assert (target / "x.txt").read_bytes() == "é\n".encode()
    assert (target / "sub/z.bin").read_bytes() == b"\0\1\2"
    assert listing(tmp_path) == sorted(f"a/b/{name}" for name in listing(target))  # nothing beside it


def test_an_empty_folder_may_be_taken(tmp_path):
    write_folder(tmp_path / "new", {"x": "1"})
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", {"x": "1"})
    assert (tmp_path / "empty" / "x").read_text() == "1"


def test_overwrites_only_with_force(tmp_path):
    target = tmp_path / "out"
    write_folder(target, {"old": "1"})
    with pytest.raises(HwgenError, match="Output folder must be new or empty, not .*out: --force overwrites"):
        write_folder(target, {"new": "2"})
    assert listing(target) == [MARKER, "old"]
    write_folder(target, {"new": "2"}, force=True)
    assert listing(target) == [MARKER, "new"]


@pytest.mark.parametrize("force", [False, True])
def test_never_touches_what_hwgen_did_not_make(tmp_path, force):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(HwgenError, match="Output folder must be new, empty or made by hwgen, not .*other files"):
        write_folder(tmp_path, {"x": "1"}, force=force)
    assert listing(tmp_path) == ["thesis.txt"]
    with pytest.raises(HwgenError, match="Output folder must be a folder, not the file .*thesis.txt"):
        write_folder(tmp_path / "thesis.txt", {"x": "1"}, force=force)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, HwgenError])
def test_an_interrupt_leaves_nothing_new(tmp_path, stop):
    def pieces():
        yield b"half"
        raise stop

    target = tmp_path / "deep" / "out"
    with pytest.raises(stop):
        write_folder(target, {"a": "1", "b": pieces()})
    assert list(tmp_path.iterdir()) == []
    write_folder(target, {"old": "1"})
    with pytest.raises(stop):
        write_folder(target, {"b": pieces()}, force=True)
    assert listing(target) == [MARKER, "old"]
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    def pieces():
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HwgenError, match="Output folder must be writable, not .*out: No space left on device"):
        write_folder(tmp_path / "deep" / "out", {"a": pieces()})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_filled_up_meanwhile_is_left_alone(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(HwgenError, match="other files"), output_folder(target) as new:
        write_files(new, {"a": "1"})
        target.mkdir()
        (target / "mine").write_text("2")
    assert listing(tmp_path) == ["out/mine"]
