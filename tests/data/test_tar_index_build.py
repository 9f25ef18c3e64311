"""Building indices: in threads, in processes, by many programs at once, where nothing is kept."""

import logging
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shards import contents, opened, records, write_tar

from capjax.data import tar_index_build
from capjax.data.tar_index_build import open_indices
from capjax.data.tars import IndexedFile
from capjax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_indices_in_a_folder_of_their_own(tmp_path):
    for folder, start in (("a", 0), ("b", 100)):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "000.tar", records(2, start))
    for _ in range(2):
        for folder, start in (("a", 0), ("b", 100)):
            found, kept = opened(
                tmp_path / folder / "000.tar", index_dir=str(tmp_path / "made" / "here")
            )
            assert sorted(found) == [f"{start + i:09d}" for i in range(2)]
            assert kept.place.startswith(str(tmp_path / "made" / "here" / "000.tar-"))
    assert len(os.listdir(tmp_path / "made" / "here")) == 2
    assert os.listdir(tmp_path / "a") == ["000.tar"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"index_dir .* cannot be made"):
        opened(tmp_path / "a" / "000.tar", index_dir=str(tmp_path / "file" / "x"))


@pytest.mark.parametrize("processes", [0, 1], ids=["threads", "processes"])
def test_where_nothing_can_be_written_indices_live_in_memory(tmp_path, caplog, processes):
    """A folder in the index's place stands for what cannot be written, for root as for anyone."""
    files = [IndexedFile(write_tar(tmp_path / f"{i}.tar", records(3))) for i in range(3)]
    for i in range(3):
        (tmp_path / f"{i}.tar.index").mkdir()
    with caplog.at_level(logging.WARNING):
        kept = open_indices(files, processes=processes)
    assert [len(contents(file, k)) for file, k in zip(files, kept, strict=True)] == [3, 3, 3]
    assert all(isinstance(k.place, bytes) for k in kept)
    (record,) = caplog.records
    assert "indices of 3 tars are built anew each time" in record.getMessage()
    assert "index_dir" in record.getMessage()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_a_read_only_folder(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", records(3))
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        found, kept = opened(path)
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    assert len(found) == 3
    assert isinstance(kept.place, bytes)
    assert "built anew" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(tmp_path, monkeypatch, caplog):
    def full(path, mode, encoding=None):
        return open("/dev/full", mode)

    path = write_tar(tmp_path / "a.tar", records(3))
    monkeypatch.setattr(Path, "open", full)
    found, kept = opened(path)
    assert len(found) == 3
    assert isinstance(kept.place, bytes)
    assert "No space left" in caplog.text
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("processes", [0, 3])
def test_many_shards_in_threads_and_in_processes(tmp_path, processes):
    files = [
        IndexedFile(write_tar(tmp_path / f"{i}.tar", records(3, start=i * 10))) for i in range(12)
    ]
    kept = open_indices(files, processes=processes)
    for i, (file, k) in enumerate(zip(files, kept, strict=True)):
        assert sorted(contents(file, k)) == [f"{i * 10 + j:09d}" for j in range(3)]
    assert len(os.listdir(tmp_path)) == 24


def test_the_mistake_of_a_shard_is_told_by_a_process_as_by_a_thread(tmp_path):
    files = [IndexedFile(write_tar(tmp_path / f"{i}.tar", records(2))) for i in range(3)]
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(b"\x1f\x8b" + bytes(100))
    for processes in (0, 2):
        with pytest.raises(UserError, match=r"is compressed with gzip.*unpack it"):
            open_indices([*files, IndexedFile(packed)], processes=processes)
    with pytest.raises(UserError, match="-1 processes"):
        open_indices(files, processes=-1)


def test_without_processes_threads_do_it(tmp_path, monkeypatch):
    files = [IndexedFile(write_tar(tmp_path / f"{i}.tar", records(2))) for i in range(5)]
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert len(open_indices(files, processes=2)) == 5
    monkeypatch.setattr(sys, "executable", "/bin/true")  # starts, and answers nothing
    for file in files:
        os.remove(file.path + ".index")
    assert len(open_indices(files, processes=2)) == 5


PROGRAM = """
import sys
from capjax.data import tar_index, tar_index_build
from capjax.data.tars import IndexedFile

files = [IndexedFile(path) for path in sys.argv[2:]]
if sys.argv[1] == "slow":  # in pieces, so that there is a half index for as long as possible
    whole_file = tar_index.whole_file
    class Slow:
        def __init__(self, file):
            self.file = file
        def write(self, data):
            import time
            for i in range(0, len(data), 8):
                self.file.write(data[i : i + 8])
                self.file.flush()
                print("writing", flush=True)
                time.sleep(0.005)
    import contextlib
    @contextlib.contextmanager
    def slowly(path, mode):
        with whole_file(path, mode) as file:
            yield Slow(file)
    tar_index.whole_file = slowly
print(len(tar_index_build.open_indices(files, processes=0)))
"""


def start(how, *paths):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, *map(str, paths)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_a_program_killed_while_it_writes_leaves_no_half_index(tmp_path):
    path = write_tar(tmp_path / "a.tar", records(3))
    with start("slow", path) as program:
        for _ in range(20):
            assert program.stdout.readline() == "writing\n"
        program.send_signal(signal.SIGKILL)
    assert not (tmp_path / "a.tar.index").exists()
    assert len(os.listdir(tmp_path)) == 2  # the tar, and the piece of an index under its own name
    assert len(opened(path)[0]) == 3


def test_two_programs_that_build_at_once_leave_whole_indices(tmp_path):
    paths = [write_tar(tmp_path / f"{i}.tar", records(3, start=i)) for i in range(6)]
    slow = start("slow", paths[0])
    assert slow.stdout.readline() == "writing\n"
    fast = [start("fast", *paths) for _ in range(2)]
    for program in fast:
        assert program.communicate(timeout=60)[0] == "6\n"
    expected = (tmp_path / "0.tar.index").read_bytes()
    assert slow.communicate(timeout=60)[0].endswith("writing\n1\n")
    assert (tmp_path / "0.tar.index").read_bytes() == expected
    assert len(os.listdir(tmp_path)) == 12
    for i, path in enumerate(paths):
        assert sorted(opened(path)[0]) == [f"{i + j:09d}" for j in range(3)]


def test_threads_that_build_at_once(tmp_path):
    path = write_tar(tmp_path / "a.tar", records(20))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: opened(path)[0], range(16)))
    assert all(one == found[0] for one in found)
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.index"]


def test_what_an_interrupted_program_left_is_known_as_an_index():
    assert tar_index_build.is_index("a/b.tar.index")
    assert tar_index_build.is_index("a/b.tar.index.12-ab34.partial")
    assert not tar_index_build.is_index("a.index/b.tar")
