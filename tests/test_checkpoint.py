"""Checkpoints: complete or absent, on any devices, and refused where they do not fit."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec

from capjax import runs
from capjax.checkpoint import Checkpoints, replicated
from capjax.errors import UserError
from capjax.parallel.mesh import make_mesh
from capjax.retention import Policy
from capjax.train import train

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def state_at(step, ema=True):
    params = {"dense": {"kernel": jnp.arange(32.0).reshape(8, 4) + step, "bias": jnp.zeros(4)}}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    state = {"step": jnp.int32(step), "params": params, "opt_state": tx.init(params)}
    return state | ({"ema": jax.tree.map(lambda x: x + 0.5, params)} if ema else {})


def filled(directory, steps=(1, 2, 3), keep=2):
    with Checkpoints(directory, keep, writer=True) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step), {"data": {"batches": step}})
    return directory


@pytest.mark.parametrize("ema", [True, False])
def test_what_was_saved_comes_back(tmp_path, ema):
    state, host = state_at(7, ema), {"data": {"batches": 7, "bad": [["a", "b"]]}, "tokenizer": "x"}
    with Checkpoints(tmp_path / "c", writer=True) as checkpoints:
        checkpoints.save(7, state, host)
        restored, restored_host = checkpoints.restore(replicated(state, ONE), 7)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert restored_host == host


def test_the_last_ones_are_kept(tmp_path):
    with Checkpoints(filled(tmp_path / "c", (1, 2, 3, 5))) as checkpoints:
        assert checkpoints.steps == [3, 5]
        assert checkpoints.latest == 5


def test_parameters_or_their_average_can_be_read_alone(tmp_path):
    shapes = replicated(state_at(0)["params"], ONE)
    with Checkpoints(filled(tmp_path / "c")) as checkpoints:
        average, _ = checkpoints.restore_params(shapes, 3, use_ema=True)
        raw, host = checkpoints.restore_params(shapes, 3, use_ema=False)
    np.testing.assert_array_equal(raw["dense"]["kernel"], state_at(3)["params"]["dense"]["kernel"])
    np.testing.assert_array_equal(average["dense"]["kernel"], raw["dense"]["kernel"] + 0.5)
    assert host == {"data": {"batches": 3}}


def test_it_is_restored_onto_a_mesh(tmp_path):
    mesh = make_mesh({"data": 2, "fsdp": 4})
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    shapes = replicated(state_at(0)["params"]["dense"]["kernel"], split)
    wanted = {"dense": {"kernel": shapes, "bias": replicated(jnp.zeros(4), ONE)}}
    with Checkpoints(filled(tmp_path / "c")) as checkpoints:
        params, _ = checkpoints.restore_params(wanted, 3, use_ema=False)
    kernel = params["dense"]["kernel"]
    assert kernel.sharding == split
    assert kernel.addressable_shards[0].data.shape == (2, 4)
    np.testing.assert_array_equal(kernel, state_at(3)["params"]["dense"]["kernel"])


KILLED_WHILE_SAVING = """
    import os, signal, sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from test_checkpoint import Checkpoints, state_at
    with Checkpoints({directory!r}, writer=True) as checkpoints:
        checkpoints.save(1, state_at(1), {{'x': 1}})
        os.rename = os.replace = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        checkpoints.save(2, state_at(2), {{'x': 1}})
        print("not killed")
"""


def test_a_checkpoint_that_was_being_written_is_not_seen(tmp_path):
    """Killed at the last step of saving: when the complete directory gets its name."""
    directory, tests = tmp_path / "c", pathlib.Path(__file__).parent
    script = textwrap.dedent(KILLED_WHILE_SAVING).format(
        root=str(tests.parent), tests=str(tests), directory=str(directory)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert len(os.listdir(directory)) == 2
    with Checkpoints(directory) as checkpoints:  # a reader leaves the debris alone
        assert checkpoints.steps == [1]
    assert len(os.listdir(directory)) == 2
    with Checkpoints(directory, writer=True) as checkpoints:
        assert checkpoints.steps == [1]
        checkpoints.save(2, state_at(2), {"x": 1})
        assert checkpoints.latest == 2
    assert sorted(os.listdir(directory)) == ["2"]


FULL_DISK = """
    import resource, signal, sys
    sys.path[:0] = [{root!r}, {tests!r}]
    from test_checkpoint import Checkpoints, UserError, state_at
    with Checkpoints({directory!r}, writer=True) as checkpoints:
        checkpoints.save(1, state_at(1), {{'x': 1}})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
        try:
            checkpoints.save(2, state_at(2), {{'x': 1}})
        except UserError as error:
            sys.exit(f"USER ERROR {{error}}")
"""


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path):
    directory, tests = tmp_path / "c", pathlib.Path(__file__).parent
    script = textwrap.dedent(FULL_DISK).format(
        root=str(tests.parent), tests=str(tests), directory=str(directory)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "USER ERROR cannot save step 2" in done.stderr
    with Checkpoints(directory, writer=True) as checkpoints:
        assert checkpoints.steps == [1]
        state, _ = checkpoints.restore(replicated(state_at(0), ONE), 1)
    np.testing.assert_array_equal(state["params"]["dense"]["kernel"][0], [1, 2, 3, 4])


def test_what_does_not_fit_is_refused(tmp_path):
    filled(tmp_path / "c")
    shapes = replicated(state_at(0), ONE)
    with pytest.raises(UserError, match="there is no checkpoint under"):
        Checkpoints(tmp_path / "d")
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(UserError, match=r"no checkpoint of step 1 .* there are: 2, 3"):
            checkpoints.restore(shapes, 1)
        other = {"dense": {"kernel": jnp.zeros((8, 5)), "bias": jnp.zeros(4)}}
        with pytest.raises(UserError, match=r"'dense/kernel' .* \(8, 4\) there and \(8, 5\)"):
            checkpoints.restore_params(replicated(other, ONE), 3, use_ema=False)
        more = {**state_at(0)["params"], "head": jnp.zeros(3)}
        with pytest.raises(UserError, match="'head' has shape none there"):
            checkpoints.restore_params(replicated(more, ONE), 3, use_ema=False)


def test_a_damaged_checkpoint_is_named(tmp_path):
    filled(tmp_path / "c")
    for file in (tmp_path / "c" / "3" / "params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:50])
    with (
        Checkpoints(tmp_path / "c") as checkpoints,
        pytest.raises(UserError, match=r"c/3' is damaged: remove it"),
    ):
        checkpoints.restore(replicated(state_at(0), ONE), 3)


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = toy.get_config("steps=2")
    config.checkpoint.every = 1
    train(config, directory)
    return directory


def test_open_run_gives_model_tokenizer_and_parameters(run_directory):
    run = runs.open_run(run_directory)
    assert run.step == 2
    assert run.config.steps == 2
    assert run.model.vocab_size == run.tokenizer.vocab_size
    tokens = run.tokenizer.encode_batch(["a red picture"])
    logits = run.model.apply({"params": run.params}, np.zeros((1, 8, 8, 3), np.uint8), tokens)
    assert logits.shape == (1, 16, run.tokenizer.vocab_size)
    assert runs.open_run(run_directory, step=1).step == 1


def test_open_run_refuses_what_does_not_belong_together(run_directory, tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        runs.open_run(tmp_path)
    with pytest.raises(UserError, match="no checkpoint of step 9"):
        runs.open_run(run_directory, step=9)
    config = run_directory / "config.json"
    before = config.read_text()
    try:
        config.write_text(before.replace('"model": {', '"model": {"width": 8, ', 1))
        with pytest.raises(UserError, match="does not fit the model"):
            runs.open_run(run_directory)
        config.write_text(before[:-9])
        with pytest.raises(UserError, match="not a config"):
            runs.open_run(run_directory)
    finally:
        config.write_text(before)


def test_open_run_refuses_another_tokenizer(run_directory):
    path = run_directory / "tokenizer.model"
    before = path.read_bytes()
    from capjax.data import tokenizer

    size = tokenizer.Tokenizer(before, 16).vocab_size
    words = [f"{a}{b}" for a in "abcdefghijklm" for b in "nopqrstuvwxyz"]
    for vocab_size in range(size, size + 8):  # another one of the same size, if it can be had
        other = tokenizer.train([" ".join(words)] * 3, vocab_size, 16)
        if other.vocab_size == size:
            break
    try:
        path.write_bytes(other.model)
        with pytest.raises(UserError, match="is not the tokenizer that the checkpoint"):
            runs.open_run(run_directory)
    finally:
        path.write_bytes(before)
    assert other.vocab_size == size


def test_saving_goes_on_while_the_state_is_donated(tmp_path):
    """Steps that reuse the state's buffers follow at once; what is saved is what was handed in."""
    mesh = make_mesh({"data": 2, "fsdp": 4})
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    state = {
        "step": jnp.int32(0),
        "params": {"kernel": jax.device_put(jnp.zeros((512, 1024)), split)},
        "opt_state": {"mu": jnp.zeros((256, 256))},
    }
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path / "c", 10, writer=True) as checkpoints:
        for number in range(1, 6):
            state = step(state)
            checkpoints.save_async(number, state, {"data": number})
            # What is being saved may be held a little longer; the state after it is not.
            after = state = step(state)
            for _ in range(2):
                state = step(state)
            assert after["params"]["kernel"].is_deleted()
            state = jax.tree.map(lambda x, n=number: jnp.full_like(x, n), state)
        checkpoints.wait()
        for number in range(1, 6):
            restored, host = checkpoints.restore(replicated(state, ONE), number)
            assert host == {"data": number}
            for leaf in jax.tree.leaves(restored):
                np.testing.assert_array_equal(leaf, np.full_like(leaf, number))


def test_the_best_are_kept_beside_the_last(tmp_path):
    policy = Policy(last=1, best=1)
    values = {}
    with Checkpoints(tmp_path / "c", policy, writer=True) as checkpoints:
        for step, value in ((1, 0.2), (2, 0.9), (3, 0.5), (4, None)):
            if value is not None:
                values[step] = value
            checkpoints.save_async(step, state_at(step), {"x": 1}, values)
            assert len(checkpoints.steps) <= 3
        checkpoints.wait()
        assert checkpoints.steps == [2, 4]
    assert sorted(os.listdir(tmp_path / "c")) == ["2", "4"]


def test_what_a_kill_left_half_deleted_is_not_seen_and_goes(tmp_path):
    directory = filled(tmp_path / "c")
    (directory / "2").rename(directory / "2.deleted")
    shutil.rmtree(directory / "2.deleted" / "params")
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.steps == [3]
    with Checkpoints(directory, 1, writer=True) as checkpoints:
        assert checkpoints.steps == [3]
    assert os.listdir(directory) == ["3"]


def test_a_failed_save_is_told_at_the_next_look(tmp_path, monkeypatch):
    with Checkpoints(filled(tmp_path / "c"), 2, writer=True) as checkpoints:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "rename", full)
        monkeypatch.setattr(os, "replace", full)
        checkpoints.save_async(4, state_at(4), {"x": 1})

        def look_until_told():
            while True:
                checkpoints.check()
                time.sleep(0.01)

        with pytest.raises(UserError, match=r"cannot save step 4 .*the one of step 3 is intact"):
            look_until_told()
        monkeypatch.undo()
        assert sorted(os.listdir(tmp_path / "c")) == ["2", "3"]
        checkpoints.save(4, state_at(4), {"x": 1})
        assert checkpoints.steps == [3, 4]


def test_a_damaged_checkpoint_names_the_one_before(tmp_path):
    filled(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "3" / "params")
    with (
        Checkpoints(tmp_path / "c") as checkpoints,
        pytest.raises(UserError, match=r"c/3' is damaged: remove it to go on from step 2"),
    ):
        checkpoints.restore(replicated(state_at(0), ONE), 3)


def test_eight_devices_of_fsdp_become_two_of_data(tmp_path):
    """A run goes on with another mesh: the numbers are those of one that was never stopped."""

    def to(steps, workdir, **mesh):
        config = toy.get_config(f"steps={steps}")
        config.ema_decay = 0.5
        config.optimizer.schedule.name = "constant"  # not stretched by the number of steps
        config.optimizer.epsilon = 1e-3  # the sign of a gradient of nearly zero must not decide
        config.mesh = mesh
        return train(config, workdir)

    undisturbed = to(6, tmp_path / "one", data=1, fsdp=1)
    to(4, tmp_path / "moved", data=1, fsdp=8)
    moved = to(6, tmp_path / "moved", data=2, fsdp=1)
    assert moved.step == 6
    for name in ("loss", "grad_norm", "param_norm"):
        assert moved.metrics[name] == pytest.approx(undisturbed.metrics[name], rel=1e-5), name
