"""Seconds and memory of importing weights: a BERT of random numbers as transformers writes it, from a warm disk.

    .venv/bin/python benchmarks/weights_import.py
    .venv/bin/python benchmarks/weights_import.py --width 1536 --depth 18 --heads 24

Written is a folder with config.json and model.safetensors, in float32. Then a process each reads it as
`jf.load_pretrained(FOLDER).variables`, as the first parameters of a training (`model.pretrained`), and by the verb
`weights import`, which also writes the run's checkpoint. Printed are the seconds of that alone, by the clock and of the
processor, without starting Python and importing packages; and the peak of the process's memory beyond what it had
before, beside what stays, the parameters, and the largest tensor.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WAYS = ("load_pretrained", "model.pretrained", "weights import")
VOCABULARY, POSITIONS = 30_522, 512


def write_source(folder, width, depth, heads):
    """Writes the model, and gives the sizes of its tensors in bytes."""
    import jax
    from safetensors.numpy import save_file

    from jaxformer.config.schema import build
    from jaxformer.data.text.tokenizer_training import Bytes
    from jaxformer.models import CONTRACT, MODELS
    from jaxformer.weights.transformers_config import FAMILIES
    from jaxformer.weights.transformers_written import config_of

    fields = {"name": "bert", "vocab_size": VOCABULARY, "width": width, "depth": depth, "num_heads": heads}
    model = build(MODELS, {**fields, "max_positions": POSITIONS, "head": "none"}, "model", CONTRACT)
    tokens = np.zeros((1, 2), np.int32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))
    rng = np.random.default_rng(0)
    numbers = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    tensors = FAMILIES["bert"][0].write(
        numbers, {"classifier", "classifier.out_proj", "qa_outputs"}, prefixed=False
    )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(model, "bert")))
    Bytes().build(lambda: iter(())).save(folder / "tokenizer.json")
    return [tensor.nbytes for tensor in tensors.values()]


def memory(name):
    """MiB of this process by /proc: what it has now ("VmRSS"), or has had at most ("VmHWM")."""
    # Not ru_maxrss, which begins with what the process that started this one had.
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measured(way, folder):
    """Imports once; seconds by the clock and of the processor, and MiB beyond what was there before."""
    import jax

    import jaxformer as jf
    from jaxformer.inference.imported import import_model
    from jaxformer.weights.beginning import first_variables

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    found = jf.load_pretrained(folder)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), found.shapes
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, clock, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    if way == "load_pretrained":
        kept = jf.load_pretrained(folder).variables
    elif way == "model.pretrained":
        kept = first_variables(found.model.clone(pretrained=str(folder)), shapes)
    else:
        kept = ()
        import_model(str(folder), folder / "run")
    jax.block_until_ready(kept)
    return time.perf_counter() - clock, time.process_time() - cpu, memory("VmHWM") - before


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        way, folder = arguments.child
        print(json.dumps(measured(way, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as name:
        sizes = write_source(Path(name), arguments.width, arguments.depth, arguments.heads)
        whole, largest = sum(sizes) / 2**20, max(sizes) / 2**20
        print(
            f"{sum(sizes) / 4e6:,.0f} M parameters, {whole:,.0f} MiB, the largest tensor {largest:,.0f} MiB"
        )
        limit = whole + 1.3 * largest
        for way in WAYS:
            command = [sys.executable, __file__, "--child", way, name]
            clock, cpu, more = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            told = f"{clock:.2f} s by the clock, {cpu:.2f} s of the processor, {more:,.0f} MiB more"
            print(f"{way}: {told}; what stays and 1.3 times the largest tensor: {limit:,.0f} MiB")


if __name__ == "__main__":
    main()
