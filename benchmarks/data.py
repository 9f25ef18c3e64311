"""Decoding, cropping and resizing pictures for training: the pipeline beside a bare loop.

  python -m benchmarks.data --tars "shards/*.tar" --side 640 --peer PYTHON

The same pictures, one core, in turns: what `capjax.data.loader.Examples` makes of each record of
WebDataset tars (reading, decoding, a random part resized to 224 x 224, a caption as tokens) beside
a loop of Pillow over the same bytes held in memory, which reads no file, cuts a part of that size
and makes no tokens. With `--peer`, a Python that has the package webdataset does the loop's work
over the same tars. Printed are pictures a second of each and the ratio to the bare loop, with its
spread. Make tars with `python -m capjax.data prepare`; `--side` writes their pictures anew with
their longer side so many pixels, as photographs of the usual data sets are.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SIZE, SCALE = 224, (0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tars", required=True, help="a pattern, made by capjax.data prepare")
    parser.add_argument("--pictures", type=int, default=600, help="a turn (default 600)")
    parser.add_argument("--side", type=int, default=0, help="pixels; 0: pictures as they are")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each side (default 7)")
    parser.add_argument("--peer", help="a Python with webdataset, numpy and pillow")
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        tars = args.tars
        if args.side:
            tars = str(Path(folder) / "part.tar")
            enlarge(args.tars, Path(tars), args.side, args.pictures)
        compare(args, tars)


def compare(args: argparse.Namespace, tars: str) -> None:
    """Runs the sides in turns and prints what they take."""
    examples, stored = ours(tars)
    count = min(args.pictures, len(stored))
    sides: dict[str, Callable[[], float]] = {
        "capjax": lambda: timed(lambda i: examples[i], count),
        "bare loop": lambda: timed(lambda i: bare(stored[i]), count),
    }
    if args.peer:
        sides["webdataset"] = lambda: peer(args.peer, tars, count)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()  # once to warm up
    for turn in range(args.repeats):
        order = list(sides) if turn % 2 else list(sides)[::-1]
        for name in order:
            speeds[name].append(count / sides[name]())
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(found, speeds["bare loop"], strict=True)]
        print(
            f"{name:12} {statistics.median(found):7.0f} pictures/s, "
            f"{statistics.median(ratios):.3f} of the bare loop's "
            f"({min(ratios):.3f}-{max(ratios):.3f}, {args.repeats} turns)"
        )


def enlarge(pattern: str, path: Path, side: int, count: int) -> None:
    """A tar of the first pictures, written anew as JPEG of another size."""
    import io

    from PIL import Image

    from capjax.data.shards import write_tar
    from capjax.data.webdataset import Source

    source = Source(pattern, caption="json:captions")

    def records():
        for index in range(min(count, len(source))):
            record = source.encoded(index)
            image = Image.open(io.BytesIO(record["image"])).convert("RGB")
            scale = side / max(image.size)
            image = image.resize([round(scale * n) for n in image.size], Image.Resampling.BICUBIC)
            stream = io.BytesIO()
            image.save(stream, "JPEG", quality=90)
            yield record | {"image": stream.getvalue()}

    write_tar(path, records(), 0)


def timed(one: Callable[[int], object], count: int) -> float:
    """Seconds for the first `count`."""
    began = time.perf_counter()
    for i in range(count):
        one(i)
    return time.perf_counter() - began


def ours(pattern: str):
    """(the stream of training examples, the bytes of the pictures it takes, in its order)."""
    from capjax.data.loader import Examples
    from capjax.data.tokenizer import train
    from capjax.data.webdataset import Source

    source = Source(pattern, caption="json:captions")
    texts = [caption for i in range(200) for caption in source.captions(i)]
    examples = Examples(
        source,
        train(texts, 800, 64),
        seed=0,
        batch_size=1,
        image_size=SIZE,
        resize="squash",
        crop_scale=SCALE,
        truncate=True,
    )
    order = [examples._order[i] for i in range(len(source))]
    return examples, [source.encoded(index)["image"] for index in order]


def bare(data: bytes):
    """What has to be done in any case, by Pillow alone."""
    import io

    import numpy as np
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    rng = np.random.default_rng(0)
    width, height = image.size
    side = int((rng.uniform(*SCALE) * width * height) ** 0.5)
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    part = image.crop((left, top, left + side, top + side))
    return np.array(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


PEER = """
import io, json, sys, time
import numpy as np
import webdataset as wds
from PIL import Image
import glob
shards, count = sorted(glob.glob(sys.argv[1])), int(sys.argv[2])
def one(sample):
    image = Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
    rng = np.random.default_rng(0)
    width, height = image.size
    side = int((rng.uniform(0.5, 1.0) * width * height) ** 0.5)
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    part = image.crop((left, top, left + side, top + side))
    picture = np.array(part.resize((224, 224), Image.Resampling.BICUBIC))
    return picture, json.loads(sample["json"])["captions"][0]
data = wds.WebDataset(shards, shardshuffle=False).shuffle(100).map(one)
began = time.perf_counter()
for number, _ in enumerate(data, 1):
    if number == count:
        break
print(time.perf_counter() - began)
"""


def peer(python: str, pattern: str, count: int) -> float:
    """Seconds that webdataset takes, without the start of its process."""
    command = [python, "-c", PEER, pattern, str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
