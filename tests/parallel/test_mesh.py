"""Meshes on the eight simulated devices, and where batches lie on them."""

import jax
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.parallel.mesh import batch_sharding, check_batch, make_mesh, put_batch


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({"data": -1, "fsdp": 1}, (8, 1, 1)),
        ({"data": -1, "fsdp": 4}, (2, 4, 1)),
        ({"data": 2, "fsdp": -1}, (2, 4, 1)),
        ({"data": -1, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
        ({"data": 1}, (1, 1, 1)),
        ({"fsdp": 2, "data": 3}, (3, 2, 1)),
    ],
)
def test_sizes_become_a_mesh(sizes, shape):
    mesh = make_mesh(sizes)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == shape
    assert mesh.devices.flat[0] == jax.devices()[0]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 9}, "needs 9 devices, but there are 8"),
        ({"data": -1, "fsdp": 3}, "3 does not divide the 8 devices"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 0}, "needs 1 or more devices"),
        ({"dat": 1}, "config.mesh has no axis 'dat'"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(sizes)


def test_a_batch_is_split_over_all_devices():
    mesh = make_mesh({"data": 2, "fsdp": 4})
    rows = np.arange(32).reshape(16, 2)
    batch = put_batch({"x": rows, "key": ["a"] * 16}, batch_sharding(mesh))
    assert list(batch) == ["x"]
    assert [shard.data.shape for shard in batch["x"].addressable_shards] == [(2, 2)] * 8
    np.testing.assert_array_equal(batch["x"], rows)


def test_a_tensor_axis_repeats_the_batch():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    rows = np.arange(16).reshape(8, 2)
    batch = put_batch({"x": rows}, batch_sharding(mesh))
    starts = [shard.index[0].start for shard in batch["x"].addressable_shards]
    assert sorted(starts) == [0, 0, 2, 2, 4, 4, 6, 6]
    np.testing.assert_array_equal(batch["x"], rows)


def test_a_batch_must_be_divisible():
    mesh = make_mesh({"data": 2, "fsdp": 4})
    check_batch(mesh, 16, 2)
    with pytest.raises(UserError, match="does not divide batch_size=12"):
        check_batch(mesh, 12, 1)
    with pytest.raises(UserError, match="make it a multiple of 24"):
        check_batch(mesh, 16, 3)
