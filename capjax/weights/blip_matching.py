"""BLIP's matching scores as the transformers library publishes them (`BlipForImageTextRetrieval`).

Rows are BERT's, [CLS] to [SEP], cut at 35 tokens. [ENC], with which BLIP was trained to match, has
its row in the embedding and the published head does not use it: `match_token` stays "cls". The
learned temperature of the contrastive loss is not in the files; it begins where BLIP's began.
"""

from __future__ import annotations

import math

from capjax.models.blip import VARIANTS
from capjax.models.coca import INITIAL_TEMPERATURE
from capjax.weights.blip import (
    MATCHER,
    check_kind,
    image_section,
    sections,
    sizes,
    text_table,
    vision_table,
    vocabulary,
)
from capjax.weights.plan import Plan, Source
from capjax.weights.sizes import nearest
from capjax.weights.table import Table, linear, unpublished

FAMILY = "blip_matching"
MAX_LENGTH = 35  # of the texts that the published head scores
EMBEDDING_DIM = 256
TABLE: Table = [
    *vision_table(),
    *text_table("text_encoder", "text_encoder"),
    *linear("image_projection", "vision_proj"),
    *linear("text_projection", "text_proj"),
    *linear("match_head", "itm_head"),
    *unpublished("logit_scale", math.log(1 / INITIAL_TEMPERATURE)),
]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. config.json is needed: heads cannot be read off the tensors."""
    source.require_type("blip")
    check_kind(source, MATCHER)
    source.require("itm_head.weight")
    fields = sizes(source, *sections(source), "text_encoder")
    embedding_dim = source.shape("vision_proj.weight")[0]
    other = {} if embedding_dim == EMBEDDING_DIM else {"embedding_dim": embedding_dim}
    words = source.shape("text_encoder.embeddings.word_embeddings.weight")[0]
    tokenizer, _ = vocabulary(source, words)
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.blip_matching", **nearest(VARIANTS, fields), **other),
        table=TABLE,
        unread=(r".*\.position_ids",),
        tokenizer=tokenizer | {"max_length": min(MAX_LENGTH, fields["max_positions"])},
        image=image_section(source, fields["patch_size"]),
        task=dict(name="capjax.tasks.matching"),
    )
