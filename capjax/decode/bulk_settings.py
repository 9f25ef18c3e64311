"""What a folder of captions was made with: by this a later run knows whether it may go on with it.

Compared are things, not names: weights by their SHA-256, so that a run directory may move; the
pictures by their number and keys. What changes speed alone (batch size, threads, devices, the
number of hosts) is no setting.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from capjax.data.folder import Source as Folder
from capjax.decode.bulk_request import Request
from capjax.errors import BadRecord
from capjax.parallel.sharding import named_leaves

_KEYS = 16  # of a source whose keys cannot all be had without reading it: spread over it


def settings_of(
    run: Any, source: Any, source_text: str, request: Request, encoder: Any = None
) -> dict[str, Any]:
    """JSON values. run, encoder: of `capjax.runs`; source_text: the source as the user names it."""
    settings = {
        "checkpoint": str(run.directory),
        "step": run.step,
        "weights": weights_sum(run.params),
        "tokenizer": run.tokenizer.fingerprint,
        "source": source_text,
        "keys": keys_sum(source),
        "guidance_scales": list(request.scales),
        "prompt": request.prompt,
        "seed": request.seed if request.options.sample else 0,  # else it changes nothing
        **dataclasses.asdict(request.options),
    }
    if any(leaf.dtype == np.int8 for leaf in named_leaves(run.params).values()):
        settings["weights_dtype"] = "int8"
    if request.must_contain:
        settings["must_contain"] = [list(phrase) for phrase in request.must_contain]
    if request.likeliest or request.scorer:
        settings["best_of"] = request.scorer.name if request.scorer else "likelihood"
    if encoder is not None:
        settings |= {
            "encoder": str(encoder.directory),
            "encoder_weights": weights_sum(encoder.params),
        }
    return settings


def weights_sum(params: Any) -> str:
    """SHA-256 of all parameters with their names, as 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name, leaf in sorted(named_leaves(params).items()):
        values = np.asarray(leaf)
        found.update(f"{name} {values.dtype} {values.shape}".encode())
        found.update(values.tobytes())
    return found.hexdigest()[:16]


def keys_sum(source: Any) -> str:
    """SHA-256 of the keys of a folder's pictures, or of some keys spread over another source."""
    if isinstance(source, Folder):
        keys = source.paths
    else:
        places = np.linspace(0, len(source) - 1, min(_KEYS, len(source))).round().astype(int)
        keys = [_key(source, int(place)) for place in places]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


def _key(source: Any, index: int) -> str:
    try:
        return (source.encoded(index) if hasattr(source, "encoded") else source[index])["key"]
    except BadRecord as error:
        return error.key
