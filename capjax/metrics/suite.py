"""Every metric of caption files by its name: what `capjax.score` offers.

Beyond `METRICS`, which need candidates and references alone:
  tuple_f     F-score of scene-graph tuples, called tuple_f[parser]; needs a parser
  spider      the mean of CIDEr-D and tuple_f, called spider[parser], never SPIDEr; needs a parser
  chair       chair_i, chair_s, object_recall; needs the objects of each picture
  diversity   distinct n-grams, vocabulary, unique captions; novelty with training captions
  lengths     words and characters a caption
  self_bleu   likeness of an image's candidates, self_bleu_n and mbleu_n; needs several

An image may have several candidates, equally many each. Metrics of one caption are then computed
for the first candidates of all images, for the second ones, and so on, and `pick` says what becomes
of these K:
  first       the first candidates' value, as if there were no others
  mean        the mean of the K values of the corpus: what one draw is worth (`cider_mean`)
  max         each image by its best candidate, which only who knows the references can choose: the
              oracle, best of n (`cider_max`); min by its worst. Corpus values are means over images
              then, also BLEU's. spider picks the candidate: spider_max comes with its parts there
Metrics of all candidates together (diversity, lengths, self_bleu) ignore it.

Legend: N images, K candidates of each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from capjax.errors import UserError
from capjax.metrics import METRICS, Candidates, Metric, References, Scores
from capjax.metrics.chair import chair
from capjax.metrics.cider import cider
from capjax.metrics.diversity import diversity, length_measures
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.object_words import ObjectVocabulary
from capjax.metrics.references import Tokens
from capjax.metrics.scene_graph import Parser
from capjax.metrics.self_bleu import mbleu, self_bleu
from capjax.metrics.spider import StandIn, best_of, measure, spider_max, values_of
from capjax.metrics.tuple_f import tuple_f

ALL = (*METRICS, "tuple_f", "spider", "chair", "diversity", "lengths", "self_bleu")


@dataclass(frozen=True)
class Suite:
    """Metrics by name, and what some of them need.

    Attributes:
      metrics: some of `ALL`.
      parser: of scene graphs.
      objects: the vocabulary and, in the order of the references, the true objects of each image.
      training: the tokens of the training captions.
      pick: what is done with several candidates: first, mean, max or min.
    """

    metrics: Sequence[str]
    parser: Parser | None = None
    objects: tuple[ObjectVocabulary, list[set[str]]] | None = None
    training: Sequence[Tokens] | None = None
    pick: str | None = None

    def __post_init__(self):
        """Raises UserError for an unknown metric, or one that lacks what it needs."""
        for name in self.metrics:
            if name not in ALL:
                raise UserError(f"unknown metric {name!r}: there are {', '.join(ALL)}")
            if name in ("tuple_f", "spider") and self.parser is None:
                raise UserError(f"{name} needs a scene-graph parser: name one (--parser)")
            if name == "chair" and self.objects is None:
                raise UserError("chair needs an object vocabulary: give its file (--objects)")

    def score(
        self,
        candidates: Mapping[Hashable, Sequence[str]],
        references: References,
        done: Callable[[str], object] = lambda name: None,
    ) -> Scores:
        """All metrics of {image id: its candidates}; `done` hears the name of each when it is made.

        Raises:
          UserError: ids that do not match, images with different numbers of candidates, several
            candidates without a `pick`, or one where several are needed.
        """
        columns = references.align_several(candidates)
        if len(columns) > 1 and self.pick is None and set(self.metrics) - _OF_SETS:
            raise UserError(
                f"images have {len(columns)} candidates: say with pick (--pick) whether the first"
                " one's value, or the mean, max or min of all is wanted"
            )
        measures: dict[str, Measure] = {}
        for name in self.metrics:
            if name in _OF_SETS:
                measures |= self._of_set(name, columns, [candidates[i] for i in references.ids])
            elif len(columns) == 1 or self.pick == "first":
                measures |= self._of_one(name)(columns[0])
            elif name == "spider" and self.pick == "max":
                measures |= self._spider_max(columns)
            else:
                measures |= _picked(self._of_one(name), columns, self.pick)
            done(name)
        return Scores(references.ids, measures)

    def _of_one(self, name: str) -> Metric:
        """A metric of one candidate an image."""
        if name == "tuple_f":
            return lambda one: {f"tuple_f[{self.parser.name}]": tuple_f(one, self.parser)}
        if name == "spider":
            return lambda one: measure(
                cider(one), StandIn(self.parser.name, tuple_f(one, self.parser).per_image)
            )
        if name == "chair":
            vocabulary, truth = self.objects
            return lambda one: chair(one.tokens, truth, vocabulary).measures
        return METRICS[name]

    def _of_set(
        self, name: str, columns: Sequence[Candidates], captions: Sequence[Sequence[str]]
    ) -> dict[str, Measure]:
        """A metric of all candidates of an image together."""
        if name == "lengths":
            return length_measures(captions)
        tokens = [list(of_image) for of_image in zip(*(c.tokens for c in columns), strict=True)]
        if name == "diversity":
            return diversity(tokens, self.training)
        return self_bleu(tokens) | mbleu(tokens)

    def _spider_max(self, columns: Sequence[Candidates]) -> dict[str, Measure]:
        half = values_of(columns, partial(tuple_f, parser=self.parser))
        return spider_max(values_of(columns, cider), StandIn(self.parser.name, half)).measures()


_OF_SETS = {"diversity", "lengths", "self_bleu"}


def _picked(metric: Metric, columns: Sequence[Candidates], pick: str) -> dict[str, Measure]:
    """One value of each image from those of its candidates."""
    of_each = [metric(column) for column in columns]
    if pick == "mean":
        return {
            f"{name}_mean": _mean([measures[name] for measures in of_each]) for name in of_each[0]
        }
    return {
        f"{name}_{pick}": mean_of(
            best_of(np.stack([measures[name].per_image for measures in of_each], axis=1), pick)
        )
        for name in of_each[0]
    }


def _mean(measures: Sequence[Measure]) -> Measure:
    """Of the corpora that several measures are about."""
    return Measure(
        np.mean([measure.per_image for measure in measures], axis=0),
        lambda weights: float(np.mean([measure.corpus(weights) for measure in measures])),
        any(measure.distinct for measure in measures),
    )
