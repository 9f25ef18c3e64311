"""Captions as text: searches, samples, prompts, token scores, and the best of several."""

import captions_until_killed
import jax
import numpy as np
import pytest

from capjax.decode.captioner import Caption, Captioner, best_of
from capjax.decode.companion import Companion
from capjax.decode.options import Options
from capjax.decode.search import search
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

BATCH = 6


@pytest.fixture(scope="module")
def captioner():
    return captions_until_killed.quick()


@pytest.fixture(scope="module")
def context(captioner):
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 16, 16, 3), np.uint8)
    images[:, :, :8] //= np.arange(1, BATCH + 1, dtype=np.uint8)[:, None, None, None]
    return captioner.encode(images).context


def test_a_caption_is_the_text_of_what_was_found(captioner, context):
    found = search(captioner.model, captioner.params, context, 2.0)
    written = captioner.write(context, 2.0)
    assert [c.text for c in written] == [captioner.tokenizer.decode(t[0]) for t in found.tokens]
    np.testing.assert_allclose([c.log_prob for c in written], found.log_prob[:, 0], rtol=1e-6)
    np.testing.assert_allclose([c.score for c in written], found.score[:, 0], rtol=1e-6)
    assert [c.truncated for c in written] == found.truncated[:, 0].tolist()
    assert len({c.text for c in written}) > 2
    assert all(c.tokens == () for c in written)


def test_beams_come_best_first_and_samples_are_chosen_by_likelihood(captioner, context):
    beams = captioner.write_all(context, 1.5, Options(num_beams=3))
    assert all([c.score for c in group] == sorted((c.score for c in group), reverse=True)
               for group in beams)  # fmt: skip
    assert captioner.write(context, 1.5, Options(num_beams=3)) == [group[0] for group in beams]
    options, rng = Options(sample=True, samples=4), jax.random.key(2)
    drawn = captioner.write_all(context, 1.0, options, rng=rng)
    assert [len(group) for group in drawn] == [4] * BATCH
    best = captioner.write(context, 1.0, options, rng=rng)
    assert best == [max(group, key=lambda c: c.log_prob) for group in drawn]
    assert any(one != group[0] for one, group in zip(best, drawn, strict=True))


def test_token_scores_add_up_and_tell_what_the_picture_said(captioner, context):
    for scale in (1.0, 2.0):
        for caption in captioner.write(context, scale, Options(keep_scores=True)):
            total = sum(token.log_prob for token in caption.tokens)
            np.testing.assert_allclose(total, caption.log_prob, rtol=1e-5)
            assert "".join(token.text for token in caption.tokens).strip() == caption.text
            assert (caption.tokens[-1].text == "") == (not caption.truncated)
            for token in caption.tokens:
                if scale == 1:
                    assert token.unconditional is None
                    assert token.information is None
                else:
                    assert token.unconditional < 0
                    assert token.information == token.log_prob - token.unconditional
    # Where the picture is nothing, it says nothing.
    blind = captioner.write(np.zeros_like(context), 2.0, Options(keep_scores=True))
    said = [token.information for caption in blind for token in caption.tokens]
    np.testing.assert_allclose(said, 0, atol=1e-5)


def test_prompts_are_text_one_for_all_or_one_each(captioner, context):
    prompted = captioner.write(context, 2.0, prompt="a photo of")
    assert all(caption.text.startswith("a photo of") for caption in prompted)
    assert captioner.write(context, 2.0, prompt="  ") == captioner.write(context, 2.0)
    each = ["a photo of", "", "red", "there is", "a", ""]
    mixed = captioner.write(context, 2.0, prompt=each)
    for row, text in enumerate(each):
        own = captioner.write(context[row : row + 1], 2.0, prompt=text)[0]
        assert mixed[row].text == own.text
        assert own.text.startswith(text)
        np.testing.assert_allclose(mixed[row].log_prob, own.log_prob, rtol=1e-4)
    with pytest.raises(UserError, match="2 prompts for 6 pictures"):
        captioner.write(context, prompt=["a", "b"])
    with pytest.raises(UserError, match="leaves no room"):
        captioner.write(context, prompt="a photo of a red circle there is a blue star")


def test_a_prompt_stays_whole_in_a_vocabulary_without_a_beginning(captioner, context):
    class Words(type(captioner.tokenizer)):
        special_tokens = SpecialTokens(bos=None)

    words = Words(captioner.tokenizer.model, captioner.tokenizer.max_length)
    model = captioner.model.clone(special_tokens=words.special_tokens)
    options = Options(keep_scores=True)
    bare = Captioner(model, captioner.params, words)
    for caption in bare.write(context, 1.0, options, prompt="a photo of"):
        assert caption.text.startswith("a photo of")
        # The first token was read, not written.
        later = "".join(token.text for token in caption.tokens)
        assert caption.text.endswith(later)
        assert caption.text != later


def test_a_companion_must_have_the_same_vocabulary(captioner, context):
    twin = Companion(captioner.model, captioner.params, "contrastive", 0.1, 0.5, context=context)
    same = captioner.write(context, companion=twin)
    assert [c.text for c in same] == [c.text for c in captioner.write(context)]
    other = Companion(captioner.model.clone(vocab_size=40), captioner.params)
    with pytest.raises(UserError, match="vocabulary has 40 tokens and the captioner's 48"):
        captioner.write(context, companion=other)


def test_best_of_by_any_scorer():
    captions = [[Caption(text, p, 0.0, False) for text, p in group] for group in (
        [("a", -3.0), ("a red star", -1.0), ("a star", -1.0)], [("b", -2.0), ("c", -4.0), ("", -5)]
    )]  # fmt: skip
    assert [(c.text, v) for c, v in best_of(captions)] == [("a red star", -1.0), ("b", -2.0)]

    def words(groups):
        return [[-len(caption.text.split()) for caption in group] for group in groups]

    assert [(c.text, v) for c, v in best_of(captions, words)] == [("a", -1), ("", 0)]
    assert best_of([]) == []
    with pytest.raises(UserError, match=r"gave \(2,\) where \(2, 3\)"):
        best_of(captions, lambda groups: [0.0, 1.0])
    with pytest.raises(UserError, match="gave NaN"):
        best_of(captions, lambda groups: np.full((2, 3), np.nan))


def test_what_cannot_write_is_no_captioner(captioner):
    with pytest.raises(UserError, match="writes no captions"):
        Captioner(object(), {}, captioner.tokenizer)
