"""What a caption mentions that was not detected: CHAIR's rule (EMNLP 2018) as a stage.

Detections are names of a closed vocabulary (`capjax.metrics.object_words`), from a detector or from
annotations. What the vocabulary does not know is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capjax.curate.stage import Stage
from capjax.errors import UserError
from capjax.metrics import ptb
from capjax.metrics.object_words import ObjectVocabulary


def hallucinations(
    caption: str,
    detections: str,
    vocabulary: Mapping[str, Sequence[str]],
    *,
    output: str = "hallucinated",
    most: int | None = None,
    name: str = "",
) -> Stage:
    """The mentioned objects that are not among the detections, in the caption's order.

    most: records with more are dropped; None keeps all.
    """
    if most is not None and most < 0:
        raise UserError(f"most={most} hallucinated objects: give 0 or more, or None to keep all")
    return Stage(
        name or f"hallucinations of {caption}",
        _Hallucinations(caption, detections, output, vocabulary),
        {caption: str, detections: list[str]},
        {output: list[str]},
        params={"vocabulary": {k: list(v) for k, v in vocabulary.items()}, "most": most},
    )


class _Hallucinations:
    def __init__(self, caption: str, detections: str, output: str, vocabulary: Mapping):
        self.caption, self.detections, self.output = caption, detections, output
        self.words = ObjectVocabulary(vocabulary)

    def __call__(self, *, vocabulary: Any, most: int | None, **fields: Any) -> Mapping | None:
        seen = {self.words.object_of(name) for name in fields[self.detections]}
        mentions = self.words.mentions(ptb.tokenize(fields[self.caption]))
        wrong = [mention.object for mention in mentions if mention.object not in seen]
        if most is not None and len(wrong) > most:
            return None
        return {self.output: wrong}
