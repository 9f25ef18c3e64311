"""Tiny captioners with random weights, and a captioning job that is there to be killed.

    python captions_until_killed.py PICTURES OUT

captions the folder PICTURES into the folder OUT; started again, it goes on.
"""

import functools
import sys
import time

import numpy as np
import random_params
from PIL import Image
from plain_search import Random

from capjax.data import folder, tokenizer
from capjax.decode.bulk import Job
from capjax.decode.bulk_parts import Parts
from capjax.decode.bulk_request import Request
from capjax.decode.captioner import Captioner
from capjax.decode.options import Options
from capjax.models.coca import Model
from capjax.special_tokens import EOS_ID

TEXT = "a photo of red blue green yellow circle square star shape there is here"
SIDE, LENGTH = 16, 10
PART_SIZE = 3


@functools.cache
def spelling():
    """Of the words above."""
    return tokenizer.train([TEXT, *TEXT.split()], 48, LENGTH)


def quick():
    """A captioner without layers, for what is not about them."""
    model = Random(spelling().vocab_size, LENGTH, SIDE)
    return Captioner(model, model.own_params, spelling())


def captioner():
    """A CoCa whose captions differ and end at different places, with its tokenizer."""
    words = spelling()
    shallow = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
    model = Model(words.vocab_size, LENGTH, SIDE, size_overrides=shallow)
    params = random_params.draw(model, 0.2)
    # So that no word is every picture's favourite, and some captions end.
    bias = params["caption_decoder"]["head"]["bias"]
    bias[:], bias[EOS_ID] = 0.0, 2.5
    return Captioner(model, params, words)


def draw_pictures(place, count, broken=()):
    """`count` pictures of several sizes in a folder, of which some are cut short."""
    rng = np.random.default_rng(0)
    place.mkdir()
    for number in range(count):
        shape = (*rng.integers(8, 60, 2), 3)
        path = place / f"{number:04}.png"
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:60])
    return place


class Slow(folder.Source):
    """Pictures that take their time, so that there is something to kill."""

    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)


def main(pictures, out):
    """The job, from wherever it is to its end."""
    source = Slow([pictures])
    options = Options(sample=True, samples=2, top_p=0.95)
    request = Request(scales=(0.5, 2.0), options=options, prompt="a", seed=3)
    parts = Parts(out, {"seed": 3}, request.columns, records=len(source), part_size=PART_SIZE)
    job = Job(quick(), source, request, resize="squash", threads=1, max_bad_fraction=0.2)
    job.progress = False
    job.fill(parts)


if __name__ == "__main__":
    main(*sys.argv[1:])
