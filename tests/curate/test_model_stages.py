"""Captioners, encoders and language models of ours as stages give what they give by themselves."""

import asyncio

import jax
import numpy as np
import pytest

from capjax import config as config_lib
from capjax import runs
from capjax.checkpoint import Checkpoints
from capjax.curate.finished import Finished
from capjax.curate.language.ask import Ask
from capjax.curate.language.decoder import Decoder
from capjax.curate.language.request import CUT, CallFailed, Request
from capjax.curate.language.templates import Template
from capjax.curate.local import Options, run
from capjax.curate.pipeline import Pipeline
from capjax.curate.stages.captioning import Caption, to_squares
from capjax.curate.stages.encoding import ClipScore, Embed
from capjax.curate.stages.runs import run_identity
from capjax.curate.workers import Tally
from capjax.data.scenes import Source
from capjax.decode import bulk
from capjax.decode.captioner import Captioner
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.metrics.clipscore import clip_score
from capjax.models.init import init
from capjax.weights.importing import import_checkpoint

SCENES = dict(size=9, image_size=32, max_objects=1, captions="short", captions_per_image=2)


@pytest.fixture(scope="module")
def coca(tmp_path_factory):
    """A run of a CoCa with random weights, which captions and embeds."""
    directory = tmp_path_factory.mktemp("run") / "coca"
    config = config_lib.base()
    config.model = dict(
        name="capjax.models.coca",
        size_overrides=dict(image_layers=1, unimodal_layers=1, multimodal_layers=1),
    )
    config.data.train = dict(name="capjax.data.scenes", **SCENES)
    config.data.image_size = 16
    config.tokenizer.vocab_size, config.tokenizer.max_length = 64, 12
    config = config_lib.as_config(config)
    tokenizer = runs.prepare(directory, config, Source(**SCENES), started=False)
    model = runs.make_model(config, tokenizer)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes)
    with Checkpoints(directory / runs.CHECKPOINTS, writer=True) as checkpoints:
        host = {"tokenizer": tokenizer.fingerprint}
        checkpoints.save_params(1, jax.device_put(params), host)
    return directory


@pytest.fixture(scope="module")
def rows():
    return [Source(**SCENES)[i] for i in range(len(Source(**SCENES)))]


def test_scores_and_embeddings_are_the_encoders(coca, rows, monkeypatch):
    # On one device, for which the encoder beside it is compiled, too.
    monkeypatch.setattr(bulk, "on_all_devices", lambda params: params)
    opened = runs.open_run(coca)
    encoder = Encoder(opened.model, opened.params, opened.tokenizer, 8)
    images = to_squares([row["image"] for row in rows], opened.model, opened.config.data.resize)
    pictures = encoder.images(images)
    texts = [row["captions"][0] for row in rows]
    expected = clip_score(pictures, encoder.texts(texts))
    one = ClipScore(coca, "caption", batch_size=8)
    one.start()
    fields = [{"image": r["image"], "caption": t} for r, t in zip(rows, texts, strict=True)]
    found = [told["clipscore"] for told in [*one.batch(fields[:5]), *one.batch(fields[5:])]]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    several = ClipScore(coca, "captions", several=True, batch_size=8)
    several._encoder, several._resize = one._encoder, one._resize
    given = [{"image": r["image"], "captions": r["captions"][: i % 3]} for i, r in enumerate(rows)]
    lists = [told["clipscore"] for told in several.batch(given)]
    assert [len(own) for own in lists] == [len(row["captions"]) for row in given]
    np.testing.assert_allclose(
        [own[0] for own in lists if own], expected[[i % 3 > 0 for i in range(9)]], atol=2e-6
    )
    embed = Embed(coca, "image", batch_size=8)
    embed._encoder, embed._resize = one._encoder, one._resize
    found = [told["embedding"] for told in embed.batch(rows)]
    np.testing.assert_allclose(found, pictures, atol=2e-6)


def test_a_captioner_lives_in_a_worker(coca, rows, tmp_path, monkeypatch):
    """Pictures to a spawned process, captions to Parquet: those of the captioner by itself."""
    monkeypatch.setenv("XLA_FLAGS", "")  # one device there: quicker to begin
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    made = Pipeline(
        "caption",
        (Caption(coca, guidance_scale=2.0, batch_size=8),),
        ("key", "caption"),
        source={"key": str, "image": np.ndarray},
    )
    options = Options(chunk=8, processes=1)
    run(made, Source(**SCENES), tmp_path, options=options, progress=False)
    opened = runs.open_run(coca)
    captioner = Captioner(opened.model, opened.params, opened.tokenizer)
    images = to_squares([row["image"] for row in rows], opened.model, opened.config.data.resize)
    written = captioner.write(captioner.encode(images).context, 2.0)
    output = Finished(tmp_path)
    assert [row["caption"] for row in output.rows()] == [caption.text for caption in written]
    told = output.settings["stages"][0]["params"]
    assert (told["weights"], told["guidance_scale"]) == (run_identity(coca)["weights"], 2.0)


def test_runs_that_are_none(coca, tmp_path):
    with pytest.raises(UserError, match="no run directory with a checkpoint"):
        _ = Caption(tmp_path).params
    with pytest.raises(UserError, match="is no run of capjax"):
        Decoder(coca).start()
    stage = Caption(coca, options={"beams": 3})
    with pytest.raises(UserError, match="num_beams"):
        stage.start()


@pytest.fixture(scope="module")
def stories(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stories") / "run"
    import_checkpoint(shared / "data" / "stories260k" / "stories260K.bin", folder)
    decoder = Decoder(folder, form="{user}", batch_size=4, step=32)
    decoder.start()
    return decoder


def asked(decoder, texts, max_tokens=24, **options):
    """Answers to several prompts at once."""
    tally = Tally()

    async def run_all():
        requests = [
            Request(
                ({"role": "system", "content": ""}, {"role": "user", "content": text}),
                max_tokens=max_tokens,
                **options,
            )
            for text in texts
        ]
        calls = (decoder.complete(request, "say", tally) for request in requests)
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run_all()), tally


def test_a_language_model_of_ours_goes_on_with_the_known_story(stories):
    """doc/stories260K.md of karpathy/llama2.c, at temperature 0."""
    begin = "Once upon a time, there was a little girl named"
    others = ["One day, Tom", "The", "Lily and her mom went to the park. They saw a big dog", "A"]
    answers, tally = asked(stories, [begin, *others])
    assert answers[0].text.startswith("Lily. She loved to play outside in the park.")
    assert answers[0].finish == CUT
    assert answers[0].completion_tokens == 24
    assert len(tally.entries) == 5
    alone, _ = asked(stories, [others[2]])
    assert alone[0] == answers[3]  # what it shares a batch with changes nothing


def test_sampling_depends_on_seed_and_prompt_alone(stories):
    how = dict(temperature=1.0, seed=1)
    both, _ = asked(stories, ["The dog", "A cat", "The dog"], **how)
    other, _ = asked(stories, ["The dog"], temperature=1.0, seed=2)
    assert both[0] == both[2] != other[0]
    assert both[0].text != both[1].text


def test_a_prompt_that_is_too_long_is_the_records_fault(stories):
    answers, _ = asked(stories, ["a dog " * 400, "The"])
    assert isinstance(answers[0], CallFailed)
    assert "there is room for" in str(answers[0])
    assert answers[1].text


def test_the_same_stage_with_a_model_of_ours(stories):
    say = Template("say", "1", {"caption": str}, "", "{caption}")
    ask = Ask("say", stories, say, output="said", fallback="caption", max_tokens=24)
    assert (ask.place, ask.concurrency) == ("worker", 0)
    assert ask.params["weights"]
