"""Captioning of whole data sets: one row a picture and scale, whatever stops or splits the work."""

import json
import types

import captions_until_killed as world
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from capjax.data import folder
from capjax.decode import captioner as captioner_module
from capjax.decode import search as search_module
from capjax.decode.bulk import Job, on_all_devices, picture_keys, whole_batch
from capjax.decode.bulk_parts import Parts, Shard
from capjax.decode.bulk_pictures import Size, batches
from capjax.decode.bulk_request import ClipScorer, Request
from capjax.decode.bulk_settings import settings_of
from capjax.decode.captioner import Captioner
from capjax.decode.options import Options
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.models import int8
from capjax.parallel.rows import put_rows

BROKEN = (4, 5, 17)
COUNT = 20
SAMPLED = Options(sample=True, samples=2)


@pytest.fixture(scope="module")
def captioner():
    return world.quick()


@pytest.fixture(scope="module")
def coca():
    """One that embeds pictures and texts, too."""
    return world.captioner()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return world.draw_pictures(tmp_path_factory.mktemp("world") / "p", COUNT, BROKEN)


@pytest.fixture(scope="module")
def source(pictures):
    return folder.Source([pictures])


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Batches need not be multiples of the eight devices of the tests."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def job(captioner, source, request=None, **fields):
    fields = {"resize": "squash", "batch_size": 4, "max_bad_fraction": 0.2} | fields
    return Job(captioner, source, request or Request((1.0, 2.0)), progress=False, **fields)


def parts(out, request=None, settings=None, **fields):
    fields = {"records": COUNT, "part_size": 6} | fields
    return Parts(out, settings or {}, (request or Request()).columns, **fields)


def content(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def rows_in(place):
    files = sorted(place.glob("part-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def filled(captioner, source, tmp_path_factory):
    """A finished folder of two scales."""
    out = tmp_path_factory.mktemp("filled") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        assert job(captioner, source).fill(parts(out)) == COUNT - len(BROKEN)
    return out


def test_each_picture_has_a_row_a_scale_or_a_reason(captioner, source, filled):
    rows = rows_in(filled)
    good = [key for i, key in enumerate(source.paths) if i not in BROKEN]
    assert [(r["image"], r["guidance_scale"]) for r in rows] == [
        (key, scale) for key in good for scale in (1.0, 2.0)
    ]
    assert sorted(content(filled)) == [
        "bad-00000.jsonl", "bad-00002.jsonl",
        *(f"part-0000{i}.jsonl" for i in range(4)), "settings.json",
    ]  # fmt: skip
    bad = [
        json.loads(line)
        for file in sorted(filled.glob("bad-*"))
        for line in file.read_text().splitlines()
    ]
    assert [row["image"] for row in bad] == [source.paths[i] for i in BROKEN]
    assert all("cannot be decoded" in row["error"] for row in bad)
    # The captions are those of the pictures, one by one.
    assert len({row["caption"] for row in rows}) > 5
    for place in (0, 6, 19):
        alone = batches(source, {0: range(place, place + 1)}, [Size(world.SIDE, "squash")], 1, 1)
        context = captioner.encode(next(alone).images[0]).context
        for scale in (1.0, 2.0):
            caption = captioner.write(context, scale)[0]
            row = rows[[(r["image"], r["guidance_scale"]) for r in rows].index(
                (source.paths[place], scale))]  # fmt: skip
            assert (row["caption"], row["truncated"]) == (caption.text, caption.truncated)
            np.testing.assert_allclose(row["log_prob"], caption.log_prob, atol=2e-3)
            np.testing.assert_allclose(row["score"], caption.score, atol=2e-3)


def test_a_finished_folder_is_left_alone_and_a_missing_part_made_again(
    captioner, source, filled, tmp_path
):
    before = content(filled)
    assert job(captioner, source).fill(parts(filled)) == 0
    out = tmp_path / "out"
    out.mkdir()
    for name in before.keys() - {"part-00003.jsonl", "part-00000.jsonl", "bad-00000.jsonl"}:
        (out / name).write_bytes(before[name])
    (out / "part-00000.jsonl.partial").write_text("a kill left this")
    again = parts(out)
    assert list(again.missing) == [0, 3]
    assert job(captioner, source).fill(again) == 4 + 2
    assert content(out) == before == content(filled)


def test_hosts_share_a_folder(captioner, source, filled, tmp_path):
    for index in (1, 0):
        own = parts(tmp_path, shard=Shard(index, 2))
        assert list(own.ranges) == [index, index + 2]
        # The broken ones are not the same share of every host's pictures.
        job(captioner, source, max_bad_fraction=0.3).fill(own)
    assert content(tmp_path) == content(filled)


def test_draws_depend_on_the_seed_and_the_picture_alone(captioner, source, pictures, tmp_path):
    request = Request((1.5,), SAMPLED, prompt="a")
    rows = list(job(captioner, source, request).rows())
    assert [row["sample"] for row in rows[:4]] == [0, 1, 0, 1]
    assert all(row["caption"].startswith("a") for row in rows)
    texts = {(row["image"], row["sample"]): row["caption"] for row in rows}
    assert len(set(texts.values())) > COUNT
    # In other company, in batches of another size.
    some = folder.Source([str(pictures / f"{i:04}.png") for i in (19, 7, 2)])
    for row in job(captioner, some, request, batch_size=2).rows():
        assert row["caption"] == texts[row["image"], row["sample"]]
    other = job(captioner, some, Request((1.5,), SAMPLED, prompt="a", seed=1)).rows()
    assert [r["caption"] for r in other] != [texts[r["image"], r["sample"]] for r in rows[:6]]
    keys = jax.random.key_data(picture_keys(3, ["a", "b", "a", "\ud800"]))
    assert np.array_equal(keys[0], keys[2])
    assert len({tuple(map(int, key)) for key in keys}) == 3


def test_phrases_are_in_the_caption_of_every_picture(captioner, source):
    request = Request((2.0,), Options(num_beams=6), must_contain=(("red",), ("star", "shape")))
    for row in job(captioner, source, request).rows():
        text = f" {row['caption']} "
        assert " red " in text
        assert " star " in text or " shape " in text


def test_the_best_sample_by_likelihood_and_by_clipscore(captioner, coca, source):
    every = list(job(captioner, source, Request((2.0,), SAMPLED)).rows())
    pairs = [every[i : i + 2] for i in range(0, len(every), 2)]
    best = list(job(captioner, source, Request((2.0,), SAMPLED, likeliest=True)).rows())
    for row, pair in zip(best, pairs, strict=True):
        expected = dict(max(pair, key=lambda r: r["log_prob"]))
        expected.pop("sample")
        assert row == expected
    encoder = Encoder(coca.model, coca.params, coca.tokenizer, 4)
    request = Request((2.0,), SAMPLED, scorer=ClipScorer(encoder, "squash"))
    chosen = list(job(captioner, source, request).rows())
    assert list(request.columns) == list(chosen[0])
    images = [
        batch.images[0][: len(batch.keys)]
        for batch in batches(source, {0: range(COUNT)}, [Size(world.SIDE, "squash")], 4, 2)
    ]
    pixels = encoder.images(np.concatenate(images))
    differ = 0
    for row, pair, image in zip(chosen, pairs, pixels, strict=True):
        cosines = encoder.texts([one["caption"] for one in pair]) @ image
        assert row["caption"] == pair[int(cosines.argmax())]["caption"]
        np.testing.assert_allclose(row["clipscore"], 2.5 * max(cosines.max(), 0), atol=1e-3)
        differ += row["caption"] != max(pair, key=lambda r: r["log_prob"])["caption"]
    assert differ


def test_rows_are_spread_over_all_devices(captioner, source, filled, monkeypatch):
    monkeypatch.undo()
    assert whole_batch(5, 100) == whole_batch(100, 3) == jax.device_count() == 8
    many = Captioner(captioner.model, on_all_devices(captioner.params), captioner.tokenizer)
    assert len(put_rows(np.zeros((8, 2)), many.params).sharding.device_set) == 8
    found = list(job(many, source).rows())
    expected = rows_in(filled)
    assert [row["caption"] for row in found] == [row["caption"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(row["log_prob"], other["log_prob"], atol=2e-3)


def test_nothing_is_compiled_twice(captioner, source, tmp_path):
    """Pictures of many sizes, parts that do not fill their batches, broken pictures."""
    functions = (captioner_module.encode_image, search_module._search)
    request = Request((0.0, 1.0, 1.5, 3.0), Options(max_length=5))
    for function in functions:
        function.clear_cache()  # of what other tests have compiled
    job(captioner, source, request, batch_size=5).fill(parts(tmp_path, part_size=7))
    # The image tower once; the loop once for all guided scales, and once without guidance.
    assert [function._cache_size() for function in functions] == [1, 2]


def test_batches_stay_within_parts_and_are_filled_up(source):
    sizes = [Size(16, "squash"), Size(8, "squash")]
    found = list(batches(source, {3: range(3, 6), 1: range(4, 6), 0: range(5)}, sizes, 2, 3))
    assert [(b.part, len(b.keys), len(b.bad), b.ends_part) for b in found] == [
        (3, 1, 2, True), (1, 0, 2, True), (0, 2, 0, False), (0, 2, 0, False), (0, 0, 1, True),
    ]  # fmt: skip
    assert [image.shape for image in found[0].images] == [(2, 16, 16, 3), (2, 8, 8, 3)]
    np.testing.assert_array_equal(found[0].images[0][0], found[0].images[0][1])
    assert found[1].images == []


def test_too_many_broken_pictures_stop_the_job_at_the_same_place_every_time(
    captioner, source, tmp_path
):
    for _ in range(2):
        with pytest.raises(UserError, match="3 of 20 records could not be used"):
            job(captioner, source, max_bad_fraction=0.1).fill(parts(tmp_path))
        assert sorted(p.name for p in tmp_path.glob("part-*")) == [
            "part-00000.jsonl", "part-00001.jsonl"]  # fmt: skip


def test_parquet_holds_the_same_rows(captioner, source, filled, tmp_path):
    request = Request((1.0, 2.0))
    job(captioner, source, request).fill(parts(tmp_path, request, form="parquet"))
    rows = [
        row
        for path in sorted(tmp_path.glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert rows == rows_in(filled)


def test_other_settings_are_refused_and_named(tmp_path):
    parts(tmp_path, settings={"prompt": "a job that failed before its first part"})
    first = parts(tmp_path, settings={"guidance_scales": [1.0], "checkpoint": "a", "prompt": ""})
    late = parts(tmp_path, settings={"guidance_scales": [4.0]}, shard=Shard(1, 2))
    first.write(0, [], {})
    with pytest.raises(UserError, match="other settings"):
        late.write(1, [], {})
    assert not late.path(1).exists()
    moved = {"guidance_scales": [1.0], "checkpoint": "b", "prompt": ""}
    parts(tmp_path, settings=moved, shard=Shard(1, 2))
    with pytest.raises(UserError, match=r"\(guidance_scales: \[1.0\] there, \[2.0\] now; prompt: "):
        parts(tmp_path, settings={"guidance_scales": [2.0]})
    with pytest.raises(UserError, match="records: 20 there, 21 now"):
        parts(tmp_path, settings=moved, records=21)
    with pytest.raises(UserError, match='format: "jsonl" there, "parquet" now'):
        parts(tmp_path, settings=moved, form="parquet")
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*settings\.json"):
        parts(tmp_path, settings=moved)


def test_settings_tell_weights_and_pictures_apart(coca, source):
    def told(params=coca.params, source=source, directory="runs/a", **fields):
        run = types.SimpleNamespace(
            directory=directory, step=7, params=params, tokenizer=coca.tokenizer
        )
        found = settings_of(run, source, "photos", Request(**fields))
        return {name: value for name, value in found.items() if name != "checkpoint"}

    first = told()
    assert changed(first, told(directory="elsewhere", seed=5)) == set()
    leaves, tree = jax.tree.flatten(coca.params)
    other = jax.tree.unflatten(tree, [*leaves[:-1], leaves[-1] + 1e-6])
    assert changed(first, told(params=other)) == {"weights"}
    one_less = folder.Source(source.paths[:3] + source.paths[4:])
    assert changed(first, told(source=one_less)) == {"keys"}
    assert changed(first, told(prompt="a")) == {"prompt"}
    assert changed(first, told(must_contain=(("red",),))) == {"must_contain"}
    small = int8.quantise(coca.model, coca.params)[1]
    assert changed(first, told(params=small)) == {"weights", "weights_dtype"}
    assert changed(first, told(options=Options(cache_dtype="bfloat16"))) == {"cache_dtype"}
    assert changed(told(options=SAMPLED), told(options=SAMPLED, seed=5)) == {"seed"}
    assert changed(told(options=SAMPLED), told(options=SAMPLED, likeliest=True)) == {"best_of"}


def changed(one, other):
    return {name for name in one | other if one.get(name) != other.get(name)}


def test_folders_that_cannot_be_filled_are_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other files, such as 'thesis\.tex'"):
        parts(tmp_path)
    with pytest.raises(UserError, match="cannot write to"):
        parts(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match="unknown format 'csv'"):
        parts(tmp_path / "new", form="csv")


def test_a_full_disk_is_one_sentence_and_finished_parts_stay(captioner, source, filled, tmp_path):
    # What is written through this name meets a full device.
    (tmp_path / "out").mkdir()
    mine = parts(tmp_path / "out")
    (tmp_path / "out" / "part-00001.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"No space left on device; the parts .* same command"):
        job(captioner, source).fill(mine)
    assert list(mine.missing) == [1, 2, 3]
    job(captioner, source).fill(mine)
    assert content(tmp_path / "out") == content(filled)
