"""Captioning at the scale of data sets: any source, all devices, several guidance scales at once.

    source --threads--> batches --device: encode once, decode each scale--> rows --> parts

While the device writes about one batch, the threads prepare the next ones and the captions of the
one before become text. A picture's row depends on the picture, its key and the request: not on how
the work is split over batches, hosts or interrupted runs. (Floating-point sums may differ in their
last digits between devices of different kinds and numbers, as they always do.)

Letters: B pictures of a batch, K captions of a picture.
Raises `UserError` when more pictures are bad than the budget allows.
"""

from __future__ import annotations

import collections
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from capjax.data.skips import SkipBudget
from capjax.decode.bulk_parts import Parts
from capjax.decode.bulk_pictures import Batch, Size, batches
from capjax.decode.bulk_request import Request
from capjax.decode.captioner import Caption, Captioner, best_of, likelihood
from capjax.parallel.rows import on_devices

Row = dict[str, Any]


def rows_of(
    captioner: Captioner, size: Size, request: Request, prepared: Iterable[Batch]
) -> Iterator[tuple[Batch, list[Row]]]:
    """Each batch with its rows: of each picture in order, of each scale in order, its captions.

    The first images of a batch are of `size`, the captioner's; the next ones the scorer's.
    """
    under_way: collections.deque = collections.deque()
    for batch in prepared:
        under_way.append((batch, _begin(captioner, request, batch)))
        if len(under_way) > 1:
            batch, finish = under_way.popleft()
            yield batch, finish()
    while under_way:
        batch, finish = under_way.popleft()
        yield batch, finish()


def picture_keys(seed: int, keys: Sequence[str]) -> jax.Array:
    """JAX keys [B], each made of the seed and its picture's key (by CRC-32, zlib's) alone."""
    sums = np.array([zlib.crc32(key.encode("utf-8", "surrogatepass")) for key in keys], np.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(sums))


def on_all_devices(params: Any) -> Any:
    """Parameters repeated on every device of this process, so that rows are split over them."""
    return on_devices(params, jax.local_devices())


def whole_batch(batch_size: int, pictures: int) -> int:
    """The size of batches: no more than there are pictures, and a multiple of the devices."""
    devices = jax.local_device_count()
    return math.ceil(min(batch_size, max(pictures, 1)) / devices) * devices


class Job:
    """All pictures of a source by one captioner.

    resize: the rule by which the captioner's pictures are made square; batch_size: pictures at a
    time on all devices together; threads: that decode them; max_bad_fraction: share of the
    pictures that may be unusable before the job stops.
    """

    def __init__(
        self,
        captioner: Captioner,
        source: Any,
        request: Request,
        *,
        resize: str,
        batch_size: int = 16,
        threads: int = 8,
        max_bad_fraction: float = 0.05,
        progress: bool = True,
    ):
        self.captioner, self.source, self.request = captioner, source, request
        self.size = Size(captioner.model.image_size, resize)
        self.batch_size, self.threads = batch_size, threads
        self.max_bad_fraction, self.progress = max_bad_fraction, progress

    def rows(self, bad: dict[str, str] | None = None) -> Iterator[Row]:
        """The rows of the whole source, one by one; `bad` is told which pictures have none."""
        skips = SkipBudget(len(self.source), self.max_bad_fraction)
        count = len(self.source)
        for batch, rows in self._run({0: range(count)}, skips, count, longest=count):
            if bad is not None:
                bad |= batch.bad
            yield from rows

    def fill(self, parts: Parts) -> int:
        """Writes the parts that are missing; how many pictures were captioned by that."""
        skips = SkipBudget(parts.records, self.max_bad_fraction)
        for key, reason in parts.known_bad().items():
            skips.skip(key, reason)
        rows: list[Row] = []
        bad: dict[str, str] = {}
        captioned = 0
        for batch, found in self._run(parts.missing, skips, parts.records, parts.longest):
            rows += found
            bad |= batch.bad
            captioned += len(batch.keys)
            if batch.ends_part:
                parts.write(batch.part, rows, bad)
                rows, bad = [], {}
        return captioned

    def _run(self, parts: dict[int, range], skips: SkipBudget, total: int, longest: int):
        left = sum(map(len, parts.values()))
        scorer = self.request.scorer
        sizes = [self.size] + ([scorer.size] if scorer else [])
        # Of the longest part there is, not of those that are left: the same batches every time.
        size = whole_batch(self.batch_size, longest)
        prepared = batches(self.source, parts, sizes, size, self.threads)
        # Work that was there before must not count as speed, which `initial` sees to.
        shown = self.progress and total > 1
        with tqdm(total=total, initial=total - left, unit="picture", disable=not shown) as bar:
            try:
                for batch, rows in rows_of(self.captioner, self.size, self.request, prepared):
                    for key, reason in batch.bad.items():
                        skips.skip(key, reason)
                    yield batch, rows
                    bar.update(len(batch.keys) + len(batch.bad))
            finally:
                prepared.close()


def _begin(captioner: Captioner, request: Request, batch: Batch) -> Callable[[], list[Row]]:
    """Sets the device to work; the function that it gives waits for the rows."""
    if not batch.keys:
        return list
    filled = [*batch.keys, *batch.keys[:1] * (len(batch.images[0]) - len(batch.keys))]
    keys = picture_keys(request.seed, filled) if request.options.sample else None
    context = captioner.encode(batch.images[0]).context
    written = [
        captioner.start(
            context,
            scale,
            request.options,
            rng=keys,
            prompt=request.prompt,
            must_contain=request.must_contain,
        )
        for scale in request.scales
    ]
    return lambda: _rows(request, batch, [captions() for captions in written])


def _rows(request: Request, batch: Batch, written: list[list[list[Caption]]]) -> list[Row]:
    """written: captions of each scale [B][K]."""
    each = [_chosen(request, batch, captions[: len(batch.keys)]) for captions in written]
    return [
        {"image": key, "guidance_scale": scale, **row}
        for place, key in enumerate(batch.keys)
        for scale, rows in zip(request.scales, each, strict=True)
        for row in rows[place]
    ]


def _chosen(request: Request, batch: Batch, captions: list[list[Caption]]) -> list[list[Row]]:
    """What is kept of each picture's captions."""
    if request.scorer:
        found = best_of(captions, lambda groups: request.scorer(batch.images[1], groups))
        name = request.scorer.name
        return [
            [_row(caption) | {name: _number(request.scorer.shown(value))}]
            for caption, value in found
        ]
    if request.likeliest:
        return [[_row(caption)] for caption, _ in best_of(captions, likelihood)]
    if request.all_samples:
        return [[_row(one) | {"sample": k} for k, one in enumerate(group)] for group in captions]
    return [[_row(group[0])] for group in captions]  # of beams the best


def _row(caption: Caption) -> Row:
    return {
        "caption": caption.text,
        "log_prob": _number(caption.log_prob),
        "score": _number(caption.score),
        "truncated": caption.truncated,
    }


def _number(value: float) -> float | None:
    """To four places; JSON has no infinity, which is the score of what every rule forbids."""
    return round(value, 4) if math.isfinite(value) else None
