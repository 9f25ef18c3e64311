"""Indices of tar shards: building them against merely reading the tars, and opening large ones.

    python -m benchmarks.tar_index [--gib 1] [--picture 40000] [--repeats 5] [--records 10000000]
        [--folder DIR]

build  one tar of pictures of --picture bytes with a .json and a .txt each, as img2dataset writes
       them. Ours reads its headers and makes the index, in one thread; the other side reads the
       whole file in pieces of 1 MiB and does nothing with them, as `cat` to nowhere would. The
       sides take turns, once with the file in the system's cache and once after the system was
       asked to drop it (posix_fadvise; what lies in the cache of a virtual machine's host stays).
       Prints GB of tar a second, and how many times as fast ours is: median, lowest and highest.
open   indices of --records records of three members, in shards of 10,000 and in one shard, made
       without their tars' content. Prints the seconds of `webdataset.Source(...)` and of 10,000
       records looked up at random, and the resident memory before, after each.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from capjax.data import tar_index
from capjax.data.tars import IndexedFile

LOOKED_UP = 10_000


def write_tar(path: Path, size: int, picture: int) -> None:
    """A tar of about `size` bytes."""
    rng = np.random.default_rng(0)
    noise = rng.bytes(4 << 20)
    with tarfile.open(path, "w") as tar:
        for i in range(max(1, size // (picture + 2048))):
            length = int(rng.integers(picture // 2, picture * 3 // 2))
            start = int(rng.integers(len(noise) - length))
            about = {"caption": f"picture {i}", "url": "http://" + "x" * 80, "key": f"{i:09d}"}
            for extension, content in (
                ("jpg", noise[start : start + length]),
                ("json", json.dumps(about).encode()),
                ("txt", about["caption"].encode()),
            ):
                info = tarfile.TarInfo(f"{i:09d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def ours(path: Path) -> None:
    tar_index.build(IndexedFile(path))


def reading(path: Path) -> None:
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


SIDES = {"ours": ours, "reading": reading}


def drop_from_cache(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(path: Path, cold: bool, repeats: int) -> None:
    size, seconds = path.stat().st_size, {name: [] for name in SIDES}
    for repeat in range(repeats):
        order = list(SIDES) if repeat % 2 == 0 else list(SIDES)[::-1]
        for name in order:
            if cold:
                drop_from_cache(path)
            start = time.perf_counter()
            SIDES[name](path)
            seconds[name].append(time.perf_counter() - start)
    where = "not in the cache" if cold else "in the cache"
    for name, taken in seconds.items():
        rates = sorted(size / second / 1e9 for second in taken)
        print(
            f"build, tar {where}, {name}: {statistics.median(rates):.2f} GB/s "
            f"(lowest {rates[0]:.2f}, highest {rates[-1]:.2f})"
        )
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["reading"], strict=True)]
    print(
        f"build, tar {where}: ours is {statistics.median(ratios):.2f} times as fast as reading it "
        f"(lowest {min(ratios):.2f}, highest {max(ratios):.2f}, {len(ratios)} pairs)",
        flush=True,
    )


def write_indices(folder: Path, records: int, shards: int) -> int:
    """Indices of tars that are all hole; returns their bytes."""
    each, total = records // shards, 0
    rows = np.arange(3 * each, dtype=np.uint64)
    arrays = {
        "signature": np.zeros(each, np.uint64),
        "first": rows[:each] * 3,
        "name_end": rows[1 : each + 1] * 9,
        "names": np.frombuffer(b"".join(b"%09d" % i for i in range(each)), np.uint8),
        "offset": rows * 14336 + 512,
        "size": rows % 40000,
        "crc": rows * 1234567 % 2**32,
    }
    kinds = [("", (("jpg", ""), ("json", ""), ("txt", "")))]
    for shard in range(shards):
        path = folder / f"{shard:05d}.tar"
        with path.open("wb") as file:
            file.truncate(3 * each * 14336)
        stamp = tar_index.stamp_of(IndexedFile(path))
        index = tar_index.pack(path.name, stamp, kinds, arrays)
        tar_index.write(f"{path}.index", index)
        total += len(index)
    return total


def resident() -> float:
    """MiB of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def open_set(folder: str) -> None:
    """In a process of its own: opens the set, and looks records up."""
    from capjax.data.webdataset import Source

    before = resident()
    start = time.perf_counter()
    source = Source(f"{folder}/*.tar")
    opened = time.perf_counter() - start
    after = resident()
    chosen = np.random.default_rng(0).integers(len(source), size=LOOKED_UP)
    start = time.perf_counter()
    for i in chosen:
        _, index, record = source._find(i)
        index.name(record)
    looked_up = time.perf_counter() - start
    shards = len(os.listdir(folder)) // 2
    print(
        f"open, {len(source):,} records in {shards:,} shards: {opened:.3f} s; "
        f"{LOOKED_UP:,} random records looked up in {looked_up:.2f} s; "
        f"resident {before:.0f} MiB before, {after:.0f} opened, {resident():.0f} looked up",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tar_index",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gib", type=float, default=1.0, help="size of the tar that is indexed")
    parser.add_argument("--picture", type=int, default=40_000, help="mean bytes of its pictures")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--folder", help="where to put some gigabytes (default: the system's own)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        open_set(args.child)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "set.tar"
        write_tar(path, int(args.gib * 2**30), args.picture)
        for cold in (False, True):
            compare(path, cold, args.repeats)
    for shards in (max(1, args.records // 10_000), 1):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            total = write_indices(Path(folder), args.records, shards)
            print(f"open, {shards:,} shards: indices of {total / args.records:.0f} bytes a record")
            for _ in range(args.repeats):
                command = [sys.executable, "-m", "benchmarks.tar_index", "--child", folder]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
