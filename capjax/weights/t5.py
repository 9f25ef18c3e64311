"""T5 as the transformers library publishes it: version 1.0, and 1.1 with its relatives (Flan-T5).

What tells the versions apart, where config.json does not say it, is the gated MLP of 1.1.
"""

from __future__ import annotations

from typing import Any

from capjax.errors import UserError
from capjax.weights.plan import NotThisFamily, Plan, Source, holds_json
from capjax.weights.table import Entry, Table, attention, linear, norm, same

FAMILY = "t5"
# Copies of the embedding, and a bias that early files hold and nothing reads.
UNREAD = (
    r"(en|de)coder\.embed_tokens\.weight",
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
)
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
_MAX_LENGTH = 64  # positions are distances, so that nothing in the weights limits a row
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "silu": "silu"}


def _tower(name: str, gated: bool) -> list[Entry]:
    """One side: ours has the same name as theirs."""
    block, layer = rf"{name}/stack/blocks_(\d+)", rf"{name}.block.\1.layer"
    mlp = 2 if name == "decoder" else 1
    entries = [
        Entry(
            f"{name}/relative_bias/embedding",
            f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            same,
        ),
        *norm(f"{block}/norm_self", f"{layer}.0.layer_norm"),
        *_attention(f"{block}/self_attention", f"{layer}.0.SelfAttention"),
        *norm(f"{block}/norm_mlp", f"{layer}.{mlp}.layer_norm"),
        *linear(f"{block}/mlp_out", f"{layer}.{mlp}.DenseReluDense.wo"),
        *norm(f"{name}/stack/norm", f"{name}.final_layer_norm"),
    ]
    if name == "decoder":
        entries += norm(f"{block}/norm_cross", f"{layer}.1.layer_norm")
        entries += _attention(f"{block}/cross_attention", f"{layer}.1.EncDecAttention")
    layers = {"mlp_gate": "wi_0", "mlp_in": "wi_1"} if gated else {"mlp_in": "wi"}
    for ours, theirs in layers.items():
        entries += linear(f"{block}/{ours}", f"{layer}.{mlp}.DenseReluDense.{theirs}")
    return entries


def _attention(ours: str, theirs: str) -> list[Entry]:
    return attention(ours, *(f"{theirs}.{name}" for name in "qkvo"))


def table(gated: bool) -> Table:
    """Parameters of `capjax.models.t5.Model` and their tensors."""
    return [
        Entry("embedding/embedding", "shared.weight", same),
        *_tower("encoder", gated),
        *_tower("decoder", gated),
        *linear("head", "lm_head"),
    ]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. Without config.json all sizes are read off the tensors."""
    source.require_type("t5")
    bias = "{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    query = "encoder.block.0.layer.0.SelfAttention.q.weight"
    source.require("shared.weight", query, *(bias.format(side) for side in ("encoder", "decoder")))
    config = source.config
    if config.get("decoder_start_token_id", 0) != config.get("pad_token_id", 0):
        raise UserError(
            f"a T5 with decoder_start_token_id={config['decoder_start_token_id']} is not "
            f"supported: its decoder must begin with the padding, {config.get('pad_token_id', 0)}"
        )
    rows, width = source.shape("shared.weight")
    buckets, heads = source.shape(bias.format("encoder"))
    activation, gated = _mlp(source)
    up = "wi_0" if gated else "wi"
    scaled = _scaled(config, gated)
    # A head beside the scale of version 1.0 is the embedding once more.
    tied = scaled or _HEAD not in source.tensors
    overrides = dict(
        layers=source.count("encoder.block.{}.layer.0.layer_norm.weight"),
        width=width,
        heads=heads,
        mlp_dim=source.shape(f"encoder.block.0.layer.1.DenseReluDense.{up}.weight")[0],
        head_width=source.shape(query)[0] // heads,
        decoder_layers=source.count("decoder.block.{}.layer.0.layer_norm.weight"),
        activation=activation,
        gated=gated,
        tied=tied,
        scaled=scaled,
        buckets=buckets,
        max_distance=config.get("relative_attention_max_distance", 128),
        epsilon=config.get("layer_norm_epsilon", 1e-6),
        rows=rows,
    )
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.t5", variant="t5-small", overrides=overrides),
        table=table(gated),
        unread=(*UNREAD, r"lm_head\.weight") if tied else UNREAD,
        copies=dict.fromkeys((*_COPIES, _HEAD) if tied else _COPIES, "shared.weight"),
        tokenizer=_tokenizer(source),
    )


def _mlp(source: Source) -> tuple[str, bool]:
    """(activation, gated) as in `capjax.models.t5.Variant`."""
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in source.tensors
    found = source.config.get("feed_forward_proj", "gated-gelu" if gated else "relu")
    name = found.removeprefix("gated-")
    # The library's own exception: published as GELU, computed as its approximation by tanh.
    name = "gelu_new" if found == "gated-gelu" else name
    if name not in _ACTIVATIONS:
        raise UserError(
            f"a T5 with feed_forward_proj={found!r} is not supported: it must be one of "
            f"{', '.join(_ACTIVATIONS)}, with or without gated- before it"
        )
    if gated != found.startswith("gated-"):
        raise NotThisFamily(f"its feed_forward_proj is {found!r}, and its tensors have another MLP")
    return _ACTIVATIONS[name], gated


def _scaled(config: dict[str, Any], gated: bool) -> bool:
    """Whether what the head reads is scaled: newer files say it, older ones by tying the head."""
    if not config:
        return not gated
    return config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))


def _tokenizer(source: Source) -> dict[str, Any]:
    """Rows begin with the padding, as the decoder does; the encoder drops it."""
    path = source.file("spiece.model", "tokenizer.json")
    special = dict(path=str(path), max_length=_MAX_LENGTH, bos="<pad>", pad="<pad>")
    if holds_json(path):
        return dict(name="capjax.data.tokenizer_json", eos="</s>", **special)
    return dict(name="capjax.data.sentencepiece_file", clean="", **special)
