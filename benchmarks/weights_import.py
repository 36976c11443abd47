"""Seconds and memory of importing weights: a BERT or a GPT-2 of random numbers as transformers writes it, from a warm
disk.

    .venv/bin/python benchmarks/weights_import.py
    .venv/bin/python benchmarks/weights_import.py --width 1536 --depth 18 --heads 24
    .venv/bin/python benchmarks/weights_import.py --family gpt --width 1600 --depth 48 --heads 25 --files 4

Written is a folder with config.json and model.safetensors, or several such files, in float32. Then a process each reads
it as `jf.load_pretrained(FOLDER).variables`, as the first parameters of a training (`model.pretrained`), and by the
verb `weights import`, which also writes the run's checkpoint. Printed are the seconds of that alone, by the clock and
of the processor, without starting Python and importing packages; and the peak of the process's memory beyond what it
had before, beside what stays, the parameters, and the largest tensor.
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
FAMILIES = {  # as google-bert/bert-base-uncased and openai-community/gpt2-xl
    "bert": {"vocab_size": 30_522, "max_positions": 512, "head": "none"},
    "gpt": {"vocab_size": 50_257, "context_length": 1024},
}


def write_source(folder, family, width, depth, heads, files=1):
    """Writes the model, no more than one file of it in memory, and gives the sizes of its tensors in bytes."""
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict
    from safetensors.numpy import save_file

    from jaxformer.config.schema import build
    from jaxformer.data.text.tokenizer_training import Bytes
    from jaxformer.models import CONTRACT, MODELS
    from jaxformer.weights.export import left_out
    from jaxformer.weights.transformers_config import family_of
    from jaxformer.weights.transformers_written import config_of

    fields = {"name": family, **FAMILIES[family], "width": width, "depth": depth, "num_heads": heads}
    model = build(MODELS, fields, "model", CONTRACT)
    tokens = np.zeros((1, 2), np.int32)
    shapes = flatten_dict(jax.eval_shape(lambda: model.init(jax.random.key(0), tokens)))
    config, rng = config_of(model, family), np.random.default_rng(0)
    prefixed = not config["architectures"][0].endswith("Model")
    parts, sizes = list(dict.fromkeys(path[:3] for path in shapes)), {}  # such as a layer
    for number in range(files):
        some = parts[number * len(parts) // files : (number + 1) * len(parts) // files]
        numbers = {
            path: rng.standard_normal(leaf.shape, np.float32)
            for path, leaf in shapes.items()
            if path[:3] in some
        }
        tensors = family_of(config).write(unflatten_dict(numbers), left_out(config), prefixed=prefixed)
        name = "model.safetensors" if files == 1 else f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        sizes |= {(key, name): tensor.nbytes for key, tensor in tensors.items()}
    if files > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sizes.keys())}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    Bytes().build(lambda: iter(())).save(folder / "tokenizer.json")
    return list(sizes.values())


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
    parser.add_argument("--family", choices=FAMILIES, default="bert")
    parser.add_argument("--files", type=int, default=1, help="over how many files the tensors are spread")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
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
        shape = arguments.width, arguments.depth, arguments.heads, arguments.files
        sizes = write_source(Path(name), arguments.family, *shape)
        whole, largest = sum(sizes) / 2**20, max(sizes) / 2**20
        print(
            f"{sum(sizes) / 4e6:,.0f} M parameters, {whole:,.0f} MiB, the largest tensor {largest:,.0f} MiB"
        )
        limit = whole + 1.3 * largest
        for way in arguments.ways:
            command = [sys.executable, __file__, "--child", way, name]
            clock, cpu, more = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            told = f"{clock:.2f} s by the clock, {cpu:.2f} s of the processor, {more:,.0f} MiB more"
            print(f"{way}: {told}; what stays and 1.3 times the largest tensor: {limit:,.0f} MiB")


if __name__ == "__main__":
    main()
