"""GPT-2 as the transformers library publishes it (and the files of openai-community/gpt2).

Its linear layers are published as [input, output], query, key and value as one of them.
"""

from __future__ import annotations

from pathlib import Path

from capjax.errors import UserError
from capjax.weights.plan import NotThisFamily, Plan, Source
from capjax.weights.table import Entry, Part, Table, as_it_is, linear, norm, same, vector

FAMILY = "gpt2"
UNREAD = (
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",  # causal masks of older files
    r"lm_head\.weight",  # the embedding once more
)
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def _fused(ours: str, theirs: str, names: tuple[str, ...]) -> list[Entry]:
    """Layers that are columns of one [I,O] tensor."""
    entries = []
    for i, name in enumerate(names):
        columns, elements = Part(i, len(names), axis=1), Part(i, len(names))
        entries += [
            Entry(f"{ours}/{name}/kernel", f"{theirs}.weight", as_it_is(), columns),
            Entry(f"{ours}/{name}/bias", f"{theirs}.bias", vector, elements),
        ]
    return entries


def table(ours: str, theirs: str) -> Table:
    """A `LanguageModel` and its counterpart, by the prefixes of their names ("x/", "x.")."""
    block, layer = rf"{ours}stack/blocks_(\d+)", rf"{theirs}h.\1"
    mine, other = f"{block}/self_attention", f"{layer}.attn"
    cross = f"{block}/cross_attention"
    return [
        Entry(f"{ours}embedding/embedding", f"{theirs}wte.weight", same),
        Entry(f"{ours}positions", f"{theirs}wpe.weight", same),
        *norm(f"{block}/norm_self", f"{layer}.ln_1"),
        *_fused(mine, f"{other}.c_attn", ("query", "key", "value")),
        *linear(f"{mine}/out", f"{other}.c_proj", 2, kernel=as_it_is),
        *norm(f"{block}/norm_cross", f"{layer}.ln_cross_attn"),
        *linear(f"{cross}/query", f"{layer}.crossattention.q_attn", kernel=as_it_is),
        *_fused(cross, f"{layer}.crossattention.c_attn", ("key", "value")),
        *linear(f"{cross}/out", f"{layer}.crossattention.c_proj", 2, kernel=as_it_is),
        *norm(f"{block}/norm_mlp", f"{layer}.ln_2"),
        *linear(f"{block}/mlp_in", f"{layer}.mlp.c_fc", kernel=as_it_is),
        *linear(f"{block}/mlp_out", f"{layer}.mlp.c_proj", kernel=as_it_is),
        *norm(f"{ours}stack/norm", f"{theirs}ln_f"),
    ]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. Without config.json, heads are taken to be 64 wide."""
    source.require_type("gpt2")
    prefix = "transformer." if "transformer.wte.weight" in source.tensors else ""
    source.require(f"{prefix}wte.weight", f"{prefix}wpe.weight", f"{prefix}h.0.attn.c_attn.weight")
    if f"{prefix}h.0.crossattention.q_attn.weight" in source.tensors:
        raise NotThisFamily("its blocks have cross-attention, so that it needs a picture's context")
    config = source.config
    rows, width = source.shape(f"{prefix}wte.weight")
    activation = config.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"GPT-2 with activation_function={activation!r} is not supported: it must be one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    if not config.get("tie_word_embeddings", True) and "lm_head.weight" in source.tensors:
        raise UserError(
            "GPT-2 with a head of its own (tie_word_embeddings is false) is not supported: it must "
            "write with its embedding"
        )
    if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
        raise UserError("GPT-2 whose attention is scaled by layer, or not at all, is not supported")
    positions = source.shape(f"{prefix}wpe.weight")[0]
    overrides = dict(
        layers=source.count(prefix + "h.{}.ln_1.weight"),
        width=width,
        heads=config.get("n_head", width // 64),
        mlp_dim=source.shape(f"{prefix}h.0.mlp.c_fc.weight")[1],
        max_positions=positions,
        epsilon=config.get("layer_norm_epsilon", 1e-5),
        activation=_ACTIVATIONS[activation],
        rows=rows,
    )
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.language_model", variant="gpt2", overrides=overrides),
        table=table("language_model/", prefix),
        unread=UNREAD,
        copies={"lm_head.weight": f"{prefix}wte.weight"},
        tokenizer=dict(
            name="capjax.data.gpt2_bpe",
            path=str(_tokenizer(source)),
            max_length=min(positions, 128),
        ),
        task=dict(name="capjax.tasks.language"),
    )


def _tokenizer(source: Source) -> Path:
    """A tokenizer.json, or the folder that holds vocabulary and merges."""
    path = source.file("tokenizer.json", "vocab.json", "encoder.json")
    return path.parent if path.name in ("vocab.json", "encoder.json") else path
