"""NumPy archives: names with slashes, bfloat16 without a type, nothing pickled."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.weights.files import open_tensors

ARRAYS = {
    "params/img/embedding/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "params/t": np.array(2.5, np.float64),
    "params/half": np.arange(3, dtype=np.float16),
    "params/none": np.zeros((0, 3), np.int8),
    "params/columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "params/big_endian": np.arange(3, dtype=">f4"),
    "params/brain": np.array([1.5, -2, 3e38], ml_dtypes.bfloat16),
    "params/flags": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    path = tmp_path / "weights.npz"
    save(path, **ARRAYS)
    tensors = open_tensors(path)
    assert tensors.format == "npz"
    assert list(tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        native = array.dtype.newbyteorder("=") if array.dtype.isbuiltin != 2 else array.dtype
        assert tensors.dtype(name) == tensors[name].dtype == native
        assert tensors.shape(name) == array.shape
        np.testing.assert_array_equal(tensors[name], array)


def test_bfloat16_is_two_bytes_without_a_type_in_the_file(tmp_path):
    np.savez(tmp_path / "w.npz", **ARRAYS)
    assert np.load(tmp_path / "w.npz")["params/brain"].dtype == np.dtype("V2")


def test_what_is_stored_uncompressed_is_not_copied(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.arange(1000.0))
    tensors = open_tensors(tmp_path / "w.npz")
    first, second = tensors["a"], tensors["a"]
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def archive(path, data):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", data)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([{}, 1]), "object"),
        (np.zeros(2, [("x", "f4")]), r"\('x'"),
        (np.zeros(2, "V4"), r"\|V4"),
    ],
)
def test_what_is_not_numbers_is_refused(tmp_path, array, kind):
    with pytest.raises(UserError, match=f"'a'.*{kind}.*refused"):
        open_tensors(archive(tmp_path / "w.npz", npy(array)))


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (npy(np.zeros(4))[:-1], "'a'.*another size"),
        (npy(np.zeros(4)) + b"x", "'a'.*another size"),
        (npy(np.zeros(4))[:20], "'a'.*no header"),
        (b"nothing", "'a'.*no header"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}"), "'a'.*no header"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (2**62,)}"), "'a'.*no header"),
        (header("__import__('os').system('true')"), "'a'.*no header"),
        (header("(" * 9000), "'a'.*no header"),
        (header("-" * 9000), "'a'.*no header"),
        (header("[]"), "'a'.*no header"),
    ],
)
def test_a_damaged_array_is_named(tmp_path, data, sentence):
    with pytest.raises(UserError, match=sentence):
        open_tensors(archive(tmp_path / "w.npz", data))


def test_a_damaged_compressed_array_ends_in_a_sentence_when_it_is_read(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=10_000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    tensors = open_tensors(path)
    with pytest.raises(UserError, match="damaged or shortened"):
        tensors["a"]


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.arange(3.0))
    whole = (tmp_path / "w.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.npz"):
            open_tensors(path)
