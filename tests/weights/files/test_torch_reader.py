"""PyTorch's files as torch wrote them: zip, legacy, TorchScript, wrapped and sharded."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from peer_files import assert_as_peer_reads, content, unpack

from capjax.errors import UserError
from capjax.weights.files import open_tensors


@pytest.mark.parametrize(
    "name", ["views.pt", "protocol4.pt", "legacy.pth", "wrapped.ckpt", "script.pt"]
)
def test_tensors_read_as_in_torch(tmp_path, name):
    tensors = open_tensors(unpack(name, tmp_path))
    assert tensors.format == "torch"
    assert tensors.files == (tmp_path / name,)
    assert_as_peer_reads(tensors, name)


def test_tied_weights_and_views_share_the_files_bytes(tmp_path):
    tensors = open_tensors(unpack("views.pt", tmp_path))
    tied, other = tensors["tied"], tensors["f32"]
    assert np.shares_memory(tied, other)
    grid, transposed = tensors["grid"], tensors["transposed"]
    assert np.shares_memory(grid, transposed)
    np.testing.assert_array_equal(grid.T, transposed)
    assert tensors["expanded"].strides[0] == 0


def test_a_shared_module_of_torchscript_has_both_names(tmp_path):
    tensors = open_tensors(unpack("script.pt", tmp_path))
    assert np.shares_memory(tensors["shared.weight"], tensors["first.weight"])


def test_shards_with_an_index(tmp_path):
    unpack("protocol4.pt", tmp_path).rename(tmp_path / "pytorch_model-00001-of-00001.bin")
    weight_map = dict.fromkeys("abcd", "pytorch_model-00001-of-00001.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    tensors = open_tensors(tmp_path)
    assert tensors.format == "torch"
    assert_as_peer_reads(tensors, "protocol4.pt")


def test_compressed_entries_are_read_too(tmp_path):
    with (
        zipfile.ZipFile(unpack("views.pt", tmp_path)) as old,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_as_peer_reads(open_tensors(tmp_path / "small.pt"), "views.pt")


def test_a_whole_module_is_code_and_refused_with_the_remedy(tmp_path):
    path = unpack("whole_module.pt", tmp_path)
    with pytest.raises(UserError, match=r"holds code .*BatchNorm1d.*safetensors\.torch\.save_file"):
        open_tensors(path)


@pytest.mark.parametrize("name", ["protocol4.pt", "legacy.pth"])
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    whole = content(name)
    path = tmp_path / "cut.pt"
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pt"):
            open_tensors(path)


def test_big_endian_files_are_refused(tmp_path):
    with (
        zipfile.ZipFile(unpack("protocol4.pt", tmp_path)) as old,
        zipfile.ZipFile(tmp_path / "big.pt", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(UserError, match="little-endian"):
        open_tensors(tmp_path / "big.pt")


@pytest.mark.parametrize(
    "whole",
    [{}, {"state_dict": {}}, [1, 2], 3, {"model": {"a": {"b": 1}}}],
    ids=["empty", "empty_inside", "list", "number", "numbers"],
)
def test_a_file_without_tensors_says_so(tmp_path, whole):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(whole, protocol=2))
    with pytest.raises(UserError, match="holds no tensors by name"):
        open_tensors(tmp_path / "x.pt")
