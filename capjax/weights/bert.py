"""BERT as the transformers library publishes it, and sentence encoders made of it.

Read are the encoder and its pooler. Heads are not: those of the training (masked words, next
sentence) and classifiers that were trained on top.
"""

from __future__ import annotations

from typing import Any

from capjax.errors import UserError
from capjax.models.bert import SEGMENTS
from capjax.weights.plan import NotThisFamily, Plan, Source, holds_json, read_json
from capjax.weights.table import Entry, Table, attention, linear, same
from capjax.weights.tokenizer_files import new_words

FAMILY = "bert"
UNREAD = (
    r"cls\..*",
    r"classifier\..*",
    r"(bert\.)?embeddings\.position_ids",  # a constant that older files hold
)
_MAX_LENGTH = 64  # of rows, where there are as many positions
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
# What a field must be, because nothing else is written here.
_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "type_vocab_size": SEGMENTS,
}


def bert(ours: str, theirs: str, norms: tuple[str, str] = ("weight", "bias")) -> list[Entry]:
    """A `Bert` and its counterpart, both given by the prefix of their names ("" or "x/", "x.").

    `norms` are the names of a LayerNorm's scale and bias: "gamma" and "beta" in the first files.
    """
    table, block = f"{theirs}embeddings", rf"{ours}stack/blocks_(\d+)"
    layer = rf"{theirs}encoder.layer.\1"
    read = (f"{layer}.attention.self.{name}" for name in ("query", "key", "value"))

    def norm(ours: str, theirs: str) -> list[Entry]:
        scale, bias = norms
        return [
            Entry(f"{ours}/scale", f"{theirs}.{scale}", same),
            Entry(f"{ours}/bias", f"{theirs}.{bias}", same),
        ]

    return [
        Entry(f"{ours}embedding/embedding", f"{table}.word_embeddings.weight", same),
        Entry(f"{ours}positions/embedding", f"{table}.position_embeddings.weight", same),
        Entry(f"{ours}segments/embedding", f"{table}.token_type_embeddings.weight", same),
        *norm(f"{ours}norm", f"{table}.LayerNorm"),
        *attention(f"{block}/self_attention", *read, f"{layer}.attention.output.dense"),
        *norm(f"{block}/norm_self", f"{layer}.attention.output.LayerNorm"),
        *linear(f"{block}/mlp_in", f"{layer}.intermediate.dense"),
        *linear(f"{block}/mlp_out", f"{layer}.output.dense"),
        *norm(f"{block}/norm_mlp", f"{layer}.output.LayerNorm"),
    ]


def table(theirs: str, norms: tuple[str, str] = ("weight", "bias")) -> Table:
    """Parameters of `capjax.models.bert.Model` and their tensors, by the prefix of these."""
    return [*bert("text_tower/", theirs, norms), *linear("pooler", f"{theirs}pooler.dense")]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. config.json is needed: heads cannot be read off the tensors."""
    source.require_type("bert")
    words = "embeddings.word_embeddings.weight"
    prefix = "bert." if f"bert.{words}" in source.tensors else ""
    first = f"{prefix}encoder.layer.0"
    source.require(f"{prefix}{words}", f"{first}.attention.self.query.weight")
    config = source.config
    if "num_attention_heads" not in config:
        raise NotThisFamily("it has no config.json with num_attention_heads")
    for field, supported in _FIXED.items():
        if config.get(field, supported) != supported:
            raise UserError(
                f"a BERT with {field}={config[field]!r} is not supported: it must be {supported!r}"
            )
    rows, width = source.shape(f"{prefix}{words}")
    positions = source.shape(f"{prefix}embeddings.position_embeddings.weight")[0]
    overrides = dict(
        layers=source.count(prefix + "encoder.layer.{}.attention.self.query.weight"),
        width=width,
        heads=config["num_attention_heads"],
        mlp_dim=source.shape(f"{first}.intermediate.dense.weight")[0],
        max_positions=positions,
        activation=_activation(config),
        epsilon=config.get("layer_norm_eps", 1e-12),
        pooler=f"{prefix}pooler.dense.weight" in source.tensors,
        embedding=_embedding(source),
        rows=rows,
    )
    first_files = f"{prefix}embeddings.LayerNorm.gamma" in source.tensors
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.bert", variant="base", overrides=overrides),
        table=table(prefix, ("gamma", "beta") if first_files else ("weight", "bias")),
        unread=UNREAD,
        tokenizer=_tokenizer(source) | {"max_length": min(positions, _MAX_LENGTH)},
    )


def _activation(config: dict[str, Any]) -> str:
    name = config.get("hidden_act", "gelu")
    if name not in _ACTIVATIONS:
        raise UserError(
            f"a BERT with hidden_act={name!r} is not supported: it must be one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def _embedding(source: Source) -> str:
    """What a sentence encoder says of its vectors; [CLS] for a BERT that is none."""
    pooling = read_json(source.folder / "1_Pooling" / "config.json")
    asked = {name for name, value in pooling.items() if name.startswith("pooling_") and value}
    known = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    if not asked:
        return "cls"
    if len(asked) > 1 or not asked <= set(known):
        raise UserError(
            f"a sentence encoder with {' and '.join(sorted(asked))} is not supported: it must be "
            f"one of {', '.join(known)}"
        )
    return known[asked.pop()]


def _tokenizer(source: Source) -> dict[str, Any]:
    path = source.file("vocab.txt", "tokenizer.json")
    if holds_json(path):
        special = dict(bos="[CLS]", eos="[SEP]", pad="[PAD]")
        return dict(name="capjax.data.tokenizer_json", path=str(path), **special)
    options = read_json(source.folder / "tokenizer_config.json")
    new = new_words(source)
    return dict(
        name="capjax.data.wordpiece",
        path=str(path),
        lowercase=options.get("do_lower_case", True),
    ) | ({"new_words": new} if new else {})
