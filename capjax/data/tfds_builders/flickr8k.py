"""Flickr8k: 8,000 photographs with five captions each (Hodosh, Young, Hockenmaier, JAIR 47, 2013).

What to put into the folder: see `flickr_files`.
"""

from __future__ import annotations

from capjax.data.tfds_builders import flickr_files
from capjax.data.tfds_builders.captioned import Captioned


class Flickr8k(Captioned):
    """image, captions, key: the picture's file name; splits as the files name them."""

    DESCRIPTION = "Flickr8k from the user's files."
    MANUAL_DOWNLOAD_INSTRUCTIONS = flickr_files.__doc__

    def splits(self, folder: str) -> dict:
        return flickr_files.splits(folder)


Builder = Flickr8k
