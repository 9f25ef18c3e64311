"""What `capjax.fits` says of a step: exact where it can be, and divided by the devices."""

import json
import pathlib

import optax
import pytest
import toy

from capjax import config as configs
from capjax import fits
from capjax.errors import UserError
from capjax.models.coca import Model
from capjax.parallel.mesh import make_mesh
from capjax.parallel.sharding import bytes_per_device
from capjax.tasks.coca import Task
from capjax.train_step import abstract_state

TOY = str(pathlib.Path(toy.__file__))


def test_the_state_of_a_real_model_falls_as_one_over_the_devices():
    layers = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
    task = Task(model=Model(512, 16, 32, size="small", size_overrides=layers))
    held = {}
    for axes in ((1, 1), (2, 1), (8, 1), (2, 2)):
        mesh = make_mesh({"data": 1, "fsdp": axes[0], "tensor": axes[1]})
        abstract = abstract_state(task, optax.adam(1e-3), 0.5, ("tensor",), mesh)
        held[axes] = bytes_per_device(abstract)
    for (fsdp, tensor), size in held.items():
        # A hundredth is vectors, and tables that are not divisible.
        assert size * fsdp * tensor == pytest.approx(held[1, 1], rel=0.04), (fsdp, tensor)


def test_the_parts_add_up(tmp_path, capsys):
    out = tmp_path / "fit.json"
    arguments = ["--memory", "1", "--json", str(out), "--config.ema_decay=0.9"]
    assert fits.main(["--config", f"{TOY}:devices=-1", *arguments]) == 0
    assert "it fits, with 1.00 GiB to spare" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert found["parameter_bytes"] == 4 * found["parameters"] == found["average_bytes"]
    assert found["optimizer_bytes"] == pytest.approx(2 * found["parameter_bytes"], rel=0.01)
    # One of eight examples: its picture, its tokens and two numbers.
    assert found["batch_bytes"] == 8 * 8 * 3 + 4 * 16 + 8
    parts = [size for name, size in found.items() if name.endswith("_bytes")]
    assert found["bytes"] == sum(parts)
    assert found["temporary_bytes"] > 0


def test_what_is_too_large_says_so(monkeypatch, capsys):
    large = fits.Fit(10**9, {"data": 2}, 4 * 2**30, 8 * 2**30, 0, 0, 2**30)
    monkeypatch.setattr(fits, "fit", lambda *_: large)
    assert fits.main(["--config", TOY, "--memory", "12"]) == 1
    assert "it does not fit: 1.00 GiB too much" in capsys.readouterr().out


def test_tpus_that_are_not_there():
    """The one compiler of TPUs says what it needs; it is a download of its own."""
    pytest.importorskip("libtpu", reason="the extra tpu is not installed")
    found = fits.fit(configs.load(f"{TOY}:devices=-1"), devices=fits.described("v5e:2x4"))
    assert found.mesh == {"data": 8, "fsdp": 1, "tensor": 1}
    assert found.parameter_bytes == 4 * found.parameters
    with pytest.raises(UserError, match="'v5e:3x17' is none that libtpu knows"):
        fits.described("v5e:3x17")


def test_mistakes_are_named(monkeypatch):
    monkeypatch.setattr(fits.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(UserError, match="--topology needs libtpu"):
        fits.main(["--config", TOY, "--topology", "v5e:2x2"])
    with pytest.raises(UserError, match="--devices is 0"):
        fits.main(["--config", TOY, "--devices", "0"])
    with pytest.raises(UserError, match=r"data x fsdp = 8 .* does not divide batch_size=12"):
        fits.main(["--config", f"{TOY}:devices=-1", "--config.batch_size=12"])
