"""What the tests of all families of checkpoints do: from drawn tensors to our parameters and back.

A case of `peer_outputs/<family>.json` holds `config` (of config.json), `tensors` (names and
shapes; the values are drawn by `peer_cases.draw` on both sides), inputs and outputs.
"""

import json
import pathlib

import jax
import numpy as np
import peer_cases

from capjax.weights.files.safetensors_writer import write
from capjax.weights.plan import Source
from capjax.weights.table import to_params, to_tensors


def cases(family):
    """What the public implementation of the family was asked, and answered."""
    return peer_cases.load(family, "weights")


def source(case, folder="."):
    """The checkpoint of a case, as if it lay in `folder`, where only tokenizer files are."""
    return Source(pathlib.Path(folder), peer_cases.tensors(case), case.get("config", {}), {})


def publish(folder, tensors, config, name="model.safetensors"):
    """`folder` with the tensors (by name) and config.json of a checkpoint."""
    promises = [(n, x.shape, x.dtype, lambda x=x: x) for n, x in tensors.items()]
    write(folder / name, promises, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def params(plan, model, tensors, *inputs):
    """The model's parameters from the tensors, by the plan's table; `inputs` of its call."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    return to_params(plan.table, shapes, tensors, plan.unread)


def assert_close(ours, theirs, relative=1e-5):
    """|ours - theirs| at most `relative` times the largest of theirs."""
    theirs = np.asarray(theirs, np.float32).reshape(ours.shape)
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * scale)


def assert_goes_back(plan, params, tensors):
    """Written out again, every tensor that was read is there, bit for bit."""
    written = {name: make() for name, _, make in to_tensors(plan.table, params)}
    for name, _, make in to_tensors(plan.table, params):
        np.testing.assert_array_equal(make(), tensors[name], err_msg=name)
        assert written[name].shape == np.shape(tensors[name])
    assert written
