"""Language models and text encoders of the transformers library."""

import torch
from round_trips import tokenizer_files
from round_trips.inputs import CAPTIONS, arrays, draw, rounded
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)


def whole(kind, folder, dtype):
    """The model in a folder, weights rounded; ValueError if its library misses a tensor."""
    model, told = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    missing = sorted(told["missing_keys"]) + sorted(told["mismatched_keys"])
    if missing:
        raise ValueError(f"there is no tensor {', '.join(map(str, missing))}")
    return rounded(model, dtype)


def rows(folder, **options):
    """The captions' ids by the tokenizer in a folder: [1,L] each."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(c, return_tensors="pt", **options).input_ids for c in CAPTIONS]


def causal(kind):
    """`answer` of a language model: logits of the captions' words."""

    def answer(folder, dtype):
        model = whole(kind, folder, dtype)
        return arrays(
            **{f"logits_{i}": model(ids).logits for i, ids in enumerate(rows(folder))},
        )

    return answer


def gpt2(folder):
    """By the names of the whole model."""
    count = tokenizer_files.byte_level(folder)
    config = GPT2Config(
        vocab_size=count, n_embd=32, n_layer=2, n_head=4, n_positions=24,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    draw(GPT2LMHeadModel(config)).save_pretrained(folder)


def gpt2_first_files(folder):
    """As OpenAI's are published: the body alone, pytorch_model.bin, with the causal masks."""
    count = tokenizer_files.byte_level(folder)
    config = GPT2Config(
        vocab_size=count, n_embd=48, n_layer=3, n_head=3, n_positions=17, n_inner=80,
        activation_function="gelu", layer_norm_epsilon=1e-3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = draw(GPT2LMHeadModel(config))
    tensors = dict(model.transformer.state_dict())
    for i in range(config.n_layer):
        tensors[f"h.{i}.attn.bias"] = torch.ones(1, 1, 17, 17).tril()
    torch.save(tensors, folder / "pytorch_model.bin")
    config.save_pretrained(folder)


def llama(folder):
    """A head of its own, grouped queries, in shards, with a SentencePiece tokenizer."""
    count = tokenizer_files.sentence_pieces(
        folder, "tokenizer.model", vocab_size=300, model_type="bpe", byte_fallback=True
    )
    config = LlamaConfig(
        vocab_size=count, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=40,
        tie_word_embeddings=False,
    )  # fmt: skip
    draw(LlamaForCausalLM(config)).save_pretrained(folder, max_shard_size="40KB")


def qwen2(folder):
    """Tied, in bfloat16, with a tokenizer.json."""
    count = tokenizer_files.pipeline(folder, "<|im_end|>")
    config = Qwen2Config(
        vocab_size=count, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    draw(Qwen2ForCausalLM(config)).to(torch.bfloat16).save_pretrained(folder)


def t5(tied, **fields):
    """`make` of one version."""

    def make(folder):
        options = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        count = tokenizer_files.sentence_pieces(folder, "spiece.model", vocab_size=45, **options)
        config = T5Config(
            # A hundred sentinels follow the pieces, and rows that no token has.
            vocab_size=count + 100 + 4, d_model=48, d_kv=10, d_ff=40, num_heads=3, num_layers=2,
            decoder_start_token_id=0, tie_word_embeddings=tied, **fields,
        )  # fmt: skip
        model = T5ForConditionalGeneration(config)
        if not tied:
            # The library ties in any case, until it finds two different tensors in a file.
            model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        draw(model)
        for name, values in model.named_parameters():
            # T5 does not scale its scores by a head's width: its queries are so much smaller.
            if name.endswith("Attention.q.weight"):
                values.data *= config.d_kv**-0.5
        model.save_pretrained(folder)

    return make


def t5_answer(folder, dtype):
    """The encoder's states, and logits of the same words after the padding."""
    model, found = whole(T5ForConditionalGeneration, folder, dtype), {}
    for i, ids in enumerate(rows(folder)):
        begun = torch.nn.functional.pad(ids, (1, 0))
        out = model(input_ids=ids, decoder_input_ids=begun)
        found |= {f"states_{i}": out.encoder_last_hidden_state, f"logits_{i}": out.logits}
    return arrays(**found)


def bert(kind, **fields):
    """`make` of a BERT."""

    def make(folder):
        count = tokenizer_files.word_pieces(folder)
        config = BertConfig(
            vocab_size=count, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=72, max_position_embeddings=23, **fields,
        )  # fmt: skip
        draw(kind(config)).save_pretrained(folder)

    return make


def bert_answer(folder, dtype):
    """States and the pooled state."""
    model, found = whole(BertModel, folder, dtype), {}
    for i, ids in enumerate(rows(folder)):
        out = model(ids)
        found |= {f"states_{i}": out.last_hidden_state, f"pooled_{i}": out.pooler_output}
    return arrays(**found)


CASES = {
    "gpt2": (gpt2, causal(GPT2LMHeadModel)),
    "gpt2_first_files": (gpt2_first_files, causal(GPT2LMHeadModel)),
    "llama": (llama, causal(LlamaForCausalLM)),
    "qwen2": (qwen2, causal(Qwen2ForCausalLM)),
    "t5_1.0": (t5(True, feed_forward_proj="relu"), t5_answer),
    "t5_1.1": (t5(False, feed_forward_proj="gated-gelu"), t5_answer),
    "bert": (bert(BertModel, layer_norm_eps=1e-5, hidden_act="gelu_new"), bert_answer),
    "bert_with_heads": (bert(BertForPreTraining), bert_answer),
}
