"""llama2.c's export, version 0: a header of seven int32 and float32 tensors without names.

Tensors are offered under the names of Hugging Face's Llama, with the fields of its config. The
two differ in one convention: llama2.c turns the pairs (2i, 2i+1) of a head by the rotary angle i,
Hugging Face the pairs (i, i + h/2). The rows of the query and key projections are reordered to
the latter, which leaves every product of a query with a key as it was.

Source: github karpathy/llama2.c, `export.py` (legacy) and `run.c`.

Letters: V vocabulary, D width, F hidden width of the MLP, L layers, N heads, K key-value heads,
h width of a head, S longest sequence.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.weights.files.mapped import MappedFile, Region
from capjax.weights.files.tensors import LazyTensor, Tensors

HEADER = struct.Struct("<7i")
FLOAT = np.dtype("<f4")
MAX_LAYERS = 10_000  # the header has no mark: a limit keeps nonsense from being listed


class _Header(NamedTuple):
    """The header's fields, by llama2.c's names."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int  # negative: the classifier has its own weights, at the end of the file
    seq_len: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def tied(self) -> bool:
        return self.vocab_size > 0

    def possible(self) -> bool:
        """Whether a model can have these sizes."""
        return (
            min(self[:5]) > 0
            and self.vocab_size != 0
            and self.seq_len > 0
            and self.n_layers <= MAX_LAYERS
            and self.dim % (2 * self.n_heads) == 0
            and self.n_heads % self.n_kv_heads == 0
        )


class _Stack(NamedTuple):
    """One tensor of the file: a layer's, L times in a row, or a single one."""

    name: str | None  # with "{}" for the layer; None is skipped
    layers: int
    shape: tuple[int, ...]
    heads: int = 0  # of a projection that rotary angles follow


def recognises(path: Path, head: bytes) -> bool:
    """A possible header, and exactly as many bytes as it calls for; or one by its suffix."""
    header = _parse(head)
    if header is None or not header.possible():
        return False
    return path.suffix == ".bin" or path.stat().st_size == _file_bytes(header)


def read(path: Path) -> Tensors:
    """The tensors of an export, and `config`.

    Raises:
      UserError: the file is not exactly as long as its header calls for.
    """
    file = MappedFile(path)
    header = _parse(file.read(0, min(file.size, HEADER.size)).tobytes())
    if header is None or not header.possible() or file.size != _file_bytes(header):
        raise UserError(
            f"{str(path)!r} is not llama2.c's version 0 export: its {file.size} bytes are not what "
            "a header of such sizes calls for, so download it again or convert it to safetensors"
        )
    tensors = {}
    start = HEADER.size
    for stack in _stacks(header):
        size = math.prod(stack.shape) * FLOAT.itemsize
        for layer in range(stack.layers):
            if stack.name is not None:
                tensors[stack.name.format(layer)] = _lazy(Region(file, start, size), stack)
            start += size
    return Tensors(tensors, "llama2c", [path], _config(header))


def _parse(head: bytes) -> _Header | None:
    return _Header(*HEADER.unpack_from(head)) if len(head) >= HEADER.size else None


def _stacks(header: _Header) -> Iterator[_Stack]:
    """The tensors in the order of the file."""
    D, F, L, N, K, V, S = header
    V, h = abs(V), header.head_dim
    layer = "model.layers.{}."
    yield _Stack("model.embed_tokens.weight", 1, (V, D))
    yield _Stack(layer + "input_layernorm.weight", L, (D,))
    yield _Stack(layer + "self_attn.q_proj.weight", L, (N * h, D), heads=N)
    yield _Stack(layer + "self_attn.k_proj.weight", L, (K * h, D), heads=K)
    yield _Stack(layer + "self_attn.v_proj.weight", L, (K * h, D))
    yield _Stack(layer + "self_attn.o_proj.weight", L, (D, N * h))
    yield _Stack(layer + "post_attention_layernorm.weight", L, (D,))
    yield _Stack(layer + "mlp.gate_proj.weight", L, (F, D))
    yield _Stack(layer + "mlp.down_proj.weight", L, (D, F))
    yield _Stack(layer + "mlp.up_proj.weight", L, (F, D))
    yield _Stack("model.norm.weight", 1, (D,))
    yield _Stack(None, 2, (S, h // 2))  # cosines and sines of the angles, no longer read
    if not header.tied:
        yield _Stack("lm_head.weight", 1, (V, D))


def _file_bytes(header: _Header) -> int:
    floats = sum(stack.layers * math.prod(stack.shape) for stack in _stacks(header))
    return HEADER.size + floats * FLOAT.itemsize


def _lazy(region: Region, stack: _Stack) -> LazyTensor:
    def open_array() -> np.ndarray:
        array = region.read(0, region.size).view(FLOAT).reshape(stack.shape)
        if stack.heads:
            array = array.reshape(stack.heads, -1, 2, stack.shape[1]).swapaxes(1, 2)
        return array.reshape(stack.shape)

    return LazyTensor(stack.shape, FLOAT, open_array)


def _config(header: _Header) -> dict[str, Any]:
    """Fields of Hugging Face's Llama; eps and theta are llama2.c's constants."""
    return {
        "model_type": "llama",
        "hidden_size": header.dim,
        "intermediate_size": header.hidden_dim,
        "num_hidden_layers": header.n_layers,
        "num_attention_heads": header.n_heads,
        "num_key_value_heads": header.n_kv_heads,
        "vocab_size": abs(header.vocab_size),
        "max_position_embeddings": header.seq_len,
        "tie_word_embeddings": header.tied,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
