"""Llama and Qwen2 of the transformers library."""

import torch
import transformers
from peers.gpt2 import causal
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

MADE_WITH = f"torch {torch.__version__}, transformers {transformers.__version__}"
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def cases():
    """Llama 2 and 3.1 and Qwen2 in small: grouped queries, stretched positions, a head apart."""
    return [
        case(
            "llama",
            [2, 9],
            hidden_size=32,
            intermediate_size=56,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=61,
            max_position_embeddings=40,
            tie_word_embeddings=False,
        ),
        case(
            "llama",
            [1, 33],
            hidden_size=48,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=1,
            head_dim=10,
            vocab_size=37,
            rms_norm_eps=1e-3,
            max_position_embeddings=64,
            rope_parameters=LLAMA3,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
        ),
        case(
            "qwen2",
            [3, 7],
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=53,
            max_position_embeddings=32,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=True,
        ),
    ]


def case(model_type, shape, **fields):
    """See `peers.gpt2.causal`."""
    fields |= {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
    config, model = kinds[model_type]
    module = model(config(**fields)).eval()
    return causal(module, shape, {"model_type": model_type, **fields}, "model.norm.weight")
