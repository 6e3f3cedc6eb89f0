import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hwgen.errors import HwgenError
from hwgen.whole_files import try_writing, whole_file, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("failure", ["text", "disk"])
def test_a_failed_write_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    if failure == "text":
        with pytest.raises(UnicodeEncodeError):
            write_text(path, "new \ud800")
    else:
        with pytest.raises(OSError), whole_file(path) as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/real").write_text("old")
    (tmp_path / "link").symlink_to("there/real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there/real").read_text() == "new"
    assert names(tmp_path) == ["link", "there"] and names(tmp_path / "there") == ["real"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    script = "import sys, time\nfrom hwgen.whole_files import whole_file\nwith whole_file(sys.argv[1]) as partial:\n" \
             "    partial.write_text('half')\n    print(partial, flush=True)\n    time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "a"], stdout=subprocess.PIPE, text=True)
    partial = Path(process.stdout.readline().strip())
    foreign = [".a.template", ".a.hwgen-notes.txt", "a.hwgen-12345678"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    write_text(tmp_path / "a", "while the other writes")
    assert partial.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    write_text(tmp_path / "a", "after")
    assert names(tmp_path) == sorted([*foreign, "a"]) and (tmp_path / "a").read_text() == "after"


def test_long_names_and_missing_folders(tmp_path):
    write_text(tmp_path / ("é" * 127), "x")
    assert names(tmp_path) == ["é" * 127]
    with pytest.raises(HwgenError, match="nowhere/a must be writable: No such file or directory"):
        write_text(tmp_path / "nowhere/a", "x")


def test_trying_leaves_nothing(tmp_path):
    try_writing(tmp_path)
    assert not names(tmp_path)
    with pytest.raises(OSError):
        try_writing("/proc")
