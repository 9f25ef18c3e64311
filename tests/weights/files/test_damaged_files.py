"""Files with bytes changed at random open and read, or end in a UserError: nothing else."""

import numpy as np
import pytest
from peer_files import content

from capjax.errors import UserError
from capjax.weights.files import open_tensors

CHANGES = 150  # of each file


@pytest.mark.parametrize(
    "name",
    ["kinds.safetensors", "views.pt", "protocol4.pt", "legacy.pth", "wrapped.ckpt", "script.pt"],
)
def test_changed_bytes(tmp_path, name):
    whole = np.frombuffer(content(name), np.uint8)
    rng = np.random.default_rng(0)
    path = tmp_path / name
    refused = 0
    for _ in range(CHANGES):
        data = whole.copy()
        places = rng.integers(len(data), size=rng.integers(1, 4))
        data[places] = rng.integers(256, size=len(places))
        path.write_bytes(data.tobytes())
        try:
            tensors = open_tensors(path)
            for key in tensors:
                assert tensors[key].tobytes() is not None
                assert tensors[key].shape == tensors.shape(key)
        except UserError:
            refused += 1
    assert 0 < refused < CHANGES  # else the changes missed what is checked, or all of the data
