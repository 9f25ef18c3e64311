"""A source for tests of mixtures, named in sections as "mixture_world"."""

import numpy as np

from capjax.errors import BadRecord


class Source:
    """`size` records named after `colour`; those in `bad` cannot be used."""

    def __init__(self, size=5, colour="red", bad=(), label=False):
        self.size, self.colour, self.bad, self.label = size, colour, bad, label

    def __len__(self):
        return self.size

    def captions(self, index):
        return [f"{self.colour} {index}"]

    def __getitem__(self, index):
        if index in self.bad:
            raise BadRecord(str(index), "spoilt")
        record = {
            "key": str(index),
            "image": np.full((8, 8, 3), index % 256, np.uint8),
            "captions": self.captions(index),
        }
        return record | ({"label": ("cat", "dog")[index % 2]} if self.label else {})
