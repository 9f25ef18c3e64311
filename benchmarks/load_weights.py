"""Loading a published checkpoint: peak memory of the host beside what its devices hold.

  python -m benchmarks.load_weights --variant llama-3.2-3b --devices 8

A checkpoint of this shape is made at random in shards of safetensors, in bfloat16, and loaded onto
simulated devices, spread by "fsdp". Printed are the bytes of the parameters, the largest tensor,
the highest anonymous memory (RssAnon: what the process has allocated; pages of mapped files are
the kernel's to drop) and the highest resident memory in all, above what the process had before.
The claim: anonymous memory at most the parameters on its devices and 1.2 times the largest tensor.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import threading
import time
from pathlib import Path

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variant", default="llama-3.2-3b", help="of capjax.models.language_model")
    parser.add_argument("--devices", type=int, default=8, help="simulated, on the CPU")
    parser.add_argument("--shard-gb", type=float, default=2.0, help="of the checkpoint's files")
    parser.add_argument("--folder", help="for the checkpoint; a temporary one by default")
    args = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={args.devices}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write(Path(folder), args.variant, int(args.shard_gb * 1e9))
        measure(Path(folder))


def write(folder: Path, variant: str, shard_bytes: int) -> None:
    """A Llama of this variant with random weights, as the transformers library would publish it."""
    import ml_dtypes
    import numpy as np
    import tokenizers

    from capjax.models.language_model import VARIANTS
    from capjax.weights.files.safetensors_writer import write as write_tensors

    v = VARIANTS[variant]
    head = v.head_width or v.width // v.heads
    rows = v.rows or 32_000
    config = dict(
        model_type="llama",
        hidden_size=v.width,
        intermediate_size=v.mlp_dim,
        num_attention_heads=v.heads,
        num_key_value_heads=v.kv_heads,
        rms_norm_eps=v.epsilon,
        rope_theta=v.rotary_theta,
        tie_word_embeddings=v.tied,
        max_position_embeddings=v.max_positions,
    )
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = dict(bos_token="<s>", eos_token="</s>")
    (folder / "tokenizer_config.json").write_text(json.dumps(specials))
    shapes = {"model.embed_tokens.weight": (rows, v.width), "model.norm.weight": (v.width,)}
    if not v.tied:
        shapes["lm_head.weight"] = (rows, v.width)
    for i in range(v.layers):
        layer = f"model.layers.{i}"
        for name, heads in (("q", v.heads), ("k", v.kv_heads), ("v", v.kv_heads)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (heads * head, v.width)
        shapes |= {
            f"{layer}.self_attn.o_proj.weight": (v.width, v.heads * head),
            f"{layer}.mlp.gate_proj.weight": (v.mlp_dim, v.width),
            f"{layer}.mlp.up_proj.weight": (v.mlp_dim, v.width),
            f"{layer}.mlp.down_proj.weight": (v.width, v.mlp_dim),
            f"{layer}.input_layernorm.weight": (v.width,),
            f"{layer}.post_attention_layernorm.weight": (v.width,),
        }
    rng = np.random.default_rng(0)
    noise = (0.02 * rng.standard_normal(2**22, np.float32)).astype(ml_dtypes.bfloat16)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return np.resize(np.roll(noise, int(rng.integers(len(noise)))), shape)

    tensors = [
        (name, shape, np.dtype(ml_dtypes.bfloat16), lambda shape=shape: draw(shape))
        for name, shape in shapes.items()
    ]
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"}, shard_bytes)


def measure(folder: Path) -> None:
    """Loads it while a thread looks at the process's memory."""
    import jax

    from capjax.weights.files import open_tensors
    from capjax.weights.importing import load

    tensors = open_tensors(folder)
    largest = max(math.prod(tensors.shape(n)) * tensors.dtype(n).itemsize for n in tensors)
    jax.devices()
    before, peak, done = memory(), dict.fromkeys(memory(), 0), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            now = memory()
            for name in peak:
                peak[name] = max(peak[name], now[name] - before[name])

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    loaded = load(folder, dtype="bfloat16")
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    leaves = jax.tree.leaves(loaded.params)
    held = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    count = sum(leaf.size for leaf in leaves)
    print(
        f"{count / 1e9:.2f} billion parameters over {len(jax.devices())} devices, {seconds:.0f} s"
    )
    print(f"on devices {held / GIB:.2f} GiB, largest tensor {largest / GIB:.2f} GiB")
    print(f"highest anonymous memory {peak['RssAnon'] / GIB:.2f} GiB above the start")
    print(f"highest resident memory  {peak['VmRSS'] / GIB:.2f} GiB, pages of the files included")
    over = (peak["RssAnon"] - held) / largest
    print(f"anonymous memory beyond the devices' parts: {over:.2f} of the largest tensor")


def memory() -> dict[str, int]:
    """Bytes of this process: all that is resident, and what of it is not a file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon")}


if __name__ == "__main__":
    main()
