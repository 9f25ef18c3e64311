"""Token by token: values worked out by hand, those of the search, and tokens joined into words."""

import json

import captions_until_killed
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.data import clip_bpe, gpt2_bpe
from capjax.data.token_rows import TokenRows
from capjax.decode.captioner import Captioner
from capjax.decode.explain import Reading, Token, explain, spell, words
from capjax.decode.options import Options
from capjax.errors import UserError
from capjax.special_tokens import EOS_ID, UNK_ID, SpecialTokens

LOG = np.log
CAT, DOG, OWL = 4, 5, 6
SCALES = (1.0, 2.0, 0.0, 3.0)


class Written(nn.Module):
    """A model whose logits at each position are `table`, plus what the context says there."""

    table: tuple[tuple[float, ...], ...]
    special_tokens: SpecialTokens = SpecialTokens()

    @property
    def vocab_size(self):
        return len(self.table[0])

    @property
    def max_length(self):
        return len(self.table) + 1

    def start_decoding(self, context, length=None):
        return context

    def decode_step(self, tokens, position, state):
        return jnp.asarray(self.table)[position] + state[:, position], state


class Words(TokenRows):
    """Three animals."""

    special_tokens = SpecialTokens()
    vocab_size = 7

    def text(self, ids):
        return " ".join(("cat", "dog", "owl")[token - CAT] for token in ids)


@pytest.fixture(scope="module")
def by_hand():
    """Without a picture first cat 30%, dog 5%, owl 15%, <unknown> 50%, then the end 3 : 1; with it
    dogs are 4 times as likely at first, and nothing else is."""
    never = -1e9
    first = (never, never, never, LOG(0.5), LOG(0.3), LOG(0.05), LOG(0.15))
    then = (never, never, LOG(0.75), never, LOG(0.25), never, never)
    context = np.zeros((1, 2, 7), np.float32)
    context[0, 0, DOG] = LOG(4)
    return explain(Captioner(Written((first, then)), {}, Words()), context, SCALES)


def test_values_by_hand(by_hand):
    plain, guided = by_hand[:2]
    # With the picture 0.5 + 0.3 + 4 x 0.05 + 0.15 = 1.15 is the whole.
    assert (plain.text, plain.truncated) == ("cat", False)
    cat, end = plain.tokens
    np.testing.assert_allclose([cat.log_prob, cat.unconditional], LOG([0.3 / 1.15, 0.3]), rtol=1e-5)
    np.testing.assert_allclose([end.log_prob, end.unconditional], LOG([0.75, 0.75]), rtol=1e-5)
    assert (cat.text, cat.differs, cat.ends) == ("cat", False, False)
    assert (end.text, end.differs, end.ends) == ("", False, True)
    # Guided by 2: cat 0.3, dog 16 x 0.05. Plain decoding would not write <unknown>, but cat.
    assert (guided.text, guided.scale) == ("dog", 2.0)
    dog = guided.tokens[0]
    np.testing.assert_allclose(
        [dog.log_prob, dog.unconditional], LOG([0.2 / 1.15, 0.05]), rtol=1e-5
    )
    np.testing.assert_allclose(dog.information, LOG(4 / 1.15), rtol=1e-5)
    assert (dog.plain, dog.differs) == ("cat", True)
    np.testing.assert_allclose(dog.plain_log_prob, LOG(0.3 / 1.15), rtol=1e-5)
    np.testing.assert_allclose(guided.log_prob, LOG(0.2 / 1.15 * 0.75), rtol=1e-5)
    assert [one.text for one in by_hand[2:]] == ["cat", "dog"]
    assert guided.words[0].instead is dog
    assert guided.words[1].instead is None


@pytest.fixture(scope="module")
def captioner():
    return captions_until_killed.captioner()


@pytest.fixture(scope="module")
def context(captioner):
    image = np.random.default_rng(5).integers(0, 256, (1, 16, 16, 3), np.uint8)
    return captioner.encode(image).context


BEAMS = Options(num_beams=3, keep_scores=True)
SAMPLED = Options(sample=True, temperature=0.8, top_p=0.9, keep_scores=True)


@pytest.mark.parametrize("options", [BEAMS, SAMPLED], ids=["beams", "sampled"])
def test_scores_are_those_of_the_search(captioner, context, options):
    rng = jax.random.key(3) if options.sample else None
    explained = explain(captioner, context, SCALES, options, rng=rng)
    keys = None if rng is None else jnp.stack([rng] * len(SCALES))
    same = np.repeat(context, len(SCALES), 0)
    groups = captioner.write_all(same, np.array(SCALES), options, rng=keys)
    for scale, one, group in zip(SCALES, explained, groups, strict=True):
        other = group[0]
        assert (one.scale, one.text, one.truncated) == (scale, other.text, other.truncated)
        np.testing.assert_allclose(one.log_prob, other.log_prob, rtol=1e-5)
        assert [token.text for token in one.tokens] == [token.text for token in other.tokens]
        for name in ("log_prob", "unconditional"):
            ours, theirs = ([getattr(t, name) for t in c.tokens] for c in (one, other))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len({one.text for one in explained}) > 1


def test_plain_decoding_goes_on_with_the_token_that_is_named(captioner, context):
    """Given the same beginning as a prompt, unguided greedy search writes `plain` next."""
    caption = explain(captioner, context, SCALES, SAMPLED, rng=jax.random.key(3))[3]
    place = next(n for n, token in enumerate(caption.tokens) if token.differs and n > 0)
    begun = "".join(token.text for token in caption.tokens[:place])
    token = caption.tokens[place]
    plain = captioner.write(context, 1.0, prompt=begun)[0].text
    assert plain.startswith((begun + token.plain).strip())
    assert token.plain != token.text
    assert token.plain_log_prob >= token.log_prob


def test_sampling_needs_a_key(captioner, context):
    with pytest.raises(UserError, match="sampling needs a key"):
        explain(captioner, context, (1.0, 2.0), Options(sample=True))


def spelt(tokenizer, ids):
    """(the tokens of ids that plain decoding would write, too, and their words)."""
    numbers = -np.arange(1.0, len(ids) + 1)
    found = spell(tokenizer, ids, Reading(numbers, 2 * numbers, np.array(ids), numbers))
    assert "".join(token.text for token in found) == tokenizer.decode(ids)
    assert [token.log_prob for token in found] == numbers.tolist()
    assert not any(token.differs for token in found)
    return found, words(found)


def test_pieces_of_sentencepiece_are_joined(captioner):
    tokenizer = captioner.tokenizer
    ids = tokenizer.ids("a redsquare shape")
    assert UNK_ID not in ids
    tokens, found = spelt(tokenizer, [*ids, EOS_ID])
    assert [word.text for word in found] == ["a", "redsquare", "shape", ""]
    assert [token.plain for token in tokens][-1] == ""
    assert len(found[1].tokens) > 1
    assert found[1].log_prob == sum(token.log_prob for token in found[1].tokens)


def test_merges_of_clip_are_joined():
    pytest.importorskip("ftfy", reason="needs the extra text: pip install 'capjax[text]'")
    merges = b"#version: 0.2\nt h\nth e</w>\nc a\nca t</w>\n1 2</w>\n"
    tokenizer = clip_bpe.Tokenizer(merges, 12, num_merges=5)
    ids = tokenizer.ids("the cats!")
    tokens, found = spelt(tokenizer, [*ids, tokenizer.special_tokens.eos])
    assert [word.text for word in found] == ["the", "cats", "!", ""]
    assert [token.text for token in tokens] == ["the", " ca", "t", "s", " !", ""]
    assert [token.plain for token in tokens] == ["the", " ca", "t", "s", " !", ""]


def test_bytes_of_gpt2_are_joined_and_half_a_character_is_not_shown(tmp_path):
    tokenizers = pytest.importorskip(
        "tokenizers", reason="needs the extra text: pip install 'capjax[text]'"
    )
    signs = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    ids = {sign: number for number, sign in enumerate([*signs, "\u0120a", gpt2_bpe.END])}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n\u0120 a\n")
    tokenizer = gpt2_bpe.make(path=str(tmp_path), max_length=12)
    written = tokenizer.ids("a ét a")  # é is two bytes, of which neither is a character
    tokens, found = spelt(tokenizer, [*written, tokenizer.special_tokens.eos])
    assert [word.text for word in found] == ["a", "ét", "a", ""]
    assert [token.text for token in tokens] == ["a", " ", "", "é", "t", " a", ""]
    # Cut off within a character there is no end, and what is shown is what the text shows.
    tokens, found = spelt(tokenizer, written[:3])
    assert [word.text for word in found] == ["a", "\ufffd"]
    assert not any(token.ends for token in tokens)


def test_words_of_any_tokens():
    def token(text, ends=False):
        return Token(text, -1.0, -1.5, "x", -0.5, not ends, ends)

    found = words([token("sq"), token("uare"), token(" of"), token(""), token("", True)])
    assert [[t.text for t in word.tokens] for word in found] == [["sq", "uare"], [" of", ""], [""]]
    assert found[0].information == pytest.approx(1.0)
    assert found[0].instead == found[0].tokens[0]
    assert words([]) == ()
