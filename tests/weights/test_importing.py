"""From a folder of published files to a run, and back, on checkpoints made at random."""

import json
import pathlib
import subprocess
import sys
import warnings

import jax
import ml_dtypes
import numpy as np
import published
import pytest

from capjax import runs
from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.parallel.mesh import make_mesh
from capjax.weights import families
from capjax.weights.exporting import export
from capjax.weights.files import open_tensors
from capjax.weights.importing import import_checkpoint, load, load_source
from capjax.weights.plan import read_json
from capjax.weights.verify import differences


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return published.gpt2(tmp_path_factory.mktemp("published") / "gpt2")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return published.vit(tmp_path_factory.mktemp("published") / "vit")


def assert_same_tensors(ours, theirs):
    ours, theirs = open_tensors(ours), open_tensors(theirs)
    assert sorted(ours) == sorted(theirs)
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_an_imported_checkpoint_is_a_run_that_goes_back(gpt2, tmp_path):
    import_checkpoint(gpt2, tmp_path / "run")
    run = runs.open_run(tmp_path / "run")
    assert run.step == 0
    text = run.tokenizer.decode(run.tokenizer.encode("two dogs run")[1:])
    assert text == "two dogs run"
    written = greedy(run.model, run.params, np.zeros((1, 0, 1), np.float32))
    assert written.tokens.shape == (1, run.model.max_length - 1)
    assert all(d.largest == 0 for d in differences(tmp_path / "run", gpt2))

    plan = export(tmp_path / "run", tmp_path / "back")
    assert plan.family == "gpt2"
    assert_same_tensors(tmp_path / "back", gpt2)
    for name in ("config.json", "vocab.json", "merges.txt"):
        assert (tmp_path / "back" / name).read_bytes() == (gpt2 / name).read_bytes()
    card = (tmp_path / "back" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "model.safetensors: " in card
    assert "None: the parameters are the original's." in card
    # What was exported can be imported.
    import_checkpoint(tmp_path / "back", tmp_path / "again")
    assert all(d.largest == 0 for d in differences(tmp_path / "again", gpt2))


def test_half_precision_in_shards_goes_back_bit_for_bit(tmp_path):
    folder = published.gpt2(tmp_path / "gpt2", dtype=ml_dtypes.bfloat16, shards=20_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    loaded = load(folder, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {np.dtype("bfloat16")}
    import_checkpoint(folder, tmp_path / "run")  # in float32, which holds every bfloat16
    export(tmp_path / "run", tmp_path / "back", max_shard_bytes=20_000)
    assert_same_tensors(tmp_path / "back", folder)
    (next(folder.glob("*-00002-of-*"))).unlink()
    with pytest.raises(UserError, match="model-00002-of-"):
        import_checkpoint(folder, tmp_path / "not")
    assert not (tmp_path / "not").exists()


def test_parameters_are_spread_over_the_mesh(gpt2):
    whole = load(gpt2, mesh=make_mesh({"data": 1}))
    spread = load(gpt2)  # over the 8 devices of the tests
    kernel = spread.params["language_model"]["stack"]["blocks_0"]["mlp_in"]["kernel"]
    assert len(kernel.sharding.device_set) == 8
    assert kernel.addressable_shards[0].data.size == kernel.size / 8
    jax.tree.map(np.testing.assert_array_equal, spread.params, whole.params)


def test_new_tokens_are_new_rows(gpt2, tmp_path):
    loaded = import_checkpoint(gpt2, tmp_path / "run", add_tokens=("<box>", "<end>"))
    rows = len(open_tensors(gpt2)["wte.weight"])
    assert loaded.tokenizer.vocab_size == rows + 2
    run = runs.open_run(tmp_path / "run")
    assert rows in run.tokenizer.encode("a <box>").tolist()
    embedding = np.asarray(run.params["language_model"]["embedding"]["embedding"])
    old, new = embedding[:rows], embedding[rows:]
    np.testing.assert_array_equal(old, open_tensors(gpt2)["wte.weight"])
    # As likely as a word of no meaning: around the mean row, but two.
    assert np.abs(new - old.mean(0)).max() < 0.5 * np.abs(old - old.mean(0)).max()
    assert np.abs(new[0] - new[1]).max() > 0
    export(tmp_path / "run", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["vocab_size"] == rows + 2


def test_another_picture_size_resamples_positions_alone(vit, tmp_path):
    import_checkpoint(vit, tmp_path / "run", image_size=48)
    run = runs.open_run(tmp_path / "run")
    assert run.tokenizer is None
    tensors = open_tensors(vit)
    tower = run.params["image_tower"]
    assert tower["positions"].shape == (1, 37, 48)
    np.testing.assert_array_equal(tower["positions"][0, 0], tensors["pos_embed"][0, 0])
    np.testing.assert_array_equal(tower["cls"], tensors["cls_token"])
    pictures = np.zeros((2, 48, 48, 3), np.uint8)
    features = run.model.apply({"params": run.params}, pictures, method="encode_image")
    assert features.context.shape == (2, 37, 48)
    with pytest.raises(UserError, match="no pictures to resize"):
        import_checkpoint(published.gpt2(tmp_path / "gpt2"), tmp_path / "not", image_size=48)


def test_mistakes_leave_nothing_behind(gpt2, vit, tmp_path):
    to = tmp_path / "run"
    import_checkpoint(gpt2, to)
    with pytest.raises(UserError, match="is there already"):
        import_checkpoint(gpt2, to)
    with pytest.raises(UserError, match="unknown family 'clop'"):
        import_checkpoint(gpt2, tmp_path / "not", family="clop")
    with pytest.raises(UserError, match="gpt2: it has no tensor"):
        import_checkpoint(vit, tmp_path / "not", family="gpt2")
    with pytest.raises(UserError, match="unknown dtype 'int8'"):
        import_checkpoint(gpt2, tmp_path / "not", dtype="int8")
    with pytest.raises(UserError, match="there is no tokenizer at"):
        import_checkpoint(gpt2, tmp_path / "not", tokenizer=tmp_path / "nowhere")
    short = published.gpt2(tmp_path / "short", layers=1)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"n_head": 5}))
    with pytest.raises(ValueError, match="width 32 does not divide into 5 heads"):
        import_checkpoint(short, tmp_path / "not")
    other = published.gpt2(tmp_path / "other")
    tensors = open_tensors(other)
    fewer = {n: tensors[n] if n != "wte.weight" else tensors[n][:200] for n in tensors}
    source = families.Source(other, fewer, read_json(other / "config.json"), {})
    with pytest.raises(UserError, match="270 tokens and the checkpoint's embedding 200 rows"):
        load_source(source)
    more = {n: np.tile(tensors[n], (4, 1)) if n == "wte.weight" else tensors[n] for n in tensors}
    source = families.Source(other, more, read_json(other / "config.json"), {})
    with pytest.warns(UserWarning, match="270 tokens and the checkpoint's embedding 1080 rows"):
        load_source(source)
    assert not list(tmp_path.glob("not*"))
    with pytest.raises(UserError, match="they cannot be compared"):
        differences(to, vit)
    with pytest.raises(UserError, match="choose another --like"):
        export(to, tmp_path / "not", like=vit)


def test_rows_that_few_checkpoints_lack_are_no_mistake(gpt2):
    """Half of them unused, and yet no more than T5's sentinels and rounding make up."""
    tensors = open_tensors(gpt2)
    more = {n: np.tile(tensors[n], (2, 1)) if n == "wte.weight" else tensors[n] for n in tensors}
    source = families.Source(gpt2, more, read_json(gpt2 / "config.json"), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert load_source(source).config.model.overrides.rows == 540


def test_a_checkpoint_of_no_family_is_told_why(vit, tmp_path):
    source = families.open_source(vit)
    strange = dict(source.tensors)
    strange["blocks.0.attn.rel_pos"] = strange.pop("cls_token")
    with pytest.raises(UserError) as error:
        families.recognise(families.Source(vit, strange, {"model_type": "swin"}, {}))
    for family in families.names():
        assert f"{family}: " in str(error.value)


def test_the_commands(gpt2, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "capjax.weights", *map(str, arguments)]
        root = pathlib.Path(__file__).parents[2]
        return subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)

    shown = run("inspect", gpt2)
    assert "wte.weight" in shown.stdout
    assert "family gpt2" in shown.stdout
    imported = run("import", gpt2, "--to", tmp_path / "run")
    assert "parameters, as capjax.models.language_model" in imported.stdout
    assert run("verify", tmp_path / "run", gpt2).returncode == 0
    again = run("import", gpt2, "--to", tmp_path / "run")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert "Traceback" not in again.stderr
