"""Captions in Parquet: every layout, shuffling that stays linear, and files that are not whole."""

import io
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from capjax.data import manifest
from capjax.data.parquet import Source
from capjax.data.parquet_file import ParquetFile
from capjax.data.row_groups import WindowShuffled
from capjax.data.tars import TarIndex
from capjax.errors import BadRecord, UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(colour, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png((20 * i, 0, 0)) for i in range(10)]
CAPTIONS = [[f"picture {i} é", f"number {i}"] for i in range(10)]


def write(path, columns, group=3, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True, **options)
    return str(path)


def good(path, begin=0, end=10, **more):
    return write(path, {"image": PICTURES[begin:end], "captions": CAPTIONS[begin:end], **more})


def refusal(paths, **fields):
    with pytest.raises(UserError) as caught:
        Source(paths, **fields)
    assert not isinstance(caught.value, BadRecord)
    return str(caught.value)


LAYOUTS = {
    "bytes": (lambda path: PICTURES, {}),
    "struct": (lambda path: [{"bytes": p, "path": f"{i}.png"} for i, p in enumerate(PICTURES)], {}),
    "struct of paths": (lambda path: [{"bytes": None, "path": f"{i}.png"} for i in range(10)], {}),
    "paths": (lambda path: [f"{i}.png" for i in range(10)], {}),
    "large": (lambda path: pa.array(PICTURES, pa.large_binary()), {}),
    "dictionary": (lambda path: pa.array(PICTURES).dictionary_encode(), {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_pictures(layout, tmp_path):
    for i, picture in enumerate(PICTURES):
        (tmp_path / f"{i}.png").write_bytes(picture)
    column, fields = LAYOUTS[layout]
    source = Source(
        write(tmp_path / "a.parquet", {"image": column(tmp_path), "captions": CAPTIONS}), **fields
    )
    assert len(source) == 10
    assert [source.encoded(i)["image"] for i in range(10)] == PICTURES
    for i in (9, 0, -1, 4):
        assert source[i]["captions"] == source.captions(i) == CAPTIONS[i]
        assert source[i]["key"] == f"a.parquet:{i % 10}"
        assert source[i]["image"].shape == (4, 6, 3)
        assert source[i]["image"][0, 0].tolist() == [20 * (i % 10), 0, 0]
    for i in (10, -11):
        with pytest.raises(IndexError):
            source[i]


def test_paths_below_a_root(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(PICTURES[0])
    path = write(tmp_path / "a.parquet", {"image": ["0.png", "1.png"], "caption": ["a", "b"]})
    source = Source(path, image_root=tmp_path / "pictures")
    assert source.encoded(0)["image"] == PICTURES[0]
    with pytest.raises(BadRecord, match=r"a.parquet:1.*1.png cannot be read: No such file"):
        source[1]
    assert "is not a folder" in refusal(path, image_root=tmp_path / "none")


def test_paths_that_leave_the_folder_are_not_opened(tmp_path):
    (tmp_path / "0.png").write_bytes(PICTURES[0])
    (tmp_path / "set").mkdir()
    paths = [str(tmp_path / "0.png"), "../0.png", "file://0.png", "memory://0.png"]
    columns = {"image": paths, "caption": ["a"] * len(paths)}
    source = Source(write(tmp_path / "set" / "a.parquet", columns))
    for i in range(len(paths)):
        with pytest.raises(BadRecord, match="which is not below the folder"):
            source[i]


def test_text_that_is_not_utf8_is_a_bad_record(tmp_path):
    texts = pa.array([b"good", b"\xff\xfe"]).view(pa.string())
    source = Source(write(tmp_path / "a.parquet", {"image": PICTURES[:2], "caption": texts}))
    assert source.captions(0) == ["good"]
    for ask in (source.captions, source.encoded):
        with pytest.raises(BadRecord, match="has text that is not UTF-8 in 'caption'") as caught:
            ask(1)
        assert caught.value.key == "a.parquet:1"


def test_paths_in_a_store_and_its_outage(tmp_path, monkeypatch):
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.pipe_file("/pictures/0.png", PICTURES[0])
    path = write(tmp_path / "a.parquet", {"image": ["0.png", "1.png"], "caption": ["a", "b"]})
    source = Source(path, image_root="memory://pictures")
    assert source.encoded(0)["image"] == PICTURES[0]
    with pytest.raises(BadRecord, match=r"there is no file at memory://pictures/1.png"):
        source[1]

    def outage(self, path, **_):
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(system), "info", outage)
    with pytest.raises(UserError, match="TimeoutError: no answer") as caught:
        source[0]
    assert not isinstance(caught.value, BadRecord)
    system.rm("/pictures/0.png")


def test_every_layout_of_captions(tmp_path):
    one, other = [c[0] for c in CAPTIONS], [c[1] for c in CAPTIONS]
    path = write(
        tmp_path / "a.parquet",
        {
            "image": PICTURES,
            "caption": one,
            "alt": pa.array(other).dictionary_encode(),
            "large": pa.array(CAPTIONS, pa.large_list(pa.large_string())),
            "two": pa.array(CAPTIONS, pa.list_(pa.string(), 2)),
        },
    )
    for name in ("large", "two"):
        assert Source(path, captions=name).captions(7) == CAPTIONS[7]
    assert Source(path).captions(7) == [one[7]]
    assert Source(path, captions="alt").captions(7) == [other[7]]
    assert Source(path, captions=["caption", "large"]).captions(7) == [one[7], *CAPTIONS[7]]


def test_keys_labels_and_what_else_stays(tmp_path):
    columns = {
        "image": PICTURES,
        "label": ["dog"] * 10,
        "class_id": range(10),
        "odd.name": range(10),
    }
    path = write(tmp_path / "a.parquet", {**columns, "key": [f"k{i}" for i in range(10)]})
    record = Source(path, columns=["class_id", "odd.name"])[3]
    assert (record["key"], record["label"], record["class_id"]) == ("k3", "dog", 3)
    assert record["captions"] == []
    assert record["odd.name"] == 3
    assert Source(path, key="class_id")[4]["key"] == "4"
    assert Source(path, captions=())[4]["captions"] == []


def test_many_files_and_patterns_in_sorted_order(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    good(tmp_path / "b" / "x.parquet", 4, 10)
    good(tmp_path / "a" / "x.parquet", 0, 4)
    good(tmp_path / "a" / "empty.parquet", 0, 0)
    source = Source(f"{tmp_path}/**/*.parquet")
    assert [source.captions(i) for i in range(len(source))] == CAPTIONS
    keys = [source[i]["key"] for i in (0, 3, 4, 9)]
    assert keys == ["a/x.parquet:0", "a/x.parquet:3", "b/x.parquet:0", "b/x.parquet:5"]


def test_a_store_copies_and_threads(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    good(tmp_path / "a.parquet")
    system = fsspec.filesystem("memory")
    system.pipe_file("/pack/a.parquet", (tmp_path / "a.parquet").read_bytes())
    for name in ("memory://pack/a.parquet", tmp_path / "a.parquet"):
        source = Source(name, cache_mb=1e-4)
        for one in (source, pickle.loads(pickle.dumps(source))):
            with ThreadPoolExecutor(8) as pool:
                got = list(pool.map(one.encoded, list(range(10)) * 10))
            assert [r["image"] for r in got] == PICTURES * 10
            assert [r["captions"] for r in got] == CAPTIONS * 10
    system.rm("/pack/a.parquet")


def test_captions_alone_do_not_read_pictures(tmp_path, monkeypatch):
    source = Source(good(tmp_path / "a.parquet"))
    seen = []
    read = ParquetFile.read
    monkeypatch.setattr(
        ParquetFile,
        "read",
        lambda self, group, columns, footer: (
            seen.append(columns),
            read(self, group, columns, footer),
        )[1],
    )
    assert [source.captions(i) for i in range(10)] == CAPTIONS
    assert seen == [("captions",)] * 4  # each row group once


def noise(count, side=64):
    """Pictures that do not compress, 12 KiB each."""
    rng = np.random.default_rng(0)
    return [rng.bytes(3 * side * side) for _ in range(count)]


def test_large_row_groups_are_shuffled_in_windows_and_read_once_an_epoch(tmp_path, monkeypatch):
    pictures = noise(2000)
    path = write(
        tmp_path / "a.parquet",
        {"image": pictures, "caption": [f"n {i}" for i in range(2000)]},
        group=200,
    )
    source = Source(path, cache_mb=12)  # 10 groups of 2.4 MB, of which two make a window
    order = source.order(seed=3, batch_size=8)
    assert isinstance(order, WindowShuffled)
    assert order.window == 2
    reads = []
    read = ParquetFile.read
    monkeypatch.setattr(
        ParquetFile,
        "read",
        lambda self, group, columns, footer: (
            reads.append(group),
            read(self, group, columns, footer),
        )[1],
    )
    first = [order[p] for p in range(2000)]
    assert sorted(first) == list(range(2000))
    for record in first:
        assert source.encoded(record)["image"] == pictures[record]
    assert len(reads) == 20  # ten groups, pictures and captions apart
    assert source._cache.bytes <= 12 * 2**20
    second = [order[p] for p in range(2000, 4000)]
    assert sorted(second) == list(range(2000))
    assert first != second
    again = source.order(seed=3, batch_size=8)
    assert [again[p] for p in range(3999, 1999, -1)] == second[::-1]  # of its position alone
    other = source.order(seed=4, batch_size=8)
    assert [other[p] for p in range(2000)] != first


def test_small_row_groups_are_shuffled_globally(tmp_path):
    order = Source(good(tmp_path / "a.parquet")).order(seed=0, batch_size=2)
    assert sorted(order[p] for p in range(10)) == list(range(10))
    assert not isinstance(order, WindowShuffled)


def test_a_row_group_that_is_too_large_is_refused_with_the_remedy(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": noise(200), "caption": ["a"] * 200}, group=100)
    message = refusal(path, max_row_group_mb=1)
    assert "row group 0 holds 1 MB in 100 rows, more than max_row_group_mb=1" in message
    assert "python -m capjax.data prepare" in message
    assert len(Source(path, max_row_group_mb=2)) == 200


def test_missing_columns_and_wrong_types(tmp_path):
    path = good(tmp_path / "a.parquet", number=range(10))
    assert "has no column 'picture'; it has 'image', 'captions', 'number'" in refusal(
        path, image="picture"
    )
    assert "has no column 'text'" in refusal(path, captions=["captions", "text"])
    assert "has no column 'id'" in refusal(path, key="id")
    assert "has no column 'class_id'" in refusal(path, columns=["class_id"])
    assert "'number' is of type int64, where captions are" in refusal(path, captions="number")
    assert "'number' is of type int64, where pictures are" in refusal(path, image="number")
    assert "'captions' is of type list" in refusal(path, image="captions")
    other = write(tmp_path / "b.parquet", {"image": PICTURES, "text": ["a"] * 10})
    assert "b.parquet has no column 'captions'" in refusal([path, other])
    assert "no column is called captions, caption or label" in refusal(other)
    assert "cache_mb=0 is not above 0" in refusal(path, cache_mb=0)


def test_without_pyarrow_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = good(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'read with pyarrow: pip install "capjax[parquet]"' in refusal(path)


def test_rows_without_picture_or_caption_are_bad_records(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        {
            "image": [None, PICTURES[1], PICTURES[2], b"no picture", PICTURES[4], PICTURES[5]],
            "captions": [["a"], None, [], ["b"], ["c", None], ["d", " "]],
        },
    )
    source = Source(path)
    for i, reason in enumerate(
        ["has no picture in 'image'", "has no caption in 'captions'", "has no caption", "cannot be"]
    ):
        with pytest.raises(BadRecord, match=reason) as caught:
            source[i]
        assert caught.value.key == f"a.parquet:{i}"
    assert source[4]["captions"] == ["c"]  # a null in a list is no caption
    with pytest.raises(BadRecord, match="has an empty caption in 'captions'"):
        source.captions(5)
    assert source.encoded(3)["image"] == b"no picture"


def test_files_that_are_not_whole(tmp_path):
    good(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    bad = tmp_path / "bad.parquet"
    for data, reason in {
        b"": "is not a Parquet file: it begins with b''",
        b"id,caption\n": "is not a Parquet file: it begins with b'id,c'",
        whole[:-100]: "is cut short: its end is missing; copy it again",
        b"PAR1": "is cut short",
        whole[:-4] + b"PARE": "is encrypted",
        whole[:300] + whole[-8:]: "has a damaged footer",
    }.items():
        bad.write_bytes(data)
        assert reason in refusal(bad)
    empty = good(tmp_path / "empty.parquet", 0, 0)
    assert "there are no rows" in refusal(empty, captions=())
    with pytest.raises(UserError, match="no file matches"):
        Source(f"{tmp_path}/none*.parquet")


def test_a_flipped_bit_spoils_its_row_group_alone(tmp_path):
    path = tmp_path / "a.parquet"
    good(path)
    footer = pq.read_metadata(path)
    column = footer.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[column.dictionary_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    source = Source(path)
    for i in (3, 4, 5):
        with pytest.raises(BadRecord, match=r"row group 1 of .*a.parquet is damaged") as caught:
            source[i]
        assert caught.value.key == f"a.parquet:{i}"
        assert source.captions(i) == CAPTIONS[i]
    assert source.encoded(6)["image"] == PICTURES[6]


def test_a_file_that_changes_stops_the_run(tmp_path):
    path = tmp_path / "a.parquet"
    good(path)
    source = Source(path, cache_mb=1e-4)
    assert source[0]["captions"] == CAPTIONS[0]
    os.truncate(path, 500)
    with pytest.raises(UserError, match=r"a.parquet has changed since it was opened") as caught:
        source[9]
    assert not isinstance(caught.value, BadRecord)


def test_flickr8k_to_parquet_and_back_is_the_same(shared, tmp_path):
    folder = shared / "data" / "flickr8k"
    pack = manifest.Source(folder / "captions_dev.jsonl", limit=200)
    keys = [pack[i]["key"] for i in range(200)]
    tar = TarIndex(folder / "dev-000.tar")
    stored = [tar.read(key) for key in keys]
    path = write(
        tmp_path / "dev.parquet",
        {
            "key": keys,
            "image": stored,
            "captions": [pack.captions(i) for i in range(200)],
        },
        group=16,
    )
    source = Source(path)
    assert len(source) == len(pack) == 200
    for i in np.random.default_rng(0).permutation(200):
        record = source.encoded(i)
        assert record["image"] == stored[i]
        assert record["captions"] == pack.captions(i)
        assert record["key"] == keys[i]
        assert np.array_equal(source[i]["image"], pack[i]["image"])
