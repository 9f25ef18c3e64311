"""Flickr30k: 31,783 photographs with five captions each (Young et al., TACL 2, 2014).

What to put into the folder: see `flickr_files`.
"""

from __future__ import annotations

from capjax.data.tfds_builders import flickr_files
from capjax.data.tfds_builders.captioned import Captioned


class Flickr30k(Captioned):
    """image, captions, key: the picture's file name; splits as the files name them."""

    DESCRIPTION = "Flickr30k from the user's files."
    MANUAL_DOWNLOAD_INSTRUCTIONS = flickr_files.__doc__

    def splits(self, folder: str) -> dict:
        return flickr_files.splits(folder)


Builder = Flickr30k
