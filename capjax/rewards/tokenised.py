"""Strings of a batch as the metrics want them; references are tokenised once a picture.

Letters: b pictures, K captions of each.
"""

from __future__ import annotations

from collections.abc import Sequence

from capjax.errors import UserError
from capjax.metrics import ptb
from capjax.metrics.document_frequency import DocumentFrequencies
from capjax.metrics.references import Candidates, References, Tokens


class Tokenised:
    """Remembers the references' tokens, by their text: pictures come back each epoch."""

    def __init__(self):
        self._known: dict[tuple[str, ...], list[Tokens]] = {}

    def candidates(
        self,
        keys: Sequence[str],
        references: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        corpus: DocumentFrequencies | None = None,
    ) -> list[Candidates]:
        """K of them, each with one caption of each of the b pictures.

        Raises UserError for a picture without references.
        """
        tokens = []
        for key, texts in zip(keys, references, strict=True):
            if not texts:
                raise UserError(
                    f"the picture {key!r} has no caption to compare with: leave it out of the "
                    "training data, or use a reward without references"
                )
            own = tuple(texts)
            if own not in self._known:
                self._known[own] = [ptb.tokenize(text) for text in own]
            tokens.append(self._known[own])
        # By number: a picture may be twice in a batch.
        all_references = References(range(len(tokens)), tokens, corpus=corpus)
        written = {text: ptb.tokenize(text) for group in candidates for text in group}
        return [
            Candidates(all_references, [written[group[k]] for group in candidates])
            for k in range(len(candidates[0]))
        ]
