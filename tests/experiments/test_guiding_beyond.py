"""What goes beyond the paper: the criterion and the rules by hand, and every move by a captioner
with random parameters."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from capjax import config as configs
from capjax import reproduce, runs
from capjax.errors import UserError
from capjax.metrics import frontier
from capjax.models.init import init
from experiments.guiding import beyond, moves, recaptioned, stopping

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCENES = {"name": "capjax.data.scenes", "image_size": 32, "size": 3}


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_greedy_guidance_reaches_the_upper_hull_of_its_points():
    agreement = np.array([[4.0, 3.0, 2.0, 1.0]])
    specificity = np.array([[0.0, 0.1, 1.0, 0.5]])  # the second lies below the chord
    for at, expected in ((4.0, 0.0), (3.0, 0.5), (2.5, 0.75), (1.0, 1.0), (0.0, 1.0), (5.0, 0.0)):
        found = frontier.reach(agreement, specificity, np.array([at]))
        np.testing.assert_allclose(found, expected, err_msg=str(at))


def noisy(rng, agreement, specificity, size=400):
    return np.stack([rng.normal(mean, 0.3, size) for mean in (agreement, specificity)])


def test_the_verdict_needs_more_than_chance():
    rng = np.random.default_rng(0)
    greedy = np.stack([noisy(rng, 1.0, 0.0), noisy(rng, 0.0, 1.0)])
    coin = rng.integers(2, size=400)
    mixed = np.where(coin, greedy[0], greedy[1])
    cases = {
        "ahead": noisy(rng, 0.5, 0.7),
        "behind": noisy(rng, 0.5, 0.3),
        "level": mixed,
    }
    for expected, other in cases.items():
        found = frontier.excess(greedy, other)
        assert frontier.verdict(found) == expected, found
        assert found.low < found.value < found.high
    # A point of the curve has nothing above it, in any draw.
    assert frontier.excess(greedy, greedy[0]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_stopping_rules_by_hand():
    values = np.array([[-1.0, -1.5, -4.0, -1.2], [-2.0, -1.0, -2.9, -3.1]])
    assert stopping.last_within(values, 1.0).tolist() == [1, 2]
    assert stopping.last_within(values, 0.0).tolist() == [0, 1]
    assert stopping.last_within(values, 9.0).tolist() == [3, 3]
    assert stopping.first_reaching(values, -1.3).tolist() == [0, 1]
    assert stopping.first_reaching(-values, 3.0).tolist() == [2, 3]
    assert stopping.first_reaching(values, 0.0).tolist() == [3, 3]  # never: the last


def written(folder, rows):
    """A folder as `capjax.caption` fills it."""
    folder.mkdir()
    settings = {"records": 3, "part_size": 3, "format": "jsonl"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "part-00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_a_students_data_have_their_teachers_captions(tmp_path):
    source = configs.instantiate(configs.ConfigDict(SCENES), "Source")
    keys = [source[i]["key"] for i in range(3)]
    rows = [
        {"image": key, "guidance_scale": scale, "caption": f"{key} at {scale}"}
        for key in keys[:2]
        for scale in (1.0, 2.0)
    ]
    rows.append({"image": keys[2], "guidance_scale": 2.0, "caption": " "})  # nothing to learn from
    folder = written(tmp_path / "captions", rows)
    data = recaptioned.Source(SCENES, folder, 2.0)
    assert [data.captions(i) for i in range(len(data))] == [[f"{key} at 2.0"] for key in keys[:2]]
    assert data[1]["captions"] == data.captions(1)
    np.testing.assert_array_equal(data[1]["image"], source[1]["image"])
    assert len(recaptioned.Source(SCENES, folder).captions(0)) == 2
    with pytest.raises(UserError, match=r"no captions at guidance_scale=3.*it has those at 1, 2"):
        recaptioned.Source(SCENES, folder, 3.0)
    with pytest.raises(UserError, match="captions of other pictures"):
        recaptioned.Source(SCENES | {"seed": 1}, folder)


def test_configs_differ_in_what_stands_for_no_picture():
    read = {
        null: configs.load(f"{beyond.CONFIG}:init=runs/base,null={null}")
        for null in ("zeros", "learned", "pixels")
    }
    assert {null: config.optimizer.frozen for null, config in read.items()} == {
        "zeros": ("^null$",),
        "learned": (),
        "pixels": ("^null$",),
    }
    assert read["zeros"].task == read["learned"].task != read["pixels"].task
    with pytest.raises(UserError, match="null=noise is unknown"):
        configs.load(f"{beyond.CONFIG}:null=noise")


@pytest.fixture(scope="module")
def random_run(tmp_path_factory):
    """As a run of the config would be before its first step, with parameters that tell pictures
    apart."""
    folder = tmp_path_factory.mktemp("beyond")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = configs.load(f"{beyond.CONFIG}:runlocal")
    with config.unlocked():
        config.model.size_overrides = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
        config.tokenizer.max_length = 8
        config.tokenizer.num_records = 100
    source = configs.instantiate(config.data.train, "Source")
    tokenizer = runs.prepare(folder, config, source, started=False)
    model = runs.make_model(config, tokenizer)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: np.float32((path[-1].key == "scale") + rng.normal(0, 0.3, x.shape)), shapes
    )
    return runs.Run(config, tokenizer, model, params, 0, folder)


def test_every_move_is_judged_and_reported(random_run, tmp_path, monkeypatch):
    """What is measured means nothing here; that all is there, and that it is ours, does."""
    monkeypatch.setattr(beyond, "captioner", lambda workdir, name, **fields: random_run)
    monkeypatch.setattr(beyond, "results_path", lambda paper, scale: tmp_path / f"{scale}.json")
    monkeypatch.setattr(beyond, "CHOSEN", 16)
    monkeypatch.setattr(beyond, "JUDGED", 24)
    monkeypatch.setattr(beyond.teach, "__defaults__", (40,))
    monkeypatch.setattr(frontier, "DRAWS", 50)
    for name, value in {
        "BATCH": 40,
        "GREEDY": (1.0, 1.2, 1.4, 1.5, 2.0),
        "OTHERS": (1.5,),
        "BEAM_SCALES": (1.5,),
        "DRAW_SCALES": (1.5,),
        "SCHEDULE_SCALES": (2.0,),
        "SCHEDULES": {"rising": (0.0, 1.0)},
    }.items():
        monkeypatch.setattr(moves, name, value)
    found = {f.name: f for f in beyond.claims(reproduce.Setting(tmp_path / "work", ""))}
    reported = {name for name, finding in found.items() if finding.holds is None}
    assert reported == {
        *("beams", "best_of_n", "schedule", "stopping_rule", "learned_null", "pixel_masking"),
        *("distillation", "another_seed"),
    }
    assert set(found) - reported == {
        *("trade_off", "criterion", "one_pass", "ablation_unguided_teacher")
    }
    # All students are the teacher here: none can be ahead of its curve, at any scale.
    assert found["distillation"].measured["excess"] <= 1e-12
    page = (tmp_path / "beyond.md").read_text()
    for text in ("| greedy | γ=1.2 |", "best of 8 γ=1.5", "6 nats at most", "taught γ=2, γ=1.2"):
        assert text in page
    assert (tmp_path / "beyond.png").stat().st_size > 10_000
    part = tmp_path / "work" / "beyond-captions" / "part-00000.jsonl"
    taught = [json.loads(line) for line in part.read_text().splitlines()]
    assert {row["guidance_scale"] for row in taught} == set(beyond.TEACHERS)
    assert len({row["image"] for row in taught}) == 40


def test_what_stands_for_no_picture_is_what_decoding_reads(random_run):
    images = np.stack([record["image"] for record in map(_scene, range(40))])
    writer = beyond.writer_of(random_run, images)
    black = beyond.writer_of(random_run, images, np.zeros_like(images[0]))
    null = np.asarray(random_run.params["null"])
    assert black.unconditional.shape == (1, *null.shape)
    # gamma = 0 is the blind branch alone.
    blind = writer.captioner.write(np.repeat(null[None], 40, 0), 1.0)
    dark = writer.captioner.write(np.repeat(black.unconditional, 40, 0), 1.0)
    assert moves.texts(writer.write(0.0)) == [caption.text for caption in blind]
    assert moves.texts(black.write(0.0)) == [caption.text for caption in dark]
    assert blind[0].text != dark[0].text
    zeros = jax.tree.map(np.zeros_like, random_run.params["null"])
    plain = dataclasses.replace(random_run, params=random_run.params | {"null": zeros})
    assert moves.texts(beyond.writer_of(plain, images).write(0.0))[0] != blind[0].text


def _scene(index):
    return configs.instantiate(configs.ConfigDict(SCENES | {"size": 40}), "Source")[index]
