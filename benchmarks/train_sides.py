"""The two sides of `benchmarks.train`, each run in a process of its own.

    PYTHON -m benchmarks.train_sides OPTIONS.json

OPTIONS holds the arguments of the benchmark, `side`, `weights` (an .npz that the peer writes) and
`out`. The side `weights` draws OpenCLIP's first weights and writes them; `capjax` and `open_clip`
take their steps from them. What is imported depends on the side, so that the peer's Python needs
torch and open_clip only.

Letters: B batch, S side in pixels, L tokens.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

CHECKED = 3  # first steps, not timed, whose losses are compared
CONTEXT = {"clip": 77, "coca": 76}  # [CLS] follows CoCa's as the 77th position
BOS, EOS = 49_406, 49_407
CAPTION_WEIGHT = 2.0  # CoCa's
# A rate from early in CLIP's warm-up to 5e-4: with the full rate, the losses of fresh weights jump
# about, and differences of rounding grow from step to step.
LEARNING_RATE, WEIGHT_DECAY, B1, B2, EPSILON = 1e-5, 0.2, 0.9, 0.98, 1e-8


def batch(pairs: int, size: int, context: int):
    """uint8 [B,S,S,3] and int [B,L]: noise, and captions of 5 to 40 tokens, padded with 0."""
    import numpy as np

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (pairs, size, size, 3), dtype=np.uint8)
    tokens = np.zeros((pairs, context), np.int64)
    for row in tokens:
        end = rng.integers(4, 40)
        row[0], row[1:end], row[end] = BOS, rng.integers(1, BOS, end - 1), EOS
    return image, tokens


def timed(step: Callable, loss: Callable, wait: Callable, steps: int) -> dict:
    """First CHECKED steps one by one, then `steps` of them, at whose end it waits for the device.

    loss: what a step returns -> float. The peak of resident memory is that of the timed steps.
    """
    losses, first = [], time.perf_counter()
    for index in range(CHECKED):
        losses.append(loss(step()))
        if index == 0:
            first = time.perf_counter() - first
    wait()
    with contextlib.suppress(OSError):  # where it cannot be reset, the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    wait()
    return {
        "seconds": (time.perf_counter() - start) / steps,
        "cpu_seconds": (time.process_time() - cpu_start) / steps,
        "gib": _resident_peak() / 2**30,
        "losses": losses,
        "first_seconds": first,
    }


def _resident_peak() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _our_task(options: SimpleNamespace):
    """(task, its module of `capjax.weights`) of the model that is asked for."""
    from capjax.models import clip, open_clip_coca
    from capjax.special_tokens import SpecialTokens
    from capjax.tasks import coca, contrastive
    from capjax.weights import clip as clip_names
    from capjax.weights import coca as coca_names

    how = dict(dtype=options.dtype, attention=options.attention)
    if options.model == "clip":
        model = clip.published(options.variant, **how)
        return contrastive.Task(model=model), clip_names.VIT, clip_names.UNREAD
    model = open_clip_coca.Model(
        EOS + 1, CONTEXT["coca"], open_clip_coca.VARIANTS[options.variant].image_size,
        options.variant, special_tokens=SpecialTokens(0, BOS, EOS, (0, BOS)), **how,
    )  # fmt: skip
    task = coca.Task(model=model, caption_weight=CAPTION_WEIGHT)
    return task, coca_names.TABLE, coca_names.UNREAD


def capjax(options: SimpleNamespace) -> dict:
    """Ours: the step of the training loop itself."""
    import jax
    import numpy as np

    from capjax import flops
    from capjax.config import base
    from capjax.optimizers import make_optimizer, make_schedule
    from capjax.parallel import mesh as mesh_lib
    from capjax.train_step import abstract_state, init_state, make_step
    from capjax.weights.table import to_params

    if options.device == "gpu" and jax.default_backend() != "gpu":
        sys.exit("this Python's JAX finds no GPU: install jax[cuda12], or choose --device cpu")
    if options.dtype == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")  # no TF32, as on the peer's
    task, table, unread = _our_task(options)
    config = base()
    config.optimizer.update(
        learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, b1=B1, b2=B2, clip_norm=0.0
    )
    config.optimizer.schedule.name = "constant"
    schedule = make_schedule(config.optimizer, CHECKED + options.steps)
    tx = make_optimizer(config.optimizer, schedule)
    mesh = mesh_lib.make_mesh({"data": 1})
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, tx, 0.0, (), mesh)
        params = to_params(table, abstract["params"], np.load(options.weights), unread)
        shardings = jax.tree.map(lambda x: x.sharding, abstract["params"])
        state = init_state(task, tx, 0.0, abstract, 0, jax.device_put(params, shardings))
        del params
        step = make_step(
            task, tx, schedule, seed=0, accumulate_steps=1, ema_decay=0.0, abstract=abstract,
            mesh=mesh,
        )  # fmt: skip
        image, tokens = batch(options.batch, task.model.image_size, CONTEXT[options.model])
        inputs = {"image": image, "tokens": tokens.astype(np.int32)}
        inputs = mesh_lib.put_batch(inputs, mesh_lib.batch_sharding(mesh))
        start = time.perf_counter()
        program = step.lower(state, inputs).compile()
        compiling = time.perf_counter() - start
        forward = jax.make_jaxpr(task.loss)(abstract["params"], inputs, jax.random.key(0))

        def one() -> dict:
            nonlocal state
            state, metrics = program(state, inputs)
            return metrics

        found = timed(
            one, lambda x: float(x["loss"]), lambda: jax.block_until_ready(state), options.steps
        )
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return found | {
        "gib": stats.get("peak_bytes_in_use", 0) / 2**30 or found["gib"],
        "first_seconds": found["first_seconds"] + compiling,
        "flops": 3 * flops.products(forward.jaxpr),
        "program_flops": flops.program_flops(program),
        "peak": flops.peak_flops(device),
        "device": "CPU" if device.platform == "cpu" else device.device_kind,
        "version": f"jax {jax.__version__}",
    }


def _peer_model(options: SimpleNamespace):
    import open_clip

    if options.model == "coca":
        return open_clip.create_model(options.variant, pretrained=None)
    # "ViT-L/14@336" is "ViT-L-14-336-quickgelu" there.
    name = options.variant.replace("/", "-").replace("@", "-") + "-quickgelu"
    return open_clip.create_model(name, pretrained=None)


def weights(options: SimpleNamespace) -> dict:
    """Writes the weights that both sides start from: OpenCLIP's own first ones."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    state = _peer_model(options).state_dict()
    np.savez(options.weights, **{name: value.numpy() for name, value in state.items()})
    return {}


def open_clip(options: SimpleNamespace) -> dict:
    """The peer: OpenCLIP's model and loss in its own training recipe, with torch's fused AdamW."""
    import numpy as np
    import torch
    from open_clip import ClipLoss, CoCaLoss

    on_gpu = options.device == "gpu"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("the peer's PyTorch finds no GPU: install its CUDA build, or choose --device cpu")
    device = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    model = _peer_model(options)
    with np.load(options.weights) as file:
        model.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(
        _groups(model), lr=LEARNING_RATE, betas=(B1, B2), eps=EPSILON, fused=True
    )
    image, tokens = batch(options.batch, model.visual.image_size[0], CONTEXT[options.model])
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous().to(device)
    tokens = torch.from_numpy(tokens).to(device)
    mean, deviation = (
        torch.tensor(x, device=device).view(1, 3, 1, 1)
        for x in (model.visual.image_mean, model.visual.image_std)
    )
    scale_of = model.logit_scale
    is_coca = options.model == "coca"
    loss_of = CoCaLoss(CAPTION_WEIGHT, clip_loss_weight=1.0) if is_coca else ClipLoss()
    forward = torch.compile(model) if options.compile else model
    mixed = options.dtype == "bfloat16"

    def one() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            out = forward((pixels.float() / 255 - mean) / deviation, tokens)
            loss = sum(loss_of(**out)) if is_coca else loss_of(*out[:3])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scale_of.clamp_(0, math.log(100))
        return loss.detach()

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    found = timed(one, float, torch.cuda.synchronize if on_gpu else lambda: None, options.steps)
    if on_gpu:
        found["gib"] = torch.cuda.max_memory_allocated() / 2**30
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    return found | {"device": name, "version": f"torch {torch.__version__}"}


CLASS_TOKENS = ("visual.class_embedding", "text.cls_emb")


def _groups(model) -> list[dict]:
    """Weights with decay, then gains, biases and the scale; class tokens have it, as ours do.

    OpenCLIP's own recipe spares class tokens too, since they are vectors there.
    """
    decayed, spared = [], []
    for name, value in model.named_parameters():
        (decayed if value.ndim > 1 or name in CLASS_TOKENS else spared).append(value)
    return [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": spared, "weight_decay": 0.0},
    ]


def main() -> None:
    options = SimpleNamespace(**json.loads(Path(sys.argv[1]).read_text()))
    if options.device == "cpu":
        # Before any library counts the cores: XLA's threads are as many as it may run on.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    run = {"capjax": capjax, "open_clip": open_clip, "weights": weights}[options.side]
    Path(options.out).write_text(json.dumps(run(options)))


if __name__ == "__main__":
    main()
