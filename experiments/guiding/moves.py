"""Ways of decoding that might move the frontier of greedy guidance, each over a few settings.

    greedy          one guidance scale for all words and pictures: guiding (arXiv 2307.16686)
    beams           beam search on the guided scores
    best_of_n       of n drawn captions the nearest to the picture in the space of the pretrained
                    captioner (CLIPScore's formula; not CLIP)
    schedules       the scale rises, falls, ends or begins along the caption
    stopping        a scale for each picture, by the rules of `stopping`
    other_captioner greedy guidance of another one: another null, another seed, a student

None of them looks at a reference. The values below were chosen before any of them was run.

Letters: N pictures, G scales, K draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from capjax.decode.captioner import Caption, Captioner
from capjax.decode.options import Options
from capjax.evals.encoder import Encoder
from capjax.metrics.clipscore import image_caption_cosine
from experiments.guiding import stopping

GREEDY = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0)
OTHERS = (1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5)  # of captioners that have their own curve
STUDENTS = (1.0, 1.2, 1.5)
BEAMS, BEAM_SCALES = 5, (1.1, 1.25, 1.5, 2.0)
DRAWS, DRAW_SCALES = (2, 4, 8), (1.0, 1.5, 2.0)
SCHEDULE_SCALES = (1.5, 2.0, 3.0, 4.0)
SCHEDULES = {  # how much of the guidance holds at each token, the last value for all that follow
    "rising": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "falling": (1.0, 0.8, 0.6, 0.4, 0.2, 0.0),
    "first six": (1.0,) * 6 + (0.0,),
    "after three": (0.0, 0.0, 0.0, 1.0),
}
SLACKS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)  # nats of log p(caption | picture)
QUANTILES = (0.2, 0.4, 0.6, 0.8)  # of the cosines of all greedy captions
BATCH = 200


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way of decoding, with the caption of each picture."""

    move: str
    label: str
    captions: Sequence[str]
    scale: float | None = None


class Writer:
    """Captions of N pictures, uint8 [N,S,S,3], by one captioner.

    blind: a picture [S,S,3] whose embedding the branch without a picture reads; None: the model's
    own, or zeros.
    """

    def __init__(self, model: Any, params: Any, tokenizer: Any, images: np.ndarray, blind=None):
        self.captioner = Captioner(model, params, tokenizer)
        self.context = np.concatenate(
            [self._context(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        )
        self.unconditional = None if blind is None else self._context(blind[None])

    def _context(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.captioner.encode(images).context)

    def write(self, scale: float, options: Options | None = None) -> list[list[Caption]]:
        """[N][K]: beams with the best first, draws as they come."""
        keys = jax.random.split(jax.random.key(0), len(self.context))
        written = []
        for start in range(0, len(self.context), BATCH):
            here = slice(start, start + BATCH)
            written += self.captioner.write_all(
                self.context[here],
                scale,
                options,
                rng=keys[here] if options is not None and options.sample else None,
                unconditional=self.unconditional,
            )
        return written

    def greedy(self, move: str, scales: Sequence[float], label: str = "") -> list[Setting]:
        """A setting for each scale."""
        return [
            Setting(move, f"{label}γ={scale:g}", texts(self.write(scale)), scale)
            for scale in scales
        ]


class Space:
    """How near captions are to their pictures, by an encoder that has seen these [N]."""

    def __init__(self, encoder: Encoder, images: np.ndarray):
        self.encoder, self.images = encoder, encoder.images(images)
        self._known: dict[str, np.ndarray] = {}  # settings share many captions

    def cosines(self, captions: Sequence[str]) -> np.ndarray:
        """[N] of one caption a picture."""
        new = sorted(set(captions) - self._known.keys())
        if new:
            self._known |= dict(zip(new, self.encoder.texts(new), strict=True))
        return image_caption_cosine(self.images, np.stack([self._known[c] for c in captions]))


def texts(groups: Sequence[Sequence[Caption]]) -> list[str]:
    """The first of each picture's captions."""
    return [group[0].text for group in groups]


def beams(writer: Writer) -> Iterator[Setting]:
    """Of the guided scores, each a log-softmax; the score of a caption is its mean a token."""
    for scale in BEAM_SCALES:
        found = writer.write(scale, Options(num_beams=BEAMS))
        yield Setting("beams", f"{BEAMS} beams γ={scale:g}", texts(found), scale)


def best_of_n(writer: Writer, space: Space) -> Iterator[Setting]:
    """The first n of one draw of the most, so that settings differ by n and not by chance."""
    for scale in DRAW_SCALES:
        drawn = writer.write(scale, Options(sample=True, samples=max(DRAWS)))
        columns = [[group[k].text for group in drawn] for k in range(max(DRAWS))]
        cosines = np.stack([space.cosines(column) for column in columns], 1)
        for n in DRAWS:
            best = cosines[:, :n].argmax(1)
            chosen = [group[k].text for group, k in zip(drawn, best, strict=True)]
            yield Setting("best of n", f"best of {n} γ={scale:g}", chosen, scale)


def schedules(writer: Writer) -> Iterator[Setting]:
    """Each schedule at each scale, which holds where its weight is 1."""
    for name, weights in SCHEDULES.items():
        for scale in SCHEDULE_SCALES:
            found = writer.write(scale, Options(guidance_schedule=weights))
            yield Setting("schedule", f"{name} γ={scale:g}", texts(found), scale)


def stopped(greedy: Sequence[Sequence[Caption]], space: Space, chosen: slice) -> Iterator[Setting]:
    """A scale for each picture. greedy: captions [G][N] at rising scales.

    Thresholds of the cosine are quantiles over the pictures that settings are chosen on.
    """
    columns = [[caption.text for caption in written] for written in greedy]
    likely = np.array([[caption.log_prob for caption in written] for written in greedy]).T
    near = np.stack([space.cosines(column) for column in columns], 1)
    for slack in SLACKS:
        yield _picked(columns, stopping.last_within(likely, slack), f"{slack:g} nats at most")
    for share in QUANTILES:
        threshold = float(np.quantile(near[chosen], share))
        found = stopping.first_reaching(near, threshold)
        yield _picked(columns, found, f"cosine {threshold:.2f} at least")


def _picked(columns: Sequence[Sequence[str]], scale: np.ndarray, label: str) -> Setting:
    chosen = [columns[g][i] for i, g in enumerate(scale)]
    return Setting("stopping rule", label, chosen)


def controls(greedy: Sequence[Setting], values: Mapping[str, np.ndarray]) -> Iterator[Setting]:
    """What the criterion must not call ahead, and what it must.

    A coin for each picture chooses between two scales: on the curve's own chord. A cheat takes for
    each picture the scale whose caption is best by both measures together; values: [G,N] of
    "cider" and "recall_at_1", which only who knows the references has.
    """
    columns = [setting.captions for setting in greedy]
    scales = [setting.scale for setting in greedy]
    coin = np.random.default_rng(0).integers(2, size=len(columns[0]))
    for low, high in ((1.2, 1.5), (1.4, 2.0)):
        ends = np.array([scales.index(low), scales.index(high)])
        found = _picked(columns, ends[coin], f"γ={low:g} or {high:g} by chance")
        yield dataclasses.replace(found, move="coin")
    both = sum(value / (value.std() or 1.0) for value in values.values())
    yield dataclasses.replace(_picked(columns, both.argmax(0), "best of all γ"), move="cheat")
