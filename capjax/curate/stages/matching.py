"""How well captions match their picture, by a matching model of ours, as a stage.

Ranks captions with `choosing.rank`: pictures, their captions -> scores -> the best ones.

Letters: B pictures, N captions of them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.stage import Fields
from capjax.curate.stages.encoding import Captions, Encoding
from capjax.errors import BadRecord, UserError

MODES = ("itm", "itc")  # of `capjax.evals.match_scorer`, which imports JAX


class MatchScore(Encoding):
    """BLIP's score of a picture with its caption, or with each of several (arXiv 2201.12086).

    mode: "itm" gives the probability of a match in [0, 1], by a run of `capjax.models.
    blip_matching`; "itc" the cosine in [-1, 1], by any dual encoder. captions: a field of text, or
    with several=True of texts.

    Gives `output`, a number or numbers, and `{output}_cut`, how many of the captions were too long
    for the run's rows and were scored without their end. Mode and weights are part of what a result
    is kept under, so that scores of different ones never mix.

    Raises `BadRecord` with the record's key for a score that is no number, and `UserError` for a
    run that has no such score.
    """

    def __init__(
        self,
        run: Path | str,
        captions: str = "caption",
        *,
        several: bool = False,
        mode: str = "itm",
        output: str = "match_score",
        batch_size: int = 64,
        version: str = "1",
        name: str = "",
    ):
        super().__init__(run, name or f"{mode} of {captions}", version, batch_size)
        if mode not in MODES:
            raise UserError(f"stage {self.name!r}: mode={mode!r} must be one of {', '.join(MODES)}")
        self._captions, self._mode, self._output = Captions(captions, several), mode, output
        self.inputs = {"key": str, "image": np.ndarray, captions: self._captions.kind}
        self.outputs = {output: list[float] if several else float, f"{output}_cut": int}

    def _more(self) -> dict[str, Any]:
        return {"mode": self._mode}

    def start(self) -> None:
        """Opens the run on this process's devices."""
        from capjax.evals.match_scorer import MatchScorer

        super().start()
        try:
            self._scorer = MatchScorer(self._encoder, self._mode)
        except UserError as error:
            raise UserError(f"stage {self.name!r}: {str(self._run)!r}: {error}") from error

    def batch(self, rows: Sequence[Fields]) -> list[dict[str, Any]]:
        """Scores of B pictures."""
        texts, owner = self._captions.flat(rows)
        found = self._scorer.score(self._squares(rows), texts, owner)
        bad = np.flatnonzero(~np.isfinite(found.values))
        if len(bad):
            first = bad[0]
            raise BadRecord(
                rows[owner[first]]["key"],
                f"the caption {texts[first]!r} has the {self._mode} score {found.values[first]}",
            )
        told = self._captions.told(found.values, owner, len(rows))
        return [
            {self._output: scores, f"{self._output}_cut": int(found.cut[owner == i].sum())}
            for i, scores in enumerate(told)
        ]
