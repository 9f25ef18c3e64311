"""From a source of records to batches: shuffled and endless for training, in order for evaluation.

The training stream is a pure function of (seed, position): position p of the stream names a record
(each epoch is a new permutation of the source, or what its own `order` says) and seeds the
generator that chooses its caption, crop and flip. So the state of the iterator is one number, a
resumed run sees the very next example, and the stream does not depend on how many processes share
it: of each batch of B rows, process i of P prepares the rows [i B/P, (i+1) B/P).

A record that cannot be used is replaced by another one, drawn by the same generator, and counted
in a `SkipBudget` when its batch is handed out (not when a thread reads ahead), so that a run stops
at the same step however often it was resumed.

Letters: B examples of a process, S image side, L caption positions.
Raises `UserError` when more records are bad than the config allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from capjax.data import augment, images
from capjax.data.caption_choice import CaptionChoice
from capjax.data.order import Shuffled
from capjax.data.resize import leaves_squares
from capjax.data.skips import SkipBudget
from capjax.data.token_rows import TokenRows
from capjax.errors import BadRecord, UserError

NUMBERS = ("source", "class_id")  # of a record, for losses that ask where a pair comes from
_MAX_TRIES = 100  # draws at one position before the source counts as unusable


class Examples:
    """The endless stream of one process, by position: `examples[i]` is a dict of one example.

    image uint8 [S,S,3] (a record without a picture has none), tokens int32 [L], key str, all its
    captions, the record's `NUMBERS`, and `bad`: the records (key, reason) that were drawn at this
    position and could not be used.

    captions: fields of `caption_choice.CaptionChoice`. flip: half of the pictures are mirrored;
    with flip_sided=False only those whose caption speaks of no left or right. rand_augment: fields
    of `augment.rand_augment`; none without layers.
    """

    def __init__(
        self,
        source: Any,
        tokenizer: TokenRows,
        *,
        seed: int,
        batch_size: int,
        image_size: int,
        resize: str,
        crop_scale: tuple[float, float] | None = None,
        flip: bool = False,
        flip_sided: bool = True,
        captions: Mapping[str, Any] | None = None,
        rand_augment: Mapping[str, Any] | None = None,
        truncate: bool = False,
        max_tries: int = _MAX_TRIES,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if len(source) == 0:
            raise UserError("the training data has no records")
        if batch_size % process_count:
            raise UserError(
                f"{process_count} processes cannot share batch_size={batch_size}: make it a "
                f"multiple of {process_count}"
            )
        self.source, self.tokenizer = source, tokenizer
        self.batch_size, self.local_size = batch_size, batch_size // process_count
        self.first_row = process_index * self.local_size
        self.image_size, self.resize = image_size, resize
        self.crop_scale, self.truncate = crop_scale, truncate
        self.flip, self.flip_sided = flip, flip_sided
        self.captions = CaptionChoice(**(captions or {}))
        self.rand_augment = dict(rand_augment or {"layers": 0})
        if self.rand_augment["layers"]:
            augment.check(**self.rand_augment)
        self.max_tries = max_tries
        self.seed = seed
        own = getattr(source, "order", None)
        self._order = own(seed, batch_size) if own else Shuffled(len(source), seed)

    def __len__(self) -> int:
        return len(self._order) // self.batch_size * self.local_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch, row = divmod(int(index), self.local_size)
        position = batch * self.batch_size + self.first_row + row
        rng = np.random.default_rng((self.seed, position))
        record_index = self._order[position]
        bad: list[tuple[str, str]] = []
        while True:
            try:
                record, epoch = self.source[record_index], self._order.epoch(position)
                return {**self._example(record, rng, epoch), "bad": bad}
            except BadRecord as error:
                bad.append((error.key, error.reason))
            if len(bad) >= self.max_tries:
                # Left to the loader: it knows the budget, and whose turn it is to complain.
                return {"tokens": None, "key": bad[-1][0], "bad": bad}
            record_index = self._order.another(record_index, rng)

    def _example(
        self, record: dict[str, Any], rng: np.random.Generator, epoch: int
    ) -> dict[str, Any]:
        key = record["key"]
        caption = record["captions"][self.captions.index(record, rng, epoch)]
        try:
            tokens = self.tokenizer.encode(caption, truncate=self.truncate)
        except UserError as error:
            raise BadRecord(key, str(error)) from error
        numbers = {name: record[name] for name in NUMBERS if name in record}
        captions = list(record["captions"])
        example = {"tokens": tokens, "key": key, "captions": captions, **numbers}
        if "image" in record:
            example["image"] = self._image(record["image"], caption, rng)
        return example

    def _image(self, image: np.ndarray, caption: str, rng: np.random.Generator) -> np.ndarray:
        """The picture as it is trained on: uint8 [S,S,3]."""
        if self.crop_scale:
            image = images.random_resized_crop(image, self.image_size, rng, self.crop_scale)
        else:
            image = to_size(image, self.image_size, self.resize)
        mirrored = self.flip and rng.random() < 0.5
        if mirrored and (self.flip_sided or not augment.mentions_sides(caption)):
            image = images.flip(image)
        if self.rand_augment["layers"]:
            image = augment.rand_augment(image, rng, **self.rand_augment)
        return image


class TrainLoader:
    """Iterates over batches {"image": uint8 [B,S,S,3], "tokens": int32 [B,L], "key": list of str,
    "captions": list of lists of str, all of each record}.

    Records without pictures make batches without "image". Where records have numbers (`NUMBERS`),
    also these: int32 [B], -1 for a record without one.
    `state()` after a batch is the position right behind it, `restore(state)` goes there; the state
    is plain JSON. `num_threads` threads prepare examples ahead of the training loop.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        num_threads: int = 4,
        max_bad_fraction: float = 0.0,
    ):
        self._examples = examples
        self._num_threads = num_threads
        self._max_bad_fraction = max_bad_fraction
        self._iterator = None
        self.restore({"batches": 0, "bad": []})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._iterator is None:
            self._iterator = self._start()
        rows = [next(self._iterator) for _ in range(self._examples.local_size)]
        for row in rows:
            for key, reason in row["bad"]:
                if key not in self._bad:
                    self._bad[key] = reason
                self._budget.skip(key, reason)
            if row["tokens"] is None:
                raise UserError(
                    f"{len(row['bad'])} records in a row could not be used "
                    f"(last: {row['key']!r}: {row['bad'][-1][1]}); look at the data"
                )
        self._batches += 1
        pictured = [row["key"] for row in rows if "image" in row]
        if pictured and len(pictured) < len(rows):
            raise UserError(
                f"some records of the training data have a picture ({pictured[0]!r}) and others "
                "none: a batch must be of one kind, so make a mixture with single_source"
            )
        return {
            **({"image": np.stack([row["image"] for row in rows])} if pictured else {}),
            "tokens": np.stack([row["tokens"] for row in rows]),
            "key": [row["key"] for row in rows],
            "captions": [row["captions"] for row in rows],
            **{
                name: np.array([row.get(name, -1) for row in rows], np.int32)
                for name in NUMBERS
                if any(name in row for row in rows)
            },
        }

    @property
    def bad_records(self) -> int:
        """How many distinct records could not be used so far."""
        return len(self._bad)

    def state(self) -> dict[str, Any]:
        """Where the stream stands: the batches handed out, and the bad records met so far."""
        return {"batches": self._batches, "bad": [list(item) for item in self._bad.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where `state()` was taken."""
        self.close()
        self._batches = int(state["batches"])
        self._bad: dict[str, str] = {}
        self._budget = SkipBudget(len(self._examples.source), self._max_bad_fraction)
        for key, reason in state["bad"]:
            self._bad[key] = reason
            self._budget.skip(key, reason)

    def close(self) -> None:
        """Ends the threads."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> Any:
        import grain

        local = self._examples.local_size
        options = grain.ReadOptions(
            num_threads=self._num_threads,
            prefetch_buffer_size=max(2 * local, self._num_threads) if self._num_threads else 0,
        )
        stream = grain.MapDataset.source(self._examples).to_iter_dataset(options)
        iterator = iter(stream)
        iterator.set_state({"next_index": self._batches * local})
        return iterator


def eval_batches(
    source: Any,
    batch_size: int,
    image_size: int,
    resize: str,
    skips: SkipBudget | None = None,
) -> Iterator[dict[str, Any]]:
    """The records in order, each once: the last batch is filled up with black pictures.

    Yields {"image": uint8 [B,S,S,3], "key": list of B str, "captions": list of B lists of str,
    "mask": bool [B], False for filling}; filling has the key "" and no captions.
    A bad record raises `BadRecord`, or is left out and counted if `skips` is given.
    """
    for records in record_batches(source, batch_size, skips):
        missing = batch_size - len(records)
        yield {
            "image": stack_images(records, batch_size, image_size, resize),
            "key": [record["key"] for record in records] + [""] * missing,
            "captions": [list(r["captions"]) for r in records] + [[] for _ in range(missing)],
            "mask": np.arange(batch_size) < len(records),
        }


def record_batches(
    source: Any, batch_size: int, skips: SkipBudget | None = None, count: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Lists of up to `batch_size` records in order, of the first `count` (all unless given).

    A bad record raises `BadRecord`, or is left out and counted if `skips` is given.
    """
    records: list[dict[str, Any]] = []
    for index in range(len(source) if count is None else count):
        try:
            records.append(source[index])
        except BadRecord as error:
            if skips is None:
                raise
            skips.skip(error.key, error.reason)
            continue
        if len(records) == batch_size:
            yield records
            records = []
    if records:
        yield records


def stack_images(
    records: list[dict[str, Any]], batch_size: int, image_size: int, resize: str
) -> np.ndarray:
    """The records' pictures as uint8 [B,S,S,3], black beyond the last: nothing compiles twice."""
    images = np.zeros((batch_size, image_size, image_size, 3), np.uint8)
    for row, record in enumerate(records):
        images[row] = to_size(record["image"], image_size, resize)
    return images


def to_size(image: np.ndarray, size: int, rule: str) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [S,S,3]; where the rule leaves it as it is, it is passed on."""
    if image.shape[:2] == (size, size) and leaves_squares(rule):
        return image
    return images.resize(image, size, rule)
