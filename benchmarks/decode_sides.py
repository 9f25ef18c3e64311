"""The sides of `benchmarks.decode`, each in a process of its own that answers line by line.

    PYTHON -m benchmarks.decode_sides OPTIONS.json

OPTIONS holds `side`, `model` ("coca" or "blip"), `threads`, `folder` (of the weights) and
`longest`. The side `weights` draws the peer's own first weights, writes them and ends. `capjax` and
`peer` read them, then answer each line of their input, a request, by a line of JSON. A request has
`batch` B, `tokens` L, `guidance` (1: none), `warm` (not timed: make ready what is) and, for
`capjax`, `what` ("captions" or "facts") and `encode` (time the image encoder as well, as always
with CoCa). What is imported depends on the side, so that the peer's Python needs torch,
safetensors, open_clip and transformers only.

A row of L tokens is one that is read first and L - 1 that are written. The weights write no end: in
CoCa the head's columns of SOT, EOT and padding are zero, below the best of 49,408 logits; in BLIP
the head's bias of [DEC], [SEP] and [PAD] is -10,000.

CoCa is timed from pictures to tokens: OpenCLIP's `generate`, top_k=1, which is greedy. It reads all
of a row in each step and keeps nothing but what it reads of the picture. BLIP is timed from the
encoded pictures on: `text_decoder.generate` of the transformers library, which is what its own
`generate` calls then. Guidance is, in the peer, a logits processor that gives the row's last token
to the decoder a second time, with zeros for the picture and a cache of its own.

Letters: B batch, S side in pixels, L tokens of a row, V vocabulary.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VOCABULARY = {"coca": 49_408, "blip": 30_524}
PAD = 0
BOS = {"coca": 49_406, "blip": 30_522}
EOS = {"coca": 49_407, "blip": 102}
SIDE = {"coca": 224, "blip": 384}
COCA, COCA_TOKENS = "coca_ViT-B-32", 76
# The statistics that both normalise pictures by.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
UNLIKELY = -1e4
FILE = "model.safetensors"


def pictures(count: int, size: int):
    """uint8 [B,S,S,3]: coarse noise, so that pictures differ in more than their texture."""
    import numpy as np

    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(size // 8, 1).repeat(size // 8, 2)


def clocked(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What the work gives, with its wall and CPU seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    made = work()
    took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    return made, took


def capjax(options: SimpleNamespace) -> Callable[[SimpleNamespace], dict]:
    """Ours: `capjax.decode.search`."""
    import jax
    import numpy as np

    from capjax.decode.captioner import encode_image
    from capjax.decode.options import Options
    from capjax.decode.search import search
    from capjax.models import blip, open_clip_coca, turned
    from capjax.models.init import inputs_of
    from capjax.special_tokens import SpecialTokens
    from capjax.weights import blip as blip_names
    from capjax.weights import coca as coca_names
    from capjax.weights.families import open_source
    from capjax.weights.table import to_params

    module = {"coca": open_clip_coca, "blip": blip}[options.model]
    model = module.Model(
        vocab_size=VOCABULARY[options.model],
        # CoCa's positions are those of its weights, for rows of 76 tokens.
        max_length=COCA_TOKENS if options.model == "coca" else options.longest,
        image_size=SIDE[options.model],
        special_tokens=SpecialTokens(
            PAD, BOS[options.model], EOS[options.model], (PAD, BOS[options.model])
        ),
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model))["params"]
    source = open_source(options.folder)
    names = coca_names if options.model == "coca" else blip_names.plan(source)
    table, unread = (
        (names.TABLE, names.UNREAD) if options.model == "coca" else (names.table, names.unread)
    )
    # As `capjax.caption` does on a CPU.
    model, params = turned.turn(
        model, jax.device_put(to_params(table, shapes, source.tensors, unread))
    )
    encoded: dict[int, Any] = {}

    def answer(request: SimpleNamespace) -> dict:
        if request.what == "facts":
            return facts(model, params, request)
        image = pictures(request.batch, SIDE[options.model])
        if request.batch not in encoded:
            encoded[request.batch] = jax.block_until_ready(
                encode_image(model, params, image).context
            )
        how = Options(max_length=request.tokens - 1)

        def work():
            context = encoded[request.batch]
            if options.model == "coca" or request.encode:
                context = encode_image(model, params, image).context
            return np.asarray(search(model, params, context, request.guidance, how).tokens)

        tokens, took = clocked(work)
        return took | {"tokens": tokens[:, 0].tolist()}

    return answer


def facts(model: Any, params: Any, request: SimpleNamespace) -> dict:
    """Of the cache, and of how often a loop is compiled over mixed captions.

    Mixed: each call has other pictures, scales (one, or one a picture), and prompts of other
    lengths in rows that are padded to one length.
    """
    import jax
    import numpy as np

    from capjax.decode.captioner import encode_image
    from capjax.decode.options import Options
    from capjax.decode.search import search

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    rng = np.random.default_rng(0)
    image = pictures(request.batch, model.image_size)
    context = encode_image(model, params, image).context
    counts = []
    for turn in range(6):
        before = len(compiled)
        scale = rng.uniform(1.5, 3, request.batch) if turn % 2 else 1.5 + turn / 10
        lengths = rng.integers(0, 4, request.batch)
        found = search(
            model,
            params,
            np.roll(context, turn, 0),
            scale,
            Options(max_length=4),
            prompt=rng.integers(1000, 2000, (request.batch, 3)),
            prompt_length=lengths,
        )
        jax.block_until_ready(found)
        counts.append(len(compiled) - before)
    started = jax.jit(lambda p, x: model.apply({"params": p}, x, method="start_decoding"))
    held = sum(x.nbytes for x in jax.tree.leaves(started(params, context)))
    return {"cache_bytes": held, "states": context.shape[1], "compilations": counts}


def _coca(folder: str | None):
    """OpenCLIP's CoCa; without a file of weights, its own first ones."""
    import open_clip
    import torch
    from open_clip import coca_model
    from safetensors.torch import load_file

    if not coca_model._has_transformers:
        # Newer transformers lack what its beam search imports, so that it refuses every search; the
        # greedy one needs what is there.
        from transformers import TopKLogitsWarper

        coca_model._has_transformers = True
        coca_model.GENERATION_TYPES["top_k"] = TopKLogitsWarper
    model = open_clip.create_model(COCA, pretrained=None).eval()
    if folder:
        model.load_state_dict(load_file(Path(folder, FILE)))
        return model
    with torch.no_grad():
        head = model.text_decoder.text_projection  # OpenCLIP leaves it as memory happens to be
        head.normal_(std=head.shape[0] ** -0.5)
        head[:, [PAD, BOS["coca"], EOS["coca"]]] = 0
    return model


def _blip(folder: str | None):
    """BLIP base as the transformers library has it; without weights, its own first ones."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    if folder:
        return BlipForConditionalGeneration.from_pretrained(folder).eval()
    ids = dict(bos_token_id=BOS["blip"], sep_token_id=EOS["blip"], pad_token_id=PAD)
    config = BlipConfig(
        text_config=dict(num_attention_heads=12, vocab_size=VOCABULARY["blip"], **ids),
        vision_config=dict(image_size=SIDE["blip"]),
    )
    model = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        bias = model.text_decoder.cls.predictions.bias
        bias[[PAD, BOS["blip"], EOS["blip"]]] = UNLIKELY
    return model


MAKE = {"coca": _coca, "blip": _blip}


def weights(options: SimpleNamespace) -> None:
    """Writes the weights that both sides read, and what else ours reads of a checkpoint."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model, folder = MAKE[options.model](None), Path(options.folder)
    if options.model == "coca":
        save_file(model.state_dict(), folder / FILE)
        return
    model.save_pretrained(folder)
    words = [f"w{number}" for number in range(VOCABULARY["blip"] - 2)]
    words[PAD], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def peer(options: SimpleNamespace) -> Callable[[SimpleNamespace], dict]:
    """OpenCLIP's or the transformers library's."""
    import torch

    torch.set_num_threads(options.threads)
    model = MAKE[options.model](options.folder)
    mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, DEVIATION))
    encoded: dict[int, torch.Tensor] = {}

    def caption(pixels: torch.Tensor, tokens: int) -> torch.Tensor:
        # Its rows hold SOT, and the last token is EOT whatever the logits are.
        return model.generate(
            pixels,
            seq_len=tokens,
            min_seq_len=0,
            generation_type="top_k",
            top_k=1,
        )

    def write(context: torch.Tensor, tokens: int, guidance: float) -> torch.Tensor:
        batch = len(context)
        processors = [TwoPasses(model.text_decoder, context, guidance)] if guidance != 1 else []
        return model.text_decoder.generate(
            input_ids=torch.full((batch, 1), BOS["blip"]),
            encoder_hidden_states=context,
            encoder_attention_mask=torch.ones(context.shape[:2], dtype=torch.long),
            eos_token_id=EOS["blip"],
            pad_token_id=PAD,
            max_new_tokens=tokens - 1,
            do_sample=False,
            logits_processor=processors,
        )

    def answer(request: SimpleNamespace) -> dict:
        image = torch.from_numpy(pictures(request.batch, SIDE[options.model]))
        pixels = (image.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
        length = min(request.tokens, 4) if request.warm else request.tokens
        if options.model == "coca":
            tokens, took = clocked(lambda: caption(pixels, length))
        else:
            if request.batch not in encoded:
                encoded[request.batch] = model.vision_model(pixels)[0]
            context = encoded[request.batch]
            tokens, took = clocked(lambda: write(context, length, request.guidance))
        return took | {"tokens": tokens[:, 1:].tolist()}

    def without_gradients(request: SimpleNamespace) -> dict:
        with torch.no_grad():
            return answer(request)

    return without_gradients


class TwoPasses:
    """unconditional + gamma (conditional - unconditional), by a second pass of the decoder."""

    def __init__(self, decoder: Any, context: Any, guidance: float):
        self.decoder, self.context, self.guidance = decoder, context * 0, guidance
        self.cache = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """input_ids int [B,L], scores [B,V] -> guided scores [B,V]."""
        out = self.decoder(
            input_ids=input_ids[:, -1:],
            encoder_hidden_states=self.context,
            past_key_values=self.cache,
            use_cache=True,
            is_decoder=True,
        )
        self.cache = out.past_key_values
        unconditional = out.logits[:, -1]
        return unconditional + self.guidance * (scores - unconditional)


def version(options: SimpleNamespace) -> str:
    """Of what a side is built on."""
    on = ("jax",)
    if options.side == "peer":
        on = ("torch", {"coca": "open_clip_torch", "blip": "transformers"}[options.model])
    return " ".join(f"{name} {metadata.version(name)}" for name in on)


def main() -> None:
    options = SimpleNamespace(**json.loads(Path(sys.argv[1]).read_text()))
    # Before any library counts the cores: XLA's threads are as many as it may run on.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    # Libraries may print; answers alone go to where the benchmark reads.
    answers, sys.stdout = sys.stdout, sys.stderr
    if options.side == "weights":
        weights(options)
        return
    answer = {"capjax": capjax, "peer": peer}[options.side](options)
    print(json.dumps({"version": version(options)}), file=answers, flush=True)  # it is ready
    for line in sys.stdin:
        print(json.dumps(answer(SimpleNamespace(**json.loads(line)))), file=answers, flush=True)


if __name__ == "__main__":
    main()
