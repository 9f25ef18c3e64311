"""Safetensors files, whole and in shards, as the safetensors library wrote them; and bad ones."""

import json

import numpy as np
import pytest
from peer_files import assert_as_peer_reads, unpack

from capjax.errors import UserError
from capjax.weights.files import open_tensors

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def entry(shape=(2,), start=0, stop=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def file_of(path, header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_every_dtype_reads_as_in_the_library(tmp_path):
    tensors = open_tensors(unpack("kinds.safetensors", tmp_path))
    assert tensors.format == "safetensors"
    assert tensors.files == (tmp_path / "kinds.safetensors",)
    assert_as_peer_reads(tensors, "kinds.safetensors")


def test_shards_read_as_one(tmp_path):
    for name in (INDEX, *SHARDS):
        unpack(name, tmp_path)
    for path in (tmp_path, tmp_path / INDEX):
        tensors = open_tensors(path)
        assert_as_peer_reads(tensors, "plain.safetensors")
        assert [file.name for file in tensors.files] == list(SHARDS)


def test_the_order_of_the_header_need_not_be_that_of_the_data(tmp_path):
    header = {"b": entry((1,), 4, 8), "a": entry((1,), 0, 4), "__metadata__": {"by": "hand"}}
    data = np.array([1, 2], "<f4").tobytes()
    tensors = open_tensors(file_of(tmp_path / "x.safetensors", header, data))
    assert list(tensors) == ["b", "a"]
    assert (tensors["a"][0], tensors["b"][0]) == (1, 2)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"a": entry(stop=12, shape=(3,))}, "cut short"),
        ({"a": entry(shape=(3,))}, "'a'.*does not match its number of bytes"),
        ({"a": entry(shape=(-2,))}, "'a'.*no possible shape"),
        ({"a": entry(shape=(True, 2))}, "'a'.*no possible shape"),
        ({"a": entry(shape=(2**62, 2**62, 0), stop=0)}, "'a'.*no possible shape"),
        ({"a": entry(shape=[1] * 40)}, "'a'.*no possible shape"),
        ({"a": entry(start=8, stop=0)}, "'a'.*no possible offsets"),
        ({"a": entry(start=-8, stop=0)}, "'a'.*no possible offsets"),
        ({"a": entry(start=0.0)}, "'a'.*no possible offsets"),
        ({"a": entry(), "b": entry((1,), 4, 8)}, "'b'.*overlaps"),
        ({"a": entry((1,), 4, 8)}, "'a'.*gap"),
        ({"a": entry((1,), 0, 4)}, "4 bytes that no tensor"),
        ({"a": entry(dtype="F4")}, "'a'.*dtype 'F4'.*convert"),
        ({"a": {"dtype": "F32"}}, "'a'.*not described"),
        ({"a": 3}, "'a'.*not described"),
        (b'{"a": ', "header.*not JSON"),
        (b"\xff\xfe", "header.*not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a":' + b"[" * 100_000, "header.*not JSON"),
        (
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            "'a' twice",
        ),
    ],
)
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path, header, sentence):
    with pytest.raises(UserError, match=sentence):
        open_tensors(file_of(tmp_path / "x.safetensors", header))


def test_a_header_larger_than_the_format_allows_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="above the limit"):
        open_tensors(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = unpack("plain.safetensors", tmp_path).read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.safetensors"):
            open_tensors(path)


def test_a_shard_that_is_absent_is_named(tmp_path):
    for name in (INDEX, SHARDS[0]):
        unpack(name, tmp_path)
    with pytest.raises(UserError, match=f"{SHARDS[1]}.*download it too"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({"z": SHARDS[0]}, "lacks the tensor 'z'"),
        ({"a": SHARDS[1]}, "lacks the tensor 'a'"),
        ({"a": "../" + SHARDS[0]}, "not in the index's own folder"),
        ({"a": "/etc/passwd"}, "not in the index's own folder"),
        ({"a": ".."}, "not in the index's own folder"),
        ({"a": "x\0"}, "not in the index's own folder"),
        ({"a": 1}, "no 'weight_map'"),
        ({}, "no 'weight_map'"),
        (None, "no 'weight_map'"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, weight_map, sentence):
    folder = tmp_path / "inner"
    folder.mkdir()
    for name in SHARDS:
        unpack(name, folder)
        unpack(name, tmp_path)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=sentence):
        open_tensors(folder)
