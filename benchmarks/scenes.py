"""How many generated scenes one core draws a second, records complete: image, masks, boxes, graph
and captions.

    python -m benchmarks.scenes [--records 1000] [--repeats 5]

Prints, for each size of picture and number of objects, the median over the repeats and the lowest
and highest rate. Time is this process's own CPU time, so that a busy machine changes it less.
"""

from __future__ import annotations

import argparse
import statistics
import time

from capjax.data.scenes import Source

SIZES = (32, 64, 128)


def rates(source: Source, records: int, repeats: int) -> list[float]:
    """Records per second of CPU time, one value per repeat, each on records not seen before."""
    for index in range(records):  # fills the caches of stamps
        source[index]
    result = []
    for repeat in range(1, repeats + 1):
        start = time.process_time()
        for index in range(repeat * records, (repeat + 1) * records):
            source[index]
        result.append(records / (time.process_time() - start))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    size = args.records * (args.repeats + 1)
    print(f"{'pixels':>6} {'objects':>8} {'images/s':>9} {'lowest':>8} {'highest':>8}")
    for image_size in SIZES:
        for low, high in ((1, 1), (1, 4), (4, 4)):
            source = Source(size=size, image_size=image_size, min_objects=low, max_objects=high)
            found = rates(source, args.records, args.repeats)
            print(
                f"{image_size:>6} {f'{low}-{high}':>8} {statistics.median(found):>9.0f} "
                f"{min(found):>8.0f} {max(found):>8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
