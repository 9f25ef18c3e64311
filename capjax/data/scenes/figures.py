"""Scenes of one large, plain figure: the small world of papers whose captions tell its facts."""

from __future__ import annotations

from collections.abc import Iterable

from capjax.data.scenes.source import Source


def figures(
    split: str,
    size: int,
    *,
    shapes: Iterable[str],
    colours: Iterable[str],
    seed: int = 0,
    image_size: int = 32,
) -> Source:
    """The pictures and graphs of such a world; its captions say nothing and are to be replaced."""
    return Source(
        seed=seed,
        size=size,
        split=split,
        image_size=image_size,
        max_objects=1,
        shapes=tuple(shapes),
        colours=tuple(colours),
        sizes=("large",),
        textures=("solid",),
        backgrounds=("plain",),
        captions="generic",
        zoom=1.5,
    )
