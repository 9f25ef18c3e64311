"""llama2.c's export under Hugging Face's names: by hand, and the story a real one tells."""

import struct

import numpy as np
import pytest

from capjax.errors import UserError
from capjax.weights.files import open_tensors

# Letters: T tokens, D width, N heads, K key-value heads, h width of a head, V vocabulary.
BOS = 1
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the"


def made_by_hand(path, tied, dim=8, hidden=6, layers=2, heads=2, kv_heads=1, vocab=5, longest=3):
    """An export whose n-th number is n, and where each tensor begins."""
    head = dim // heads
    sizes = {
        "embedding": vocab * dim,
        "attention_norm": layers * dim,
        "q": layers * dim * dim,
        "k": layers * kv_heads * head * dim,
        "v": layers * kv_heads * head * dim,
        "o": layers * dim * dim,
        "mlp_norm": layers * dim,
        "gate": layers * hidden * dim,
        "down": layers * dim * hidden,
        "up": layers * hidden * dim,
        "norm": dim,
        "angles": longest * head,
        "classifier": 0 if tied else vocab * dim,
    }
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    numbers = np.arange(sum(sizes.values()), dtype="<f4")
    header = struct.pack(
        "<7i", dim, hidden, layers, heads, kv_heads, vocab if tied else -vocab, longest
    )
    path.write_bytes(header + numbers.tobytes())
    return starts


def test_tensors_stand_in_llama2cs_order(tmp_path):
    starts = made_by_hand(tmp_path / "x.bin", tied=False)
    tensors = open_tensors(tmp_path / "x.bin")
    assert tensors.format == "llama2c"
    second = "model.layers.1."
    expected = {
        "model.embed_tokens.weight": ("embedding", 0, (5, 8)),
        second + "input_layernorm.weight": ("attention_norm", 8, (8,)),
        second + "self_attn.v_proj.weight": ("v", 32, (4, 8)),
        second + "self_attn.o_proj.weight": ("o", 64, (8, 8)),
        second + "post_attention_layernorm.weight": ("mlp_norm", 8, (8,)),
        second + "mlp.gate_proj.weight": ("gate", 48, (6, 8)),
        second + "mlp.down_proj.weight": ("down", 48, (8, 6)),
        second + "mlp.up_proj.weight": ("up", 48, (6, 8)),
        "model.norm.weight": ("norm", 0, (8,)),
        "lm_head.weight": ("classifier", 0, (5, 8)),
    }
    for name, (place, layer, shape) in expected.items():
        first = starts[place] + layer
        size = np.prod(shape)
        np.testing.assert_array_equal(
            tensors[name], np.arange(first, first + size).reshape(shape), name
        )
    assert len(tensors) == 3 + 2 * 9


def test_rows_of_a_head_are_even_ones_then_odd_ones(tmp_path):
    starts = made_by_hand(tmp_path / "x.bin", tied=True)
    tensors = open_tensors(tmp_path / "x.bin")
    rows = tensors["model.layers.0.self_attn.q_proj.weight"][:, 0] - starts["q"]
    assert (rows / 8).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    rows = tensors["model.layers.1.self_attn.k_proj.weight"][:, 0] - starts["k"] - 32
    assert (rows / 8).tolist() == [0, 2, 1, 3]


def test_config_has_hugging_faces_fields(tmp_path):
    made_by_hand(tmp_path / "x.bin", tied=False)
    config = open_tensors(tmp_path / "x.bin").config
    assert config == {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 5,
        "max_position_embeddings": 3,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    made_by_hand(tmp_path / "y.bin", tied=True)
    tensors = open_tensors(tmp_path / "y.bin")
    assert tensors.config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in tensors


@pytest.mark.parametrize("change", [-1, 1, 4, -4])
def test_any_other_number_of_bytes_is_refused(tmp_path, change):
    made_by_hand(tmp_path / "x.bin", tied=True)
    data = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    with pytest.raises(UserError, match="bytes are not what"):
        open_tensors(tmp_path / "x.bin")


def _normed(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def _rotated(x, theta):
    """[T,N,h], the pairs (i, i + h/2) turned by position times theta^(-2i/h)."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _next_token(weights, config, tokens):
    """Greedy, by the equations of Llama in plain NumPy."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    eps, theta = config["rms_norm_eps"], config["rope_theta"]
    embedding = weights["model.embed_tokens.weight"]
    x = embedding[tokens]  # [T,D]
    causal = np.tril(np.ones((len(tokens), len(tokens)), bool))
    for layer in range(config["num_hidden_layers"]):

        def w(name, layer=layer):
            return weights[f"model.layers.{layer}.{name}.weight"]

        y = _normed(x, w("input_layernorm"), eps)
        q = _rotated((y @ w("self_attn.q_proj").T).reshape(len(x), heads, -1), theta)
        k = _rotated((y @ w("self_attn.k_proj").T).reshape(len(x), kv_heads, -1), theta)
        v = (y @ w("self_attn.v_proj").T).reshape(len(x), kv_heads, -1)
        k, v = (np.repeat(z, heads // kv_heads, axis=1) for z in (k, v))
        scores = np.einsum("qnh,knh->nqk", q, k) / np.sqrt(q.shape[-1])
        scores = np.exp(np.where(causal, scores, -np.inf))
        scores /= scores.sum(-1, keepdims=True)
        x = x + np.einsum("nqk,knh->qnh", scores, v).reshape(x.shape) @ w("self_attn.o_proj").T
        y = _normed(x, w("post_attention_layernorm"), eps)
        gate = y @ w("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
    last = _normed(x[-1], weights["model.norm.weight"], eps)
    return int(np.argmax(embedding @ last))


def _pieces(path):
    """llama2.c's tokenizer: the longest piece's length, then for each a score, length, bytes."""
    data, at, pieces = path.read_bytes(), 4, []
    while at < len(data):
        _, length = struct.unpack_from("<fi", data, at)
        pieces.append(data[at + 8 : at + 8 + length].decode("utf-8", "replace"))
        at += 8 + length
    return pieces


def test_a_real_model_tells_its_story(shared):
    """The beginning that llama2.c documents for stories260K at temperature 0."""
    folder = shared / "data" / "stories260k"
    tensors = open_tensors(folder / "stories260K.bin")
    weights = {name: tensors[name] for name in tensors}
    pieces = _pieces(folder / "tok512.bin")
    tokens, story = [BOS], ""
    while len(story) < len(STORY) + 1:  # SentencePiece's text begins with a space
        tokens.append(_next_token(weights, tensors.config, np.array(tokens)))
        story += pieces[tokens[-1]]
    assert story.lstrip().startswith(STORY)
