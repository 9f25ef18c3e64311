"""What we write is what the safetensors library and huggingface_hub write, byte for byte."""

import errno
import json
import os

import ml_dtypes
import numpy as np
import pytest
from peer_files import content, unpack

from capjax.errors import UserError
from capjax.weights.files import open_tensors
from capjax.weights.files.safetensors_writer import write

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def promised(arrays):
    return [(name, a.shape, a.dtype, lambda a=a: a) for name, a in arrays.items()]


def plain():
    return promised(
        {
            "a": np.arange(6, dtype=np.float32).reshape(2, 3),
            "b": np.array(2.5, np.float32),
            "c": np.ones(3, np.float16),
            "d": np.ones(0, np.int8),
        }
    )


def test_one_file_is_the_librarys(tmp_path):
    path = tmp_path / "model.safetensors"
    assert write(path, plain(), {"format": "pt"}) == [path]
    assert path.read_bytes() == content("plain.safetensors")
    assert list(tmp_path.iterdir()) == [path]


def test_shards_and_index_are_the_librarys(tmp_path):
    files = write(tmp_path / "model.safetensors", plain(), {"format": "pt"}, max_shard_bytes=26)
    assert [file.name for file in files] == [*SHARDS, INDEX]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for name in SHARDS:
        assert (tmp_path / name).read_bytes() == content(name)
    assert json.loads((tmp_path / INDEX).read_text()) == json.loads(content(INDEX))


def test_what_fits_in_one_shard_has_no_index(tmp_path):
    path = tmp_path / "model.safetensors"
    assert write(path, plain(), {}, max_shard_bytes=34) == [path]


def test_every_dtype_comes_back(tmp_path):
    source = open_tensors(unpack("kinds.safetensors", tmp_path))
    path = tmp_path / "again.safetensors"
    write(path, [(n, source.shape(n), source.dtype(n), lambda n=n: source[n]) for n in source], {})
    again = open_tensors(path)
    assert set(again) == set(source)
    for name in source:
        assert again[name].dtype == source[name].dtype
        assert again[name].shape == source[name].shape
        assert again[name].tobytes() == source[name].tobytes()
        assert again[name].flags.aligned


def test_views_are_written_row_by_row(tmp_path):
    grid = np.arange(12, dtype=ml_dtypes.bfloat16).reshape(3, 4)
    path = tmp_path / "model.safetensors"
    write(path, promised({"t": grid.T, "part": grid[::2, 1::2]}), {})
    tensors = open_tensors(path)
    np.testing.assert_array_equal(tensors["t"], grid.T)
    np.testing.assert_array_equal(tensors["part"], grid[::2, 1::2])


def test_one_array_is_asked_for_at_a_time_and_after_the_one_before(tmp_path):
    alive, most = set(), []

    class Watched(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def make():
        array = np.zeros(4, np.float32).view(Watched)
        alive.add(id(array))
        most.append(len(alive))
        return array

    tensors = [(f"{i}", (4,), np.dtype(np.float32), make) for i in range(5)]
    write(tmp_path / "model.safetensors", tensors, {}, max_shard_bytes=40)
    # The one before may live until its place in the loop is taken.
    assert len(most) == 5
    assert max(most) <= 2


@pytest.mark.parametrize("max_shard_bytes", [None, 26])
def test_a_failure_leaves_nothing_new_and_everything_old(tmp_path, max_shard_bytes):
    def fail():
        raise RuntimeError("no array")

    *tensors, (name, shape, dtype, _) = plain()[:3]
    path = tmp_path / "model.safetensors"
    written = write(path, plain(), {}, max_shard_bytes)
    before = {file: file.read_bytes() for file in written}
    with pytest.raises(RuntimeError, match="no array"):
        write(path, [*tensors, (name, shape, dtype, fail)], {}, max_shard_bytes)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_index_never_stands_over_new_and_old_shards(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write(path, plain(), {}, max_shard_bytes=26)
    replace = os.replace

    def full_at_the_first_shard(old, new):
        if new.name == SHARDS[0]:  # the second has taken its name by then
            raise OSError(errno.ENOSPC, "disk full")
        replace(old, new)

    monkeypatch.setattr(os, "replace", full_at_the_first_shard)
    with pytest.raises(UserError, match="disk full"):
        write(path, plain(), {"new": "yes"}, max_shard_bytes=26)
    assert b"yes" in (tmp_path / SHARDS[1]).read_bytes()
    assert b"yes" not in (tmp_path / SHARDS[0]).read_bytes()
    with pytest.raises(UserError, match="no index"):
        open_tensors(tmp_path)


def test_an_array_that_is_not_as_promised_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for array in (np.zeros(3, np.float32), np.zeros(2, np.float64)):
        with pytest.raises(ValueError, match="'x' was promised"):
            write(path, [("x", (2,), np.dtype(np.float32), lambda a=array: a)], {})
    assert not list(tmp_path.iterdir())


def test_names_dtypes_and_metadata_are_checked_before_anything_is_written(tmp_path):
    path = tmp_path / "model.safetensors"
    two = plain()[:1] * 2
    with pytest.raises(ValueError, match="twice"):
        write(path, two, {})
    with pytest.raises(ValueError, match="no dtype"):
        write(path, promised({"x": np.zeros(2, np.complex64)}), {})
    with pytest.raises(ValueError, match="texts"):
        write(path, plain(), {"step": 3})
    assert not list(tmp_path.iterdir())


def test_two_forms_of_one_checkpoint_do_not_stand_beside_each_other(tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, plain(), {})
    with pytest.raises(UserError, match="remove that one first"):
        write(path, plain(), {}, max_shard_bytes=26)
    path.unlink()
    write(path, plain(), {}, max_shard_bytes=26)
    with pytest.raises(UserError, match="remove that one first"):
        write(path, plain(), {})
