import errno
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from hwgen.emit.write import (
    MARKER,
    check_output,
    kept_folder,
    output_folder,
    restore,
    write_files,
    write_folder,
)
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


OLD = {"kept": "1", "gone": "2", "tb/bench": "3", "tb/gone": "4", "sim/a/b": "5", "shape": "6"}
NEW = {"kept": "11", "tb/bench": "33", "tb/new": "44", "rom/x": "55", "shape/now a folder": "66"}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file() and p.name != MARKER}


@pytest.fixture
def out(tmp_path):
    write_folder(tmp_path / "out", OLD)
    (tmp_path / "out/link").symlink_to("nowhere")
    return tmp_path / "out"


def inodes(folder):
    return [path.stat().st_ino for path in (folder, folder / "tb")]


def test_a_folder_and_its_subfolders_keep_their_identity(out):
    before = inodes(out)
    write_folder(out, NEW, force=True)
    assert contents(out) == NEW and inodes(out) == before
    assert sorted(os.listdir(out)) == [MARKER, "kept", "rom", "shape", "tb"]


def test_the_current_folder_is_filled_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(".", OLD)
    write_folder(".", NEW, force=True)
    assert contents(tmp_path) == contents(Path.cwd()) == NEW


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_folder_stays(tmp_path, there):
    real, link = tmp_path / "disk/real", tmp_path / "link"
    if there:
        write_folder(real, OLD)
    link.symlink_to("disk/real")
    write_folder(link, NEW, force=True)
    assert link.is_symlink() and contents(real) == NEW
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(HwgenError, match="Output folder must be a folder, not the link .*loop to itself"):
        write_folder(tmp_path / "loop", NEW)


def in_child(work, user=12345):
    """Status of a child process that does this, as an ordinary user where root asks, and then ends at once."""
    child = os.fork()
    if not child:
        try:
            if user and not os.getuid():
                os.setgid(user)
                os.setuid(user)
            work()
            os._exit(0)
        except HwgenError as error:
            print(error)
            os._exit(2)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def common(tmp_path_factory):
    """A folder that every user reaches."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_an_own_folder_in_somebody_elses_is_filled_and_the_other_refused_before_the_work(common, capfd):
    own = common / "own"
    own.mkdir()
    own.chmod(0o777)
    user_owns_all = not os.getuid()
    if not user_owns_all:
        common.chmod(0o555)
    assert in_child(lambda: write_folder(own, OLD)) == 0
    assert in_child(lambda: write_folder(own, NEW, force=True)) == 0
    assert contents(own) == NEW and os.listdir(common) == ["own"]
    assert in_child(lambda: check_output(common / "new/deep", False)) == 2
    assert f"Output folder must be in a writable folder, not {common}/new/deep: {common} is none (Permission denied)" \
        in capfd.readouterr().out
    (own / "tb").chmod(0o555)
    if user_owns_all:
        os.chown(own / "tb", 0, 0)
    assert in_child(lambda: check_output(own, True)) == 2
    assert f"Output folder must be writable, not {own}: Permission denied" in capfd.readouterr().out
    assert contents(own) == NEW
    common.chmod(0o755)
    (own / "tb").chmod(0o755)


class Stop(BaseException):
    pass


def stopping_at(monkeypatch, number, stop):
    """Calls `stop` in place of the `number`-th rename."""
    count, rename = [0], Path.rename

    def counted(self, target):
        count[0] += 1
        return stop() if count[0] == number else rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)


def fails(error):
    def stop():
        raise error

    return stop


def test_a_failure_at_any_move_leaves_the_old_contents(out, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    for number in range(1, 99):
        with monkeypatch.context() as patch:
            stopping_at(patch, number, fails(full if number % 2 else Stop()))
            try:
                write_folder(out, NEW, force=True)
            except HwgenError as error:
                assert "Output folder must be writable, not " in str(error) and "No space left" in str(error)
            except Stop:
                pass
            else:
                break
        assert contents(out) == OLD and (out / "link").is_symlink()
        assert not [name for name in os.listdir(out) if name.startswith(".hwgen-")]
    assert number > 12 and contents(out) == NEW


def test_after_a_kill_at_any_move_the_next_run_finds_the_old_contents(out, monkeypatch):
    """Killed again while it puts things right, too."""
    before = inodes(out)
    for number in range(1, 99):
        with monkeypatch.context() as patch:
            stopping_at(patch, number, lambda: os._exit(9))
            status = in_child(lambda: write_folder(out, NEW, force=True), user=None)
        if not status:
            break
        assert status == 9 and [name for name in os.listdir(out) if name.startswith(".hwgen-")]
        with monkeypatch.context() as patch:
            stopping_at(patch, 3, lambda: os._exit(9))
            in_child(lambda: restore(out), user=None)
        with pytest.raises(HwgenError, match="--force overwrites what hwgen made there"):
            check_output(out, False)
        assert contents(out) == OLD and inodes(out) == before and (out / "link").is_symlink()
        assert not [name for name in os.listdir(out) if name.startswith(".hwgen-")]
    assert number > 12 and contents(out) == NEW


def test_earlier_contents_that_cannot_be_put_back_are_kept_and_named(out):
    """As after a loss of power, which may leave a file without its contents."""
    stage = out / ".hwgen-12345678"
    write_files(stage, {"lock": "", "journal": "", "old/a": "old"})
    with pytest.raises(HwgenError, match=f"must get back its earlier contents from {stage}, but: Expecting value"):
        restore(out)
    assert contents(stage) == {"lock": "", "journal": "", "old/a": "old"}


def test_what_a_killed_process_left_beside_a_new_folder_is_removed(tmp_path):
    ready, go = os.pipe()
    child = os.fork()
    if not child:
        with output_folder(tmp_path / "out") as new:
            write_files(new, {"a": "1"})
            os.write(go, b"x")
            time.sleep(60)
    os.read(ready, 1)
    assert len(os.listdir(tmp_path)) == 1
    check_output(tmp_path / "out", False)
    assert len(os.listdir(tmp_path)) == 1  # its process is at work
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    write_folder(tmp_path / "out", NEW)
    assert os.listdir(tmp_path) == ["out"] and contents(tmp_path / "out") == NEW
    for end in (ready, go):
        os.close(end)


def test_two_that_write_one_folder_leave_what_one_of_them_wrote(out):
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            try:
                own = {f"{number}/{i}": str(number) for i in range(9)} | {"all": str(number)}
                for _ in range(10):
                    write_folder(out, own, force=True)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    number = (out / "all").read_text()
    assert contents(out) == {f"{number}/{i}": number for i in range(9)} | {"all": number}
    assert sorted(os.listdir(out)) == [MARKER, number, "all"]


def test_parents_that_others_use_are_left(tmp_path):
    with pytest.raises(Stop), output_folder(tmp_path / "a/b/one"):
        write_folder(tmp_path / "a/two", OLD)
        raise Stop
    assert os.listdir(tmp_path / "a") == ["two"]


def test_what_is_kept_until_a_folder_is_whole_lies_where_there_is_room(tmp_path):
    assert kept_folder(tmp_path / "run", "nodes") == tmp_path / ".run.nodes"
    (tmp_path / "run").mkdir()
    kept = kept_folder(tmp_path / "run", "nodes")
    assert kept == tmp_path / "run/.hwgen-nodes"
    kept.mkdir()
    write_folder(tmp_path / "run", OLD)  # it counts as empty
    assert kept.is_dir()
