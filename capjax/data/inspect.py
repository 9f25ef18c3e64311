"""What a source holds: counts, fields, caption lengths, records that fail, and a page to look at.

Every record's captions are read; pictures are decoded of a sample spread over the set, or of all.

N: records.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from capjax.errors import BadRecord, UserError
from capjax.whole_file import whole_file

_SHOWN = 60  # pictures on the page
_SIDE = 192  # pixels of a picture's longer side there
_BAR = 40  # characters of the longest bar of a histogram


@dataclasses.dataclass
class Findings:
    """Of one source."""

    records: int
    looked_at: int  # records whose pictures were decoded
    fields: dict[str, int]  # field -> how many of these have it
    captions: int
    words: dict[int, int]  # words of a caption -> how many captions
    captions_each: dict[int, int]  # captions of a record -> how many records
    sizes: list[tuple[int, int]]  # (height, width) of the decoded pictures
    failures: dict[str, str]  # key -> reason
    samples: list[dict[str, Any]]  # a few records

    def text(self) -> str:
        """For the terminal."""
        lines = [f"{self.records:,} records, {self.captions:,} captions"]
        names = ", ".join(f"{name} ({count})" for name, count in sorted(self.fields.items()))
        lines.append(f"fields of {self.looked_at:,} records looked at: {names}")
        if self.sizes:
            sizes = np.array(self.sizes)
            low, middle, high = (np.percentile(sizes, q, axis=0).astype(int) for q in (0, 50, 100))
            lines.append(
                "height x width: smallest {} x {}, median {} x {}, largest {} x {}".format(
                    *low, *middle, *high
                )
            )
        lines += _histogram("captions of a record", self.captions_each)
        lines += _histogram("words of a caption", self.words)
        lines.append(f"{len(self.failures):,} records cannot be used")
        lines += [f"  {key!r}: {reason}" for key, reason in list(self.failures.items())[:10]]
        return "\n".join(lines)


def inspect(source: Any, decode: int = 200, progress: bool = True) -> Findings:
    """Looks through a source; `decode`: how many pictures to decode, 0 for all."""
    if not len(source):
        raise UserError("the source has no records")
    count = len(source) if not decode else min(decode, len(source))
    chosen = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    found = Findings(
        len(source),
        0,
        collections.Counter(),
        0,
        collections.Counter(),
        collections.Counter(),
        [],
        {},
        [],
    )
    hidden = None if progress else True
    for index in tqdm(range(len(source)), desc="captions", unit="record", disable=hidden):
        try:
            captions = source.captions(index)
        except BadRecord as error:
            found.failures[error.key] = error.reason
            continue
        found.captions += len(captions)
        found.captions_each[len(captions)] += 1
        found.words.update(len(caption.split()) for caption in captions)
    shown = set(chosen[np.linspace(0, len(chosen) - 1, min(_SHOWN, len(chosen))).astype(int)])
    for index in tqdm(chosen, desc="pictures", unit="record", disable=hidden):
        try:
            record = source[int(index)]
        except BadRecord as error:
            found.failures[error.key] = error.reason
            continue
        found.looked_at += 1
        found.fields.update(list(record))  # the names; of a dict, Counter takes the values
        if "image" in record:
            found.sizes.append(record["image"].shape[:2])
        if index in shown:
            found.samples.append(record)
    return found


def write_page(findings: Findings, path: Path | str, title: str) -> None:
    """One HTML file: the findings, and pictures with their captions. Captions are escaped."""
    cards = "\n".join(map(_card, findings.samples))
    with whole_file(path) as file:
        file.write(
            f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>{_STYLE}"
            f"<h1>{escape(title)}</h1><pre>{escape(findings.text())}</pre><main>{cards}</main>"
        )


_STYLE = """<style>
:root { color-scheme: light dark } body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)) }
article { overflow-wrap: anywhere } img { max-width: 100% } h2 { font: .8rem monospace; margin: 0 }
ul { margin: .3rem 0; padding-left: 1.1rem } pre { overflow-x: auto }
</style>"""


def _card(record: dict[str, Any]) -> str:
    captions = "".join(f"<li>{escape(caption)}</li>" for caption in record["captions"])
    picture = ""
    if "image" in record:
        image = Image.fromarray(record["image"])
        image.thumbnail((_SIDE, _SIDE))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        picture = f'<img src="data:image/png;base64,{data}" alt="">'
    return f"<article>{picture}<h2>{escape(record['key'])}</h2><ul>{captions}</ul></article>"


def _histogram(name: str, counts: dict[int, int]) -> list[str]:
    """A line for each value, or for each of up to twelve ranges of values."""
    if not counts:
        return []
    low, high = min(counts), max(counts)
    step = max(1, -(-(high - low + 1) // 12))
    sums: collections.Counter[int] = collections.Counter()
    for value, count in counts.items():
        sums[(value - low) // step] += count
    most = max(sums.values())
    lines = [f"{name}:"]
    for place in range(max(sums) + 1):
        first, last = low + place * step, min(low + (place + 1) * step - 1, high)
        label = str(first) if first == last else f"{first}-{last}"
        bar = "#" * round(_BAR * sums[place] / most)
        lines.append(f"  {label:>9}  {sums[place]:>10,}  {bar}")
    return lines
