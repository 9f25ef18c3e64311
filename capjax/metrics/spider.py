"""SPIDEr and SPIDEr-max: CIDEr-D averaged with SPICE, and its best value among several candidates.

SPIDEr: Liu et al., "Improved Image Captioning via Policy Gradient Optimization of SPIDEr", ICCV
2017. SPIDEr-max: Labbe et al., "Is my automatic audio captioning system so bad? SPIDEr-max: a
metric to consider several caption candidates", DCASE 2022.

    beams = {"clip 1": ["a dog barks", "a dog is barking"], ...}          K candidates an image
    columns = references.align_several(beams)
    ciders = values_of(columns, cider)
    half = StandIn(parser.name, values_of(columns, partial(tuple_f, parser=parser)))
    best = spider_max(ciders, half)
    best.measures()                        {"spider_max[spacy]": ..., "cider_d_max[spacy]": ...}

Each candidate is scored in its own pass over the whole corpus, so document frequencies come from
the references alone and candidates do not influence one another. Values are in the natural scale
of CIDEr-D (0 to 10) and SPICE (0 to 1).

The names `spider` and `spider_max` belong to values whose second half is SPICE itself (`Spice`);
with anything else (`StandIn`) the names end in its label in brackets.

Legend: N images, K candidates of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from capjax.errors import UserError
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.references import Candidates

ImageMetric = Callable[[Candidates], Measure | np.ndarray]  # the array: of each image, [N]

PICKS: dict[str, Callable[..., np.ndarray]] = {"max": np.max, "min": np.min, "mean": np.mean}


@dataclass(frozen=True)
class Spice:
    """Values of the SPICE program itself, [N] or [N, K]."""

    values: np.ndarray

    def key(self, name: str) -> str:
        """The name of a result that rests on these values."""
        return name

    @property
    def half_key(self) -> str:
        return "spice_max"


@dataclass(frozen=True)
class StandIn:
    """Values of something else in the place of SPICE, [N] or [N, K], with its label.

    Raises:
      UserError: a label that is empty, or that claims to be SPICE.
    """

    label: str
    values: np.ndarray

    def __post_init__(self):
        if not self.label.strip() or set("[]") & set(self.label):
            raise UserError(
                f"{self.label!r} cannot label what stands in for SPICE: give the name of the"
                " scene-graph parser or metric, without brackets"
            )
        if self.label.strip().lower() == "spice":
            raise UserError(
                "what stands in for SPICE cannot be labelled 'spice': name its parser or metric,"
                " or hand in values of the SPICE program itself as Spice(values)"
            )

    def key(self, name: str) -> str:
        """The name of a result that rests on these values."""
        return f"{name}[{self.label}]"

    @property
    def half_key(self) -> str:
        return f"{self.label}_max"


@dataclass(frozen=True)
class SpiderMax:
    """The best candidate of each image.

    Attributes:
      spider: float64 [N, K].
      best: int64 [N], the candidate of the largest SPIDEr, the first of equals.
      cider: float64 [N], CIDEr-D of that candidate, not the largest CIDEr-D.
      half: the other half, with its values [N] at that candidate.
    """

    spider: np.ndarray
    best: np.ndarray
    cider: np.ndarray
    half: Spice | StandIn

    def measures(self) -> dict[str, Measure]:
        """`spider_max`, `cider_d_max` and the other half, with the label in their names."""
        return {
            self.half.key("spider_max"): mean_of(self.spider.max(axis=1)),
            self.half.key("cider_d_max"): mean_of(self.cider),
            self.half.half_key: mean_of(self.half.values),
            self.half.key("spider_spread"): mean_of(spread(self.spider)),
        }


def spider(cider: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean of both halves, of any equal shape; a number without a name (see `measure`)."""
    cider, other = np.asarray(cider, np.float64), np.asarray(other, np.float64)
    if cider.shape != other.shape:
        raise UserError(
            f"CIDEr-D values {cider.shape} and the other half of SPIDEr {other.shape} differ in"
            " shape: both need one value for the same captions"
        )
    return (cider + other) / 2


def measure(cider: np.ndarray, half: Spice | StandIn) -> dict[str, Measure]:
    """SPIDEr of one candidate an image, [N] each, by its name.

    Raises:
      UserError: as `spider_max`.
    """
    values = spider(cider, _checked(half).values)
    _require_images(values, 1)
    return {half.key("spider"): mean_of(values)}


def spider_max(cider: np.ndarray, half: Spice | StandIn) -> SpiderMax:
    """The best of K candidates of each image.

    Args:
      cider: CIDEr-D, [N, K].
      half: the values of SPICE or of what stands in for it, [N, K].

    Raises:
      UserError: bare values, from which no name follows; shapes that differ; fewer than 2 images;
        values that are not finite.
    """
    values = spider(cider, _checked(half).values)
    _require_images(values, 2)
    best = values.argmax(axis=1)

    def at_best(of: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.asarray(of, np.float64), best[:, None], axis=1)[:, 0]

    chosen = at_best(half.values)
    half = Spice(chosen) if isinstance(half, Spice) else StandIn(half.label, chosen)
    return SpiderMax(values, best, at_best(cider), half)


def best_of(values: np.ndarray, pick: str = "max") -> np.ndarray:
    """The value of each image by any metric [N, K]: `max`, `min` or `mean` over candidates: [N].

    Raises:
      UserError: another `pick`, or values that are not [N, K].
    """
    if pick not in PICKS:
        raise UserError(f"cannot pick {pick!r} of several candidates: choose {', '.join(PICKS)}")
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise UserError(
            f"values of several candidates must be [images, candidates], not {values.shape}"
        )
    return PICKS[pick](values, axis=1)


def spread(values: np.ndarray) -> np.ndarray:
    """How far the candidates of each image lie apart, largest minus smallest: [N, K] -> [N]."""
    return best_of(values, "max") - best_of(values, "min")


def values_of(columns: Sequence[Candidates], metric: ImageMetric) -> np.ndarray:
    """Any metric of each of K candidates an image: float64 [N, K], in the order of the references.

    `columns` are the first candidates of all images, the second ones, ... (`align_several`). A
    caption without words scores 0, whatever the metric says, with a warning.

    Raises:
      UserError: a metric that does not give one value an image.
    """
    values = []
    for k, aligned in enumerate(columns):
        result = metric(aligned)
        values.append(np.array(getattr(result, "per_image", result), np.float64))
        references = aligned.references
        if values[-1].shape != (len(references),):
            raise UserError(
                f"the metric gave values of shape {values[-1].shape} for {len(references)} images:"
                " it must give one each"
            )
        empty = np.array([not tokens for tokens in aligned.tokens])
        values[-1][empty] = 0.0
        if empty.any():
            first = references.ids[int(empty.argmax())]
            warnings.warn(
                f"candidate {k} of {empty.sum()} images, the first {first!r}, has no words: it"
                " scores 0",
                stacklevel=2,
            )
    return np.stack(values, axis=1)


def _checked(half: Spice | StandIn) -> Spice | StandIn:
    if not isinstance(half, (Spice, StandIn)):
        raise UserError(
            "bare values cannot be called SPIDEr: hand in Spice(values) if the SPICE program made"
            " them, else StandIn(label, values)"
        )
    return half


def _require_images(values: np.ndarray, dimensions: int) -> None:
    if values.ndim != dimensions or not values.size:
        shape = "[images]" if dimensions == 1 else "[images, candidates]"
        raise UserError(f"SPIDEr needs values {shape}, not of shape {values.shape}")
    if len(values) < 2:
        raise UserError(
            "SPIDEr needs at least 2 images: the document frequencies of CIDEr-D are undefined for"
            f" {len(values)}"
        )
    if not np.all(np.isfinite(values)):
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise UserError(
            f"SPIDEr at {place} (image, candidate; from 0) is not a finite number: check both"
            " halves"
        )
