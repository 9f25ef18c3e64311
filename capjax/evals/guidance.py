"""The guidance sweep: captions of a data set at several guidance scales, and what they score.

For every scale: BLEU, ROUGE-L and CIDEr against the references (agreement), and in a space of
pictures and texts CLIPScore, RefOnlyCLIPScore, RefCLIPScore and caption -> picture recall
(specificity); guiding, arXiv 2307.16686, section 4. The space is that of a separately trained
dual encoder (`encoder`, a run directory; columns `clipscore`, `recall_at_1`, ...) and the
captioner's own (`own_clipscore`, `own_recall_at_1`, ...), if it embeds pictures and texts.

Letters: N pictures, E embedding width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from tqdm import tqdm

from capjax.config import instantiate
from capjax.data.loader import record_batches, stack_images
from capjax.data.skips import SkipBudget
from capjax.decode.captioner import Caption, Captioner
from capjax.decode.guidance import check_scale
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.metrics import References, evaluate
from capjax.metrics.bootstrap import mean_interval
from capjax.metrics.clipscore import clip_score, harmonic_mean, ref_only_clip_score
from capjax.metrics.lengths import lengths
from capjax.metrics.retrieval import ranks, recall_from_ranks
from capjax.parallel.rows import get_rows

RECALLS = (1, 5, 10)
INTERVALS = ("cider", "clipscore", "recall_at_1", "own_clipscore", "own_recall_at_1")


@dataclasses.dataclass
class Sweep:
    """What a sweep found. Lists are in the order of `keys`."""

    rows: list[dict[str, Any]]  # one a scale: guidance_scale, metrics, intervals
    keys: list[str]
    captions: dict[float, list[Caption]]
    references: list[list[str]]
    pictures: list[np.ndarray]  # the first few, as the source gave them
    per_picture: dict[float, dict[str, np.ndarray]]  # scale -> metric -> [N]
    skipped: int  # records that could not be used


class Evaluator:
    """`run(params)` for the training loop's log; `sweep(params)` for a report.

    data: a source section ({name: import path, ...}); limit: at most so many of its records.
    guidance_scales: at least 0 each; at 0 the captioner is blind, at 1 it is not guided.
    encoder: a dual encoder's run directory, or "". text_prefix: what precedes every text that is
    embedded (the CLIPScore tool: "A photo depicts "). show: how many pictures a sweep keeps.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer,
        data: Mapping[str, Any],
        guidance_scales: Sequence[float] = (1.0,),
        encoder: str = "",
        text_prefix: str = "",
        batch_size: int = 64,
        resize: str = "squash",
        limit: int = 0,
        max_bad_fraction: float = 0.0,
        show: int = 24,
    ):
        if not guidance_scales:
            raise UserError("guidance_scales is empty: name at least one, such as 1.0")
        check_scale(guidance_scales, len(guidance_scales))
        self.model, self.tokenizer = model, tokenizer
        self.scales = tuple(float(scale) for scale in guidance_scales)
        self.batch_size, self.resize, self.limit = batch_size, resize, limit
        self.max_bad_fraction, self.show = max_bad_fraction, show
        self.text_prefix = text_prefix
        self.source = instantiate(data, "Source", where="the evaluator's data")
        self.encoder = _open_encoder(encoder) if encoder else None
        self._references: References | None = None  # counted once for all runs

    def run(self, params) -> dict[str, float]:
        """{metric@scale: value}, flat."""
        return {
            f"{name}@{row['guidance_scale']:g}": value
            for row in self.sweep(params, progress=False).rows
            for name, value in row.items()
            if isinstance(value, float) and name != "guidance_scale"
        }

    def sweep(self, params, progress: bool = True) -> Sweep:
        """Captions and scores at every scale."""
        captioner = Captioner(self.model, params, self.tokenizer)
        own = None
        if hasattr(type(self.model), "embed_text"):
            own = Encoder(self.model, params, self.tokenizer, self.batch_size)
        count = min(len(self.source), self.limit or len(self.source))
        skips = SkipBudget(count, self.max_bad_fraction)
        keys, references, pictures = [], [], []
        captions: dict[float, list[Caption]] = {scale: [] for scale in self.scales}
        own_images, encoder_images = [], []
        bar = tqdm(total=count, unit="picture", desc="captioning", disable=not progress)
        for records in record_batches(self.source, self.batch_size, skips, count):
            bar.update(len(records))
            side = self.model.image_size
            images = stack_images(records, self.batch_size, side, self.resize)
            features = captioner.encode(images)
            own_images.append(get_rows(features.embedding)[: len(records)])
            if self.encoder:
                encoder, resize = self.encoder
                sized = stack_images(records, len(records), encoder.model.image_size, resize)
                encoder_images.append(encoder.images(sized))
            for scale in self.scales:
                captions[scale] += captioner.write(features.context, scale)[: len(records)]
            keys += [record["key"] for record in records]
            references += [list(record["captions"]) for record in records]
            room = self.show - len(pictures)
            pictures += [record["image"] for record in records[:room]]
        bar.close()
        if not keys:
            raise UserError("no record of the evaluation data could be used")
        if self._references is None:
            self._references = References.from_captions(dict(zip(keys, references, strict=True)))
        spaces = {"own_": self._space(own, own_images, references)} if own else {}
        if self.encoder:
            spaces[""] = self._space(self.encoder[0], encoder_images, references)
        rows, per_picture = [], {}
        for scale in self.scales:
            row, values = self._score(keys, captions[scale], spaces)
            rows.append({"guidance_scale": scale, **row})
            per_picture[scale] = values
        return Sweep(rows, keys, captions, references, pictures, per_picture, skips.count)

    def _space(self, encoder: Encoder, images: list[np.ndarray], references) -> _Space:
        return _Space(encoder, self.text_prefix, np.concatenate(images), references)

    def _score(self, keys, captions: list[Caption], spaces: dict[str, _Space]):
        """One scale's row and its values a picture."""
        texts = [caption.text for caption in captions]
        scores = evaluate(dict(zip(keys, texts, strict=True)), self._references)
        row: dict[str, Any] = dict(scores.metrics)
        per_picture = {name: measure.per_image for name, measure in scores.measures.items()}
        for prefix, space in spaces.items():
            values, found = space.score(texts)
            per_picture |= {prefix + name: value for name, value in values.items()}
            row |= {prefix + name: float(np.mean(value)) for name, value in values.items()}
            recalls = recall_from_ranks(found, RECALLS)
            row |= {f"{prefix}recall_at_{k}": recall for k, recall in recalls.items()}
            per_picture[prefix + "recall_at_1"] = (found == 1).astype(float)
        row |= lengths(texts)
        row["truncated"] = float(np.mean([caption.truncated for caption in captions]))
        row["distinct_captions"] = float(len(set(texts)))
        row["intervals"] = {
            name: list(mean_interval(per_picture[name])[1:])  # low and high
            for name in INTERVALS
            if name in per_picture
        }
        return row, per_picture


class _Space:
    """A space of pictures and texts in which captions are scored: N pictures, E dimensions."""

    def __init__(
        self, encoder: Encoder, prefix: str, images: np.ndarray, references: list[list[str]]
    ):
        self.encoder, self.prefix, self.images = encoder, prefix, images
        embedded = self._embed([text for texts in references for text in texts])
        ends = np.cumsum([len(texts) for texts in references])
        self.references = np.split(embedded, ends[:-1])

    def score(self, texts: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """({metric: [N]}, rank of each caption's own picture among all, from 1)."""
        embedded = self._embed(texts)
        clip = clip_score(self.images, embedded)
        ref_only = ref_only_clip_score(embedded, self.references)
        values = {
            "clipscore": clip,
            "ref_only_clipscore": ref_only,
            "ref_clipscore": harmonic_mean(clip, ref_only),
        }
        return values, ranks(embedded, self.images, np.arange(len(texts)))

    def _embed(self, texts: list[str]) -> np.ndarray:
        return self.encoder.texts([self.prefix + text for text in texts])


def _open_encoder(directory: str) -> tuple[Encoder, str]:
    # Imported here: it reads checkpoints, which an evaluator without an encoder does not need.
    from capjax.runs import open_run

    run = open_run(directory)
    return Encoder(run.model, run.params, run.tokenizer), run.config.data.resize
