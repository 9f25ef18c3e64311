"""A random captioner whose loops compile quickly, and plain searches to compare them with.

What it says depends on all that it has read, so that a beam that carries another one's cache, or a
token that is read at the wrong place, gives other captions. The searches know nothing of arrays:
they extend lists of tokens one by one and read every caption from its beginning.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from capjax.models.coca import ImageFeatures
from capjax.special_tokens import BOS_ID, EOS_ID, SpecialTokens

NEVER = SpecialTokens().never_written


@functools.cache
def table(states, vocab_size):
    """float32 [M,V]: the logits of each state."""
    drawn = np.random.default_rng(0).normal(size=(states, vocab_size)) * 2
    drawn[:, EOS_ID] += np.log(vocab_size)
    return drawn.astype(np.float32)


class Random(nn.Module):
    """Logits [V] of each of M states; a token leads from one state to the next. Contexts [B,1,1]
    say in which state a caption begins, and zeros in state 0."""

    vocab_size: int = 11
    max_length: int = 8
    image_size: int = 16
    states: int = 97
    special_tokens: SpecialTokens = SpecialTokens()

    def setup(self):
        self.table = self.param("table", lambda _: table(self.states, self.vocab_size))

    def encode_image(self, image):
        begin = jnp.sum(image.astype(jnp.int32), (1, 2, 3)) % (self.states - 1) + 1
        return ImageFeatures(None, begin[:, None, None].astype(jnp.float32))

    def start_decoding(self, context, length=None):
        return {"at": context[:, 0, 0].astype(jnp.int32)}

    def decode_step(self, tokens, position, state):
        at = (state["at"] * 31 + tokens * 7 + position + 1) % self.states
        return self.table[at], {"at": at}

    @property
    def own_params(self):
        return {"table": table(self.states, self.vocab_size)}

    def logits_behind(self, begin, tokens):
        """[V]: of the token behind `tokens`, whose first is BOS."""
        at = begin
        for position, token in enumerate(tokens):
            at = (at * 31 + token * 7 + position + 1) % self.states
        return table(self.states, self.vocab_size)[at].astype(float)

    def log_p(self, begin, tokens):
        return log_softmax(self.logits_behind(begin, tokens))


def log_softmax(x):
    x = np.asarray(x, float)
    top = x.max()
    return x - top - np.log(np.exp(x - top).sum())


def guided(model, begin, tokens, scale):
    """log of the guided distribution [V] over words that may be written."""
    with_picture, without = model.log_p(begin, tokens), model.log_p(0, tokens)
    score = log_softmax(without + scale * (with_picture - without))
    score[list(NEVER)] = -np.inf
    return score


def forbidden(scores, tokens, o, written):
    """What `Options` do to scores [V] behind `tokens`, of which `written` are no prompt's."""
    scores = scores.copy()
    for token in set(tokens) if o.repetition_penalty != 1 else ():
        value = scores[token]
        scores[token] = value * o.repetition_penalty if value < 0 else value / o.repetition_penalty
    size = o.no_repeat_ngram
    if size and len(tokens) >= size:
        end = tokens[len(tokens) - size + 1 :]
        for i in range(len(tokens) - size + 1):
            if tokens[i : i + size - 1] == end:
                scores[tokens[i + size - 1]] = -np.inf
    for word in o.banned:
        before = list(word[:-1])
        if not before or tokens[-len(before) :] == before:
            scores[word[-1]] = -np.inf
    if written < o.min_length:
        scores[EOS_ID] = -np.inf
    return scores


def greedy(model, begin, scale, o, steps):
    """The tokens of a caption, EOS included."""
    tokens = [BOS_ID]
    while len(tokens) <= steps and tokens[-1] != EOS_ID:
        scale_now = 1 + (scale - 1) * weight(o, len(tokens) - 1)
        # The loop's scores are logits here, whose sign a repetition penalty minds.
        with_picture, without = (model.logits_behind(x, tokens) for x in (begin, 0))
        score = without + scale_now * (with_picture - without) if scale != 1 else with_picture
        score[list(NEVER)] = -np.inf
        tokens.append(int(np.argmax(forbidden(score, tokens, o, len(tokens) - 1))))
    return tokens[1:]


def words(tokens):
    """A row of tokens up to its end, that included."""
    tokens = [int(token) for token in tokens]
    return tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens


def weight(o, position):
    """Of the guidance schedule."""
    given = o.guidance_schedule or (1.0,)
    return given[min(position, len(given) - 1)]


def contains(text, phrase, joins=()):
    """Whether a text [tokens] holds one of the phrase's alternatives as words of its own."""
    for alternative in map(list, phrase):
        for i in range(len(text) - len(alternative) + 1):
            end = i + len(alternative)
            begins = i == 0 or alternative[0] not in joins
            ends = end == len(text) or text[end] not in joins or text[end] == EOS_ID
            if begins and ends and text[i:end] == alternative:
                return True
    return False


def still_needed(text, wanted, joins=()):
    """Tokens that a text needs yet: all of the shortest alternative of each phrase that it lacks,
    less what is written of the one that saves most."""
    total, saved = 0, 0
    for phrase in wanted:
        if contains(text, phrase, joins):
            continue
        shortest = min(len(a) for a in phrase if a[0] not in joins)
        total += shortest
        for alternative in map(list, phrase):
            for done in range(1, min(len(alternative), len(text) + 1)):
                begins = done == len(text) or alternative[0] not in joins
                if begins and text[-done:] == alternative[:done]:
                    saved = max(saved, shortest - (len(alternative) - done))
    return total - saved


def beams(model, begin, scale, o, steps, wanted=(), joins=()):
    """The finished captions of a beam search, best first: [(score, log p, tokens)].

    One group; early_stopping False or "never". With `wanted`, phrases of alternatives, slots are
    shared between captions by what they still need.
    """
    width = o.num_beams
    under_way, pool = [(0.0, 0.0, [BOS_ID])], []
    phrase_tokens = {token for phrase in wanted for a in phrase for token in a}
    for step in range(steps):
        more = []
        for score, log_p, tokens in under_way:
            scale_now = 1 + (scale - 1) * weight(o, step)
            found = guided(model, begin, tokens, scale_now)
            found = forbidden(found, tokens, o, step)
            true = model.log_p(begin, tokens)
            here = still_needed([*tokens[1:], NEVER[0]], wanted, joins)
            options = []
            for token in range(model.vocab_size):
                text = [*tokens[1:], token]
                need = still_needed(text, wanted, joins)
                value = found[token]
                if token in phrase_tokens and need < here:
                    value = max(value, -1e5)
                if not np.isfinite(value) or need > steps - step - 1:
                    continue
                if token == EOS_ID and need:
                    continue
                options.append((score + value, log_p + true[token], [*tokens, token], need))
            plain = [m for m in options if m[2][-1] not in phrase_tokens]
            own = max(plain, key=lambda m: m[0], default=None)
            more += [(m, m is own) for m in options]
        more.sort(key=lambda item: -item[0][0])
        if wanted:
            plain = [item for item in more if item[0][2][-1] not in phrase_tokens]
            first = {id(m) for m, _ in plain[: 2 * width]}
            more = [
                m for m, is_own in more if id(m) in first or is_own or m[2][-1] in phrase_tokens
            ]
        else:
            more = [m for m, _ in more[: 2 * width]]
        last = step == steps - 1
        best = [m for m in more if m[3] == 0][:width]
        done = [m for m in best if m[2][-1] == EOS_ID or last]
        for score, log_p, tokens, _ in done:
            pool.append((score / (step + 1) ** o.length_penalty, log_p, tokens[1:]))
        pool = sorted(pool, key=lambda item: -item[0])[:width]
        on = [] if last else [m for m in more if m[2][-1] != EOS_ID]
        banks = {}
        for m in on:
            banks.setdefault(m[3], []).append(m)
        turns = [(place, need, m) for need, own in banks.items() for place, m in enumerate(own)]
        turns.sort(key=lambda turn: turn[:2])
        under_way = [m[:3] for _, _, m in turns[:width]]
        if not under_way:
            break
        length = steps if o.early_stopping == "never" and o.length_penalty > 0 else step + 1
        best = max(m[0] for m in under_way) / length**o.length_penalty
        if len(pool) == width and best <= pool[-1][0]:
            break
    return pool
