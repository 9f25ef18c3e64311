"""One opener for local files and URLs: fsspec's memory:// stands for the stores."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from capjax.data import files
from capjax.data.tars import IndexedFile
from capjax.errors import UserError

fsspec = pytest.importorskip("fsspec")
DATA = bytes(range(256)) * 40


@pytest.fixture
def store():
    """The memory file system, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture(params=["local", "file URL", "memory"])
def address(request, tmp_path, store):
    """A path or URL of a file that holds DATA."""
    if request.param == "memory":
        store.pipe_file("/bucket/a.bin", DATA)
        return "memory://bucket/a.bin"
    (tmp_path / "a.bin").write_bytes(DATA)
    return ("file://" if request.param == "file URL" else "") + str(tmp_path / "a.bin")


def test_reads_any_part_also_in_a_copy_and_from_threads(address):
    file = files.open_file(address)
    assert file.size == len(DATA)
    places = [(0, 0), (0, 1), (255, 3), (5000, 5240), (10239, 1), (0, 10240)]
    for one in (file, pickle.loads(pickle.dumps(file))):
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda place: one.read(*place), places * 20))  # noqa: B023
        assert read == [DATA[offset : offset + size] for offset, size in places] * 20


def test_a_local_file_is_an_indexed_file_and_needs_no_fsspec(tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    assert type(files.open_file(tmp_path / "a.bin")) is IndexedFile
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from capjax.data import files\n"
        "assert files.open_file(sys.argv[1]).size == 10240\n"
        "assert files.expand(sys.argv[1][:-3] + '*') == [sys.argv[1]]\n"
        "try: files.open_file('memory://a')\n"
        "except files.UserError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.bin")], capture_output=True, text=True
    )
    assert ran.stderr == ""
    assert ran.stdout.strip().endswith('is a URL, which fsspec opens: pip install "capjax[remote]"')


def test_a_remote_file_that_was_replaced_is_noticed(store, monkeypatch):
    store.pipe_file("/bucket/a.bin", DATA)
    file = files.open_file("memory://bucket/a.bin")
    twin = pickle.loads(pickle.dumps(file))
    assert file.stamp == twin.stamp
    assert file.read(0, 4) == DATA[:4]
    store.pipe_file("/bucket/a.bin", DATA[::-1])  # of the same size: only the mark tells
    assert file.read(0, 4) == DATA[::-1][:4]  # not yet asked again
    assert files.open_file("memory://bucket/a.bin").stamp != file.stamp
    monkeypatch.setattr(files, "RECHECK_SECONDS", 0.0)
    for one in (file, twin):
        with pytest.raises(UserError, match=r"memory://bucket/a.bin has changed since it was op"):
            one.read(0, 4)


def test_a_remote_file_that_shrank_or_went_is_noticed_at_once(store):
    store.pipe_file("/bucket/a.bin", DATA)
    file = files.open_file("memory://bucket/a.bin")
    store.pipe_file("/bucket/a.bin", DATA[:100])
    with pytest.raises(UserError, match="has changed since it was opened; start again"):
        file.read(0, 200)
    store.rm("/bucket/a.bin")
    with pytest.raises(UserError, match="is gone; it was there when it was opened"):
        file.read(0, 4)


def test_a_store_that_ignores_ranges_is_refused(store, monkeypatch):
    store.pipe_file("/bucket/a.bin", DATA)
    file = files.open_file("memory://bucket/a.bin")
    monkeypatch.setattr(type(store), "cat_file", lambda self, path, start, end: DATA)
    with pytest.raises(UserError, match=r"gave 10,240 bytes where 4 were asked for .from byte 8"):
        file.read(8, 4)


def test_what_cannot_be_opened(tmp_path, store, monkeypatch):
    store.pipe_file("/bucket/folder/a.bin", DATA)
    with pytest.raises(UserError, match="there is no file at memory://bucket/none; check the addr"):
        files.open_file("memory://bucket/none")
    with pytest.raises(UserError, match="memory://bucket/folder is not a file; name the file"):
        files.open_file("memory://bucket/folder")
    with pytest.raises(UserError, match=r"Protocol not known: nowhere.*check the address"):
        files.open_file("nowhere://bucket/a")
    with pytest.raises(UserError, match="No such file"):
        files.open_file(tmp_path / "none")

    def denied(self, path, **_):
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(type(store), "info", denied)
    with pytest.raises(
        UserError, match=r"\(PermissionError: 403 Forbidden\); check the address, t"
    ):
        files.open_file("memory://bucket/folder/a.bin")


class Answer(Exception):
    """As aiohttp raises it, below the FileNotFoundError that fsspec makes of any failure."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


@pytest.mark.parametrize(("status", "missing"), [(404, True), (410, True), (503, False)])
def test_over_http_an_outage_is_not_a_missing_file(status, missing, store, monkeypatch):
    def info(self, path, **_):
        raise FileNotFoundError(path) from Answer(status)

    monkeypatch.setattr(type(store), "info", info)
    monkeypatch.setattr(files, "_file_system", lambda path: (store, path))
    with pytest.raises(UserError, match="there is no file" if missing else "Answer: sta") as caught:
        files.open_file("https://example.org/a.bin")
    assert isinstance(caught.value, files.MissingFile) == missing


def test_a_server_that_tells_no_size_is_refused(store, monkeypatch):
    monkeypatch.setattr(type(store), "info", lambda self, path, **_: {"size": None})
    with pytest.raises(UserError, match="does not tell its size; copy the file here"):
        files.open_file("memory://bucket/a.bin")


@pytest.mark.parametrize("where", ["local", "memory"])
def test_patterns(where, tmp_path, store):
    names = [f"part-{n:03d}.tar" for n in range(8, 12)] + ["val/part-1.tar", "train/part-1.tar"]
    for name in names:
        store.pipe_file(f"/tars/{name}", b"x")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    root = str(tmp_path) if where == "local" else "memory://tars"

    def found(*patterns):
        paths = files.expand([f"{root}/{pattern}" for pattern in patterns])
        head = root if where == "local" else "memory:///tars"
        return [path.removeprefix(f"{head}/") for path in paths]

    assert found("*.tar") == names[:4]
    assert found("part-{009..011}.tar") == names[1:4]
    assert found("{val,train}/part-{1..1}.tar") == ["train/part-1.tar", "val/part-1.tar"]
    assert found("part-01?.tar", "part-{008,009}.tar") == names[:4]
    assert found("**/part-1.tar") == ["train/part-1.tar", "val/part-1.tar"]
    with pytest.raises(UserError, match=r"no file matches '.*/none\*'; check the pattern"):
        found("*.tar", "none*")
    with pytest.raises(UserError, match=r"part-009.tar is named twice, by '.*' and by '.*\*.tar'"):
        found("part-009.tar", "*.tar")
    with pytest.raises(UserError, match=r"\{11\.\.9\} in .* counts backwards"):
        found("part-{11..9}.tar")


def test_local_names_are_taken_as_they_stand(tmp_path):
    odd = tmp_path / "a[1]{2..3}*.tar"
    odd.write_bytes(b"x")
    assert files.expand(odd) == [str(odd)]
    assert files.expand(f"file://{odd}") == [str(odd)]
    with pytest.raises(UserError, match=r"there is no file at .*/b-2.tar; check the path"):
        files.expand(f"{tmp_path}/b-{{2..3}}.tar")
    with pytest.raises(UserError, match="is a folder; name its files, such as "):
        files.expand(tmp_path)
    with pytest.raises(UserError, match="no file is named"):
        files.expand([])


def test_a_question_in_an_http_address_is_no_wildcard():
    address = "https://example.org/a.parquet?download=true"
    assert not files._has_wildcard(address)
    assert files._has_wildcard("https://example.org/*.parquet")
    assert files._has_wildcard("s3://example/part-?.parquet")


def test_text(address, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "é\r\n".encode())
    assert files.read_text(path) == "é\r\n"
    with pytest.raises(UserError, match=r"a.bin is not UTF-8 \(byte 129\)"):
        files.read_text(address)


def test_a_changed_local_file_is_noticed(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    file = files.open_file(path)
    path.write_bytes(DATA[:50])
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match="has changed since it was opened"):
        file.read(0, 4)
