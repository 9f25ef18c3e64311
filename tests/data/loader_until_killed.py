"""A training stream of three sources with four threads, written down batch by batch: to be killed.

    python loader_until_killed.py FOLDER BATCHES

FOLDER/stream.jsonl gets a line for each batch: its keys and the loader's state behind it. Started
again, it goes on behind the last complete line, as training does behind its last checkpoint.
"""

import json
import sys
from pathlib import Path

from capjax.data.loader import Examples, TrainLoader
from capjax.data.mixture import Source
from capjax.data.tokenizer import train

SCENES = {"name": "capjax.data.scenes", "image_size": 16, "max_objects": 1}
SOURCES = {
    "large": SCENES | {"seed": 0, "size": 500},
    "medium": SCENES | {"seed": 1, "size": 90},
    "small": SCENES | {"seed": 2, "size": 7},
}
WEIGHTS = {"large": 3.0, "medium": 2.0, "small": 1.0}


def loader():
    """The stream from its beginning."""
    tokenizer = train([f"a {word}" for word in ("red", "blue", "circle", "square")], 40, 32)
    source = Source(SOURCES, WEIGHTS, single_source=False)
    examples = Examples(
        source,
        tokenizer,
        seed=5,
        batch_size=8,
        image_size=16,
        resize="squash",
        truncate=True,
        flip=True,
    )
    return TrainLoader(examples, num_threads=4)


def complete_lines(path):
    """What was written whole: a line that a kill cut short is dropped, in the file too."""
    text = path.read_bytes() if path.is_file() else b""
    whole = text[: text.rfind(b"\n") + 1]
    path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def main(folder, batches):
    """Goes on to the end."""
    path = Path(folder) / "stream.jsonl"
    before = complete_lines(path)
    stream = loader()
    if before:
        stream.restore(before[-1]["state"])
    with path.open("a") as file:
        for _ in range(len(before), batches):
            batch = next(stream)
            line = {
                "keys": batch["key"],
                "sums": batch["image"].sum((1, 2, 3)).tolist(),
                "tokens": batch["tokens"].tolist(),
                "state": stream.state(),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()
    stream.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
