"""Going through a large file takes the memory of one tensor, and one descriptor."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from capjax.weights.files import open_tensors

MB = 1 << 20
COUNT, EACH = 4, 50 * MB

# In a process of its own: the peak of this one was set by other tests.
PROGRAM = """
import re, sys
from capjax.weights.files import open_tensors

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10

tensors = open_tensors(sys.argv[1])
before = peak()
for name in tensors:
    assert tensors[name].sum() == 0
print(len(tensors), peak() - before)
"""


def sparse_safetensors(path):
    """200 MB of which the disk holds the header only."""
    header = {
        f"t{i}": {
            "dtype": "F32",
            "shape": [EACH // 4],
            "data_offsets": [i * EACH, (i + 1) * EACH],
        }
        for i in range(COUNT)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + COUNT * EACH)


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_the_peak_is_one_tensors(tmp_path):
    path = tmp_path / "large.safetensors"
    sparse_safetensors(path)
    root = pathlib.Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert run.returncode == 0, run.stderr
    count, growth = map(int, run.stdout.split())
    assert count == COUNT
    assert EACH * 0.9 < growth < EACH * 1.5


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="Linux lists descriptors")
def test_thousands_of_tensors_at_a_time_take_one_descriptor(tmp_path):
    np.savez(tmp_path / "w.npz", **{f"a{i}": np.full(2, i) for i in range(2000)})
    tensors = open_tensors(tmp_path / "w.npz")
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    arrays = [tensors[name] for name in tensors]
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) <= before + 1
    assert [array[0] for array in arrays] == list(range(2000))


def test_a_view_of_a_zip_is_mapped(tmp_path):
    """Bytes changed in the file are seen: what is given is the file, not a copy."""
    np.savez(tmp_path / "w.npz", a=np.zeros(4, np.uint8))
    array = open_tensors(tmp_path / "w.npz")["a"]
    with zipfile.ZipFile(tmp_path / "w.npz") as archive:
        info = archive.getinfo("a.npy")
    with (tmp_path / "w.npz").open("r+b") as file:
        data = file.read()
        file.seek(data.index(b"\n", info.header_offset) + 1)
        file.write(b"\x07")
    assert array[0] == 7


def test_tensors_far_into_a_large_file(tmp_path):
    """Of 3 GB, sparse on disk: offsets are no shape, whose product has a limit."""
    path, each = tmp_path / "large.safetensors", 1_500_000_000
    header = {
        name: {"dtype": "U8", "shape": [each], "data_offsets": [i * each, (i + 1) * each]}
        for i, name in enumerate(("first", "second"))
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 2 * each - 1)
        file.seek(0, 2)
        file.write(b"\x07")
    second = open_tensors(path)["second"]
    assert (second.shape, second[0], second[-1]) == ((each,), 0, 7)
