"""Images a second of the input pipeline alone: CIFAR-10, pad-and-crop by 4 and flip, batches of 128.

    python benchmarks/input_pipeline.py [--threads N ...] [--repeats 7]

Needs CIFAR-10 as array_record in the TFDS folder (TFDS_DATA_DIR). Each figure is the median of several
stretches of one epoch's batches, read as training reads them: in background threads, shuffled, from the disk
cache of the operating system. With cache="memory" the first epoch, which fills the cache, is not counted. The
last lines say where the time of one image goes, measured in one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from jaxformer.data import Batches, DataConfig, make_batches
from jaxformer.data.transforms import Flip, PadAndCrop

TRANSFORMS = (PadAndCrop(4), Flip())
BATCH_SIZE = 128


def images_per_second(batches: Batches, repeats: int, steps: int) -> list[float]:
    """Rates of `repeats` stretches of `steps` batches, after one that warms up."""
    rates = []
    with batches.read() as reader:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            for _ in range(steps):
                next(reader)
            rates.append(steps * batches.batch_size / (time.perf_counter() - start))
    return rates[1:]


def microseconds(work: Callable[[int], object], repeats: int = 30) -> float:
    """Median time of work(i), for each of a batch's images."""
    times = []
    for index in range(repeats):
        start = time.perf_counter()
        work(index)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / BATCH_SIZE * 1e6


def breakdown() -> dict[str, float]:
    """Microseconds an image for the parts of the work, one thread."""
    config = DataConfig(name="cifar10", batch_size=BATCH_SIZE, transforms=TRANSFORMS)
    batches = make_batches(config, "train")
    plain = make_batches(DataConfig(name="cifar10", batch_size=BATCH_SIZE), "train")
    cached = make_batches(DataConfig(name="cifar10", batch_size=BATCH_SIZE, cache="memory"), "train")
    for index in range(30):
        cached[index]
    whole, no_transform = microseconds(batches.__getitem__), microseconds(plain.__getitem__)
    stacking = microseconds(cached.__getitem__)
    return {
        "order, stacking": stacking,
        "reading, parsing, decoding": no_transform - stacking,
        "transforms": whole - no_transform,
        "all": whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="read_threads to try")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    for cache in ("none", "memory"):
        for threads in arguments.threads:
            config = DataConfig(
                name="cifar10",
                batch_size=BATCH_SIZE,
                transforms=TRANSFORMS,
                cache=cache,
                read_threads=threads,
            )
            batches = make_batches(config, "train")
            rates = images_per_second(batches, arguments.repeats, steps=50_000 // BATCH_SIZE)
            print(
                f"cache={cache!r:9} read_threads={threads}: {statistics.median(rates):8,.0f} images/s "
                f"(of {len(rates)}: {min(rates):,.0f} to {max(rates):,.0f})"
            )
    for part, time_per_image in breakdown().items():
        print(f"{part}: {time_per_image:.0f} us an image")


if __name__ == "__main__":
    main()
