"""From pictures to caption strings: a trained captioner with its tokenizer.

    context = captioner.encode(pictures).context       once for all that is written about them
    captioner.write(context, 2.0)                      one caption of each picture
    captioner.write_all(context, 2.0, Options(sample=True, samples=5), rng=key)     five of each
    captioner.write(context, 2.0, Options(num_beams=8), must_contain=["red", ("sofa", "couch")])
    best_of(captions, scorer)                          the best of each picture's by any measure

Letters: B pictures, S side in pixels, C context tokens, E embedding width, K captions of a
picture, P tokens of the longest prompt.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from capjax.decode import phrases, words
from capjax.decode.companion import Companion
from capjax.decode.options import Options
from capjax.decode.search import Found, search
from capjax.decode.words import Phrase
from capjax.errors import UserError
from capjax.models.coca import ImageFeatures
from capjax.parallel.rows import get_rows, put_rows


class TokenScore(NamedTuple):
    """One token of a caption. Log-probabilities in nats, both behind the same words."""

    text: str  # what it adds to the caption; "" for the end
    log_prob: float  # log p(token | picture)
    unconditional: float | None  # log p(token) without the picture; None: that branch was not run

    @property
    def information(self) -> float | None:
        """What the picture says for the token, log p(token | picture) - log p(token): guidance
        favours the tokens where it is large."""
        return None if self.unconditional is None else self.log_prob - self.unconditional


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption as it was decoded."""

    text: str  # the prompt included
    log_prob: float  # log p(text | picture) of the conditional branch alone, in nats
    score: float  # what was searched for: guided, and of beams divided by length ** length_penalty
    truncated: bool  # it reached the longest length without an end
    tokens: tuple[TokenScore, ...] = ()  # with Options.keep_scores, up to the end, it included


@functools.partial(jax.jit, static_argnums=0)
def encode_image(model: nn.Module, params, image: jax.Array) -> ImageFeatures:
    """uint8 [B,S,S,3] -> embedding [B,E] and context [B,C,E]."""
    return model.apply({"params": params}, image, method="encode_image")


class Captioner:
    """Captions of pictures at any guidance scale, by any search of `Options`.

    A picture is encoded once for all of its scales. UserError for a model that cannot write.
    """

    def __init__(self, model: nn.Module, params, tokenizer):
        if not hasattr(model, "decode_step"):
            raise UserError(
                f"the model {type(model).__module__} writes no captions: "
                "give a captioner's run, such as one of capjax.models.coca"
            )
        self.model, self.params, self.tokenizer = model, params, tokenizer

    def encode(self, image: np.ndarray) -> ImageFeatures:
        """uint8 [B,S,S,3] -> features on the device; rows are split over all devices."""
        return encode_image(self.model, self.params, put_rows(image, self.params))

    def write(self, context: Any, *args: Any, **kwargs: Any) -> list[Caption]:
        """The best caption of each picture: of beams by their score, of samples the likeliest.

        The arguments are those of `start`.
        """
        return [group[0] for group in self._best_first(context, *args, **kwargs)]

    def write_all(self, context: Any, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        """All captions of each picture: beams with the best first, samples as they were drawn.

        The arguments are those of `start`.
        """
        return self.start(context, *args, **kwargs)()

    def start(
        self,
        context: Any,
        guidance_scale: float | Sequence[float] = 1.0,
        options: Options | None = None,
        *,
        rng: jax.Array | None = None,
        unconditional: Any = None,
        prompt: str | Sequence[str] = "",
        companion: Companion | None = None,
        must_contain: Sequence[Phrase] | Sequence[Sequence[Phrase]] = (),
    ) -> Callable[[], list[list[Caption]]]:
        """Begins to write on the device; the function that it gives waits for the captions [B][K].

        context: [B,C,E] of `encode`; guidance_scale: one number, or one a picture; rng: a key or
        keys [B], for sampling; unconditional: what the branch without a picture reads, [B,C,E] or
        [1,C,E] for all, if not what the model has for it; prompt: what captions begin with, one
        text or one for each picture; companion: another model that has a say; must_contain: phrases
        that beams must write, each a text or a tuple of alternatives, with or without a capital:
        the same for all pictures, or a list of phrases for each.

        Raises UserError for what `search` refuses, and a companion with another vocabulary.
        """
        options = options or Options()
        batch = len(jax.tree.leaves(context)[0])
        self._check_vocabulary(companion)
        rows, lengths = self._prompt_rows(prompt, batch)
        found = search(
            self.model,
            self.params,
            context,
            guidance_scale,
            options,
            rng=rng,
            unconditional=unconditional,
            prompt=rows,
            prompt_length=lengths,
            companion=companion,
            phrases=self._phrases(must_contain, batch),
        )
        # As in `search`: without guidance the other branch is not run, and its scores are zeros.
        blind = companion is not None and companion.needs_unconditional
        guided = blind or bool(np.any(np.asarray(guidance_scale) != 1))
        return lambda: self._captions(found, rows, guided)

    def _best_first(self, context: Any, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        written = self.write_all(context, *args, **kwargs)
        options = kwargs.get("options", args[1] if len(args) > 1 else None)
        if options is None or not options.sample:
            return written
        return [[caption] for caption, _ in best_of(written)]

    def _check_vocabulary(self, companion: Companion | None) -> None:
        if companion is None:
            return
        own, other = self.model.vocab_size, companion.model.vocab_size
        if own != other:
            raise UserError(
                f"the companion's vocabulary has {other} tokens and the captioner's {own}: give a "
                "model that was trained with the captioner's tokenizer"
            )

    def _prompt_rows(self, prompt: str | Sequence[str], batch: int):
        """(int32 [B,P], lengths [B]), or (None, None) where no picture has a prompt."""
        texts = [prompt] * batch if isinstance(prompt, str) else list(prompt)
        if len(texts) != batch:
            raise UserError(f"{len(texts)} prompts for {batch} pictures: give one, or one for each")
        ids = [self.tokenizer.ids(text) if text.strip() else [] for text in texts]
        longest = max(map(len, ids), default=0)
        if not longest:
            return None, None
        rows = np.zeros((batch, longest), np.int32)
        for row, own in zip(rows, ids, strict=True):
            row[: len(own)] = own
        return rows, np.array([len(own) for own in ids])

    @functools.cached_property
    def _joins(self) -> np.ndarray:
        return words.joining(self.tokenizer)

    def _phrases(self, must_contain: Sequence[Any], batch: int) -> phrases.Phrases | None:
        each = list(must_contain)
        if not any(isinstance(own, list) for own in each):
            each = [each] * batch
        elif not all(isinstance(own, list) for own in each) or len(each) != batch:
            raise UserError(
                f"must_contain has {len(each)} entries, some of them lists, for {batch} pictures: "
                "give phrases for all, or a list of phrases for each; alternatives are a tuple"
            )
        if not any(each):
            return None
        wanted = [[self._spellings(phrase) for phrase in own] for own in each]
        size = self.model.vocab_size
        joins = np.zeros(size, bool)
        joins[: len(self._joins)] = self._joins[:size]
        return phrases.make(wanted, size, self.tokenizer.special_tokens, joins)

    def _spellings(self, phrase: Phrase) -> list[tuple[int, ...]]:
        unknown = self.tokenizer.special_tokens.never_written
        ways = words.spellings(self.tokenizer, phrase)
        known = [way for way in ways if not set(way) & set(unknown)]
        if not known:
            raise UserError(
                f"the tokenizer does not know the phrase {phrase!r}, which captions must contain: "
                "choose other words"
            )
        return known

    def _captions(self, found: Found, prompt: np.ndarray | None, guided: bool):
        found = get_rows(found)
        special = self.tokenizer.special_tokens
        # Where there is no BOS the prompt's first token took its place, and does not come back.
        lost = prompt is not None and special.bos is None
        written = []
        for b, rows in enumerate(found.tokens):
            begun = [int(prompt[b, 0])] if lost else []
            group = []
            for k, row in enumerate(rows):
                scores = None if found.token_scores is None else found.token_scores[b, k]
                group.append(
                    Caption(
                        self.tokenizer.decode([*begun, *row.tolist()]),
                        float(found.log_prob[b, k]),
                        float(found.score[b, k]),
                        bool(found.truncated[b, k]),
                        () if scores is None else self._token_scores(begun, row, scores, guided),
                    )
                )
            written.append(group)
        return written

    def _token_scores(self, begun: list[int], row: np.ndarray, scores: np.ndarray, guided: bool):
        ends = np.flatnonzero(row == self.tokenizer.special_tokens.eos)
        length = int(ends[0]) + 1 if len(ends) else len(row)
        told, before = [], self.tokenizer.decode(begun)
        for end in range(1, length + 1):
            # A piece alone has lost the space before it, so whole beginnings are compared.
            text = self.tokenizer.decode([*begun, *row[:end].tolist()])
            picture, blind = map(float, scores[end - 1])
            told.append(TokenScore(_added(before, text), picture, blind if guided else None))
            before = text
        return tuple(told)


def _added(before: str, text: str) -> str:
    """What stands in `text` behind the beginning that it shares with `before`."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, text, strict=False))
    return text[sum(1 for _ in same) :]


def likelihood(captions: Sequence[Sequence[Caption]]) -> np.ndarray:
    """[B,K]: log p(caption | picture) of each."""
    return np.array([[caption.log_prob for caption in group] for group in captions])


def best_of(
    captions: Sequence[Sequence[Caption]],
    scorer: Callable[[Sequence[Sequence[Caption]]], np.ndarray] = likelihood,
) -> list[tuple[Caption, float]]:
    """Of each picture's captions [B][K] the one that `scorer` gives most, and how much; of equal
    ones the first.

    scorer: captions [B][K] -> numbers [B,K]. UserError where these are of another shape or NaN.
    """
    if not captions:
        return []
    values = np.asarray(scorer(captions), float)
    shape = (len(captions), len(captions[0]))
    if values.shape != shape or np.isnan(values).any():
        raise UserError(
            f"the scorer of captions gave {'NaN' if values.shape == shape else values.shape} where "
            f"{shape} numbers are due: one for each caption of each picture"
        )
    return [
        (group[row.argmax()], float(row.max())) for group, row in zip(captions, values, strict=True)
    ]
