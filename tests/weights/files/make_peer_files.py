"""Writes data/peer_files.json: small checkpoints made by torch and safetensors themselves.

The tests read them without either library. Run where torch, safetensors and huggingface_hub are
installed:

    python tests/weights/files/make_peer_files.py

The JSON has "files" (name -> zlib-compressed bytes in base64) and "tensors" (file -> tensor ->
[dtype, shape, bytes in base64], as torch gives them back). Written with torch 2.13, safetensors
0.8 and huggingface_hub 2.4.
"""

import base64
import io
import json
import pathlib
import tempfile
import zipfile
import zlib

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

DATA = pathlib.Path(__file__).parent / "data" / "peer_files.json"

KINDS = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "bool": torch.bool,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
    "u16": torch.uint16,
}


class Module(torch.nn.Module):
    """Parameters, buffers, a shared module, and attributes that are no tensors."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 3)
        self.rest = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        self.shared = self.first
        self.logit_scale = torch.nn.Parameter(torch.tensor(1.5))
        self.in_half = torch.nn.Parameter(torch.randn(3).half())
        self.register_buffer("mask", torch.ones(2, 2).tril().bool())
        self.size = 224
        self.sizes = [1, 2]

    def forward(self, x):
        return self.rest(self.first(x) + self.shared(x)) * self.logit_scale


def every_kind():
    """One tensor of each dtype, a scalar and two empty ones."""
    x = torch.linspace(-3, 9, 6).reshape(2, 3)
    tensors = {name: (x.abs() if name[0] == "u" else x).to(kind) for name, kind in KINDS.items()}
    scalar, empty = torch.tensor(2.5), torch.zeros(0)
    return {**tensors, "scalar": scalar, "empty": empty, "no_rows": torch.zeros(2, 0, 3)}


def with_views():
    """The same, and tensors that share storage or are not contiguous."""
    grid = torch.arange(60.0).reshape(5, 12)
    tensors = every_kind()
    return {
        **tensors,
        "grid": grid,
        "transposed": grid.T,
        "every_third": grid[1:4, 2:9:3],
        "expanded": grid[:1].expand(3, 12),
        "tied": tensors["f32"],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def without_debug_entries(archive):
    """A TorchScript archive without its debug entries, which name the maker's folders."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(name), old.read(name))
    return out.getvalue()


def frozen(tensor):
    tensor = tensor.detach().clone().contiguous()
    data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    name = str(tensor.dtype).removeprefix("torch.")
    return [name, list(tensor.shape), base64.b64encode(data).decode()]


def main():
    torch.manual_seed(0)
    tensors = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tensors["kinds.safetensors"] = every_kind()
        save_file(every_kind(), folder / "kinds.safetensors")

        state = dict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor(2.5), c=torch.ones(3).half())
        state["d"] = torch.ones(0, dtype=torch.int8)
        tensors["plain.safetensors"] = state
        save_file(state, folder / "plain.safetensors", metadata={"format": "pt"})
        save_torch_state_dict(state, folder, max_shard_size=26)

        tensors["views.pt"] = with_views()
        torch.save(with_views(), folder / "views.pt")
        tensors["protocol4.pt"] = state
        torch.save(state, folder / "protocol4.pt", pickle_protocol=4)
        legacy = {k: v for k, v in with_views().items() if k not in ("f8_e4m3", "f8_e5m2", "u16")}
        tensors["legacy.pth"] = legacy
        torch.save(legacy, folder / "legacy.pth", _use_new_zipfile_serialization=False)

        module = torch.nn.BatchNorm1d(3)
        tensors["wrapped.ckpt"] = module.state_dict()
        parallel = torch.nn.DataParallel(module).state_dict()
        optimizer = torch.optim.AdamW(module.parameters()).state_dict()
        torch.save(
            {"epoch": 3, "state_dict": parallel, "optimizer": optimizer}, folder / "wrapped.ckpt"
        )
        torch.save(module, folder / "whole_module.pt")

        script = torch.jit.script(Module())
        tensors["script.pt"] = script.state_dict()
        torch.jit.save(script, folder / "script.pt")
        path = folder / "script.pt"
        path.write_bytes(without_debug_entries(path.read_bytes()))

        files = {
            path.name: base64.b64encode(zlib.compress(path.read_bytes(), 9)).decode()
            for path in sorted(folder.iterdir())
        }
    expected = {file: {n: frozen(t) for n, t in of.items()} for file, of in tensors.items()}
    DATA.write_text(json.dumps({"files": files, "tensors": expected}, indent=0) + "\n")


if __name__ == "__main__":
    main()
