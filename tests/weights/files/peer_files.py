"""The checkpoints of data/peer_files.json, and what their own libraries read from them."""

import base64
import json
import pathlib
import zlib

import numpy as np

_ALL = json.loads((pathlib.Path(__file__).parent / "data" / "peer_files.json").read_text())


def content(name):
    """A file's bytes."""
    return zlib.decompress(base64.b64decode(_ALL["files"][name]))


def unpack(name, folder):
    """The file, in `folder`."""
    path = folder / name
    path.write_bytes(content(name))
    return path


def assert_as_peer_reads(tensors, name):
    """Names, shapes, dtypes and every byte are those that the peer gave for its file `name`."""
    expected = _ALL["tensors"][name]
    assert set(tensors) == set(expected)
    for key, (dtype, shape, data) in expected.items():
        array = tensors[key]
        assert array.dtype.name == tensors.dtype(key).name == dtype, key
        assert array.shape == tensors.shape(key) == tuple(shape), key
        assert np.ascontiguousarray(array).tobytes() == base64.b64decode(data), key
        assert not array.flags.writeable, key
