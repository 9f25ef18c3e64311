"""Llama, Qwen2 and their kin, as the transformers library publishes them; llama2.c's files too.

All are one architecture; config.json says which options a checkpoint has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capjax.errors import UserError
from capjax.weights.plan import NotThisFamily, Plan, Source, holds_json, read_json
from capjax.weights.table import Entry, Table, attention, kernel, linear, norm, same, transposed

FAMILY = "llama"
UNREAD = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


def table(ours: str) -> Table:
    """A `LanguageModel`, by the prefix of its parameters ("language_model/"), and its tensors."""
    block, layer = rf"{ours}stack/blocks_(\d+)", r"model.layers.\1"
    projections = (f"{layer}.self_attn.{name}_proj" for name in "qkvo")
    return [
        Entry(f"{ours}embedding/embedding", "model.embed_tokens.weight", same),
        *norm(f"{block}/norm_self", f"{layer}.input_layernorm"),
        *attention(f"{block}/self_attention", *projections),
        *norm(f"{block}/norm_mlp", f"{layer}.post_attention_layernorm"),
        *linear(f"{block}/mlp_gate", f"{layer}.mlp.gate_proj"),
        *linear(f"{block}/mlp_in", f"{layer}.mlp.up_proj"),
        *linear(f"{block}/mlp_out", f"{layer}.mlp.down_proj"),
        *norm(f"{ours}stack/norm", "model.norm"),
        *kernel(f"{ours}head", "lm_head", transposed()),
    ]


def plan(source: Source) -> Plan:
    """See `capjax.weights.plan`. config.json is needed: heads cannot be read off the tensors."""
    source.require_type("llama", "qwen2")
    source.require("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight")
    config = source.config
    if "num_attention_heads" not in config:
        raise NotThisFamily("it has no config.json with num_attention_heads")
    if "model.layers.0.self_attn.q_norm.weight" in source.tensors:
        raise NotThisFamily("its queries and keys are normalised, as Qwen3's are")
    tied = config.get("tie_word_embeddings", False)
    positions = config.get("max_position_embeddings", 2048)
    first = "model.layers.0.self_attn"
    overrides = dict(
        layers=source.count("model.layers.{}.input_layernorm.weight"),
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
        head_width=config.get("head_dim"),
        mlp_dim=config["intermediate_size"],
        max_positions=positions,
        epsilon=config.get("rms_norm_eps", 1e-6),
        activation=_activation(config),
        attention_bias=(
            f"{first}.q_proj.bias" in source.tensors,
            f"{first}.o_proj.bias" in source.tensors,
        ),
        mlp_bias="model.layers.0.mlp.up_proj.bias" in source.tensors,
        tied=tied,
        rows=source.shape("model.embed_tokens.weight")[0],
        **_rotary(config),
    )
    return Plan(
        FAMILY,
        model=dict(name="capjax.models.language_model", variant="stories260k", overrides=overrides),
        table=table("language_model/"),
        unread=(*UNREAD, r"lm_head\.weight") if tied else UNREAD,
        copies={"lm_head.weight": "model.embed_tokens.weight"} if tied else {},
        tokenizer=_tokenizer(source) | {"max_length": min(positions, 512)},
        task=dict(name="capjax.tasks.language"),
    )


def _activation(config: dict[str, Any]) -> str:
    name = config.get("hidden_act", "silu")
    if name not in _ACTIVATIONS:
        raise UserError(
            f"a Llama with hidden_act={name!r} is not supported: it must be one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    if config.get("use_sliding_window"):
        raise UserError(
            "a Qwen2 with use_sliding_window is not supported: positions see all others"
        )
    return _ACTIVATIONS[name]


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    """`rotary_theta` and `rotary_stretch`: in rope_parameters (newer files), or two fields."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = found.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = found.get("rope_type", found.get("type", "default"))
    if kind == "default":
        stretch = None
    elif kind == "linear":
        stretch = (float(found["factor"]), 0.0, 0.0, 0)
    elif kind == "llama3":
        stretch = (
            float(found["factor"]),
            float(found["low_freq_factor"]),
            float(found["high_freq_factor"]),
            int(found["original_max_position_embeddings"]),
        )
    else:
        raise UserError(
            f"rotary positions of the type {kind!r} are not supported: it must be default, linear "
            "or llama3"
        )
    return dict(rotary_theta=float(theta), rotary_stretch=stretch)


def _tokenizer(source: Source) -> dict[str, Any]:
    path = source.file("tokenizer.json", "tokenizer.model", "tokenizer.bin", "tok512.bin")
    if holds_json(path):
        return dict(name="capjax.data.tokenizer_json", path=str(path), **_special(source, path))
    if path.suffix == ".bin":
        return dict(name="capjax.data.llama2c_tokenizer", path=str(path))
    return dict(
        name="capjax.data.sentencepiece_file", path=str(path), clean="", bos="<s>", pad="<unk>"
    )


def _special(source: Source, path: Path) -> dict[str, str]:
    """The texts of the special tokens, from the file beside the tokenizer or the tensors."""
    beside, usual = (folder / "tokenizer_config.json" for folder in (path.parent, source.folder))
    named = read_json(beside) or read_json(usual)

    def text(name: str) -> str:
        value = named.get(name) or ""
        return value.get("content", "") if isinstance(value, dict) else value

    return dict(bos=text("bos_token"), eos=text("eos_token"), pad=text("pad_token"))
