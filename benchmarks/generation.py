"""Generation with GPT-2 124M, ours against transformers' `generate`: the same weights' shapes, in turns.

    python benchmarks/generation.py [--quick] [--batch 1 8] [--prompt 128] [--new 128] [--rounds 5]
                                    [--dtype float32|bfloat16] [--static]
                                    [--device cpu|gpu] [--sides jaxformer peer] [--json FILE]

Greedy decoding, random weights (of which speed does not depend), without an end token, so that
all tokens are made. Ours is `CausalModel`, which streams; compiling happens in a turn that is not counted, and its
time is told. The peer is GPT2LMHeadModel.generate with its key-value cache; with --static one of a fixed size, with
which transformers compiles its step on a GPU. bfloat16 is that of weights and of computation. What bounds both at batch
1 is memory: each token reads all parameters once; the limit is the rate at which one large array is read.
"""

import argparse
import os
import statistics
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from common import Step, add_device_options, device_of, in_turns, record, timed, torch_device, use_device

from jaxformer.data.text.tokenizers import Tokenizer
from jaxformer.decoding.sampling import Sampling
from jaxformer.inference.writers import CausalModel, Generation
from jaxformer.models.gpt import GPT

VOCABULARY = 50_257


def ours(model: GPT, prompts: np.ndarray, new: int) -> Step:
    """A function that generates once."""
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    words = tokenizers.models.WordLevel({str(i): i for i in range(model.vocab_size)}, unk_token="0")
    writer = CausalModel(model, variables, Tokenizer(tokenizers.Tokenizer(words)))
    how = Generation(new, Sampling(temperature=0))
    rows = prompts.tolist()

    def take() -> int:
        return sum(c.tokens for c in writer.generate(rows, how))

    return take


def peer(model: GPT, prompts: np.ndarray, new: int, arguments: argparse.Namespace) -> Step:
    """The same with transformers."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=model.vocab_size,
        n_positions=model.context_length,
        n_embd=model.width,
        n_layer=model.depth,
        n_head=model.num_heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    device, dtype = torch_device(arguments), getattr(torch, arguments.dtype)
    network = GPT2LMHeadModel(config).to(device, dtype).eval()
    ids = torch.from_numpy(prompts).long().to(device)

    def take() -> int:
        with torch.inference_mode():
            out = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
                cache_implementation="static" if arguments.static else None,
            )
        return int(out[:, ids.shape[1] :].numel())

    return take


def read_rate(megabytes: int = 512, repeats: int = 7) -> float:
    """Bytes a second at which an array is read (summed)."""
    x = jnp.ones(megabytes * 2**18, jnp.float32)
    total = jax.jit(jnp.sum)
    total(x).block_until_ready()
    return x.nbytes / min(timed(lambda: total(x).block_until_ready()) for _ in range(repeats))


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the comparison, as they are measured."""
    sizes = {"width": 64, "depth": 2, "num_heads": 2, "vocab_size": 512} if arguments.quick else {}
    dtype = jnp.dtype(arguments.dtype)
    model = GPT(**({"vocab_size": VOCABULARY} | sizes), dtype=dtype, param_dtype=dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    yield (
        f"{count / 1e6:.0f}M parameters in {dtype}, {arguments.prompt} + {arguments.new} tokens; {os.cpu_count()} "
        f"cores, load {os.getloadavg()[0]:.1f}; static={arguments.static}"
    )
    if "jaxformer" in arguments.sides:
        yield f"reading all parameters takes {1000 * size / read_rate():.2f} ms"
    builders = {
        "jaxformer": lambda prompts: ours(model, prompts, arguments.new),
        "peer": lambda prompts: peer(model, prompts, arguments.new, arguments),
    }
    for batch in arguments.batch:
        random = np.random.default_rng(0)
        prompts = random.integers(1, model.vocab_size, (batch, arguments.prompt))
        contenders = {side: builders[side](prompts) for side in arguments.sides}
        first = {side: timed(take) for side, take in contenders.items()}
        seconds = in_turns(contenders, arguments.rounds, 1)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        made = batch * arguments.new
        for side, values in seconds.items():
            yield (
                f"batch {batch} {side:9}: {made / medians[side]:7.1f} tokens/s ({made / max(values):.1f} to "
                f"{made / min(values):.1f}), {1000 * medians[side] / arguments.new:.2f} ms a token of each row; the "
                f"first call, with compiling, took {first[side]:.1f} s"
            )
            device, peak_bytes = device_of(side, arguments)
            record(
                arguments.json,
                work=f"generation, {batch} x ({arguments.prompt} + {arguments.new})",
                side=side,
                dtype=arguments.dtype,
                device=device,
                seconds=values,
                rate=made / medians[side],
                unit="tokens/s",
                peak_bytes=peak_bytes,
                first_seconds=first[side],
            )
        if len(medians) == 2:
            yield f"batch {batch}: ours is {medians['peer'] / medians['jaxformer']:.2f} times as fast"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, few tokens: does it run?")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--static", action="store_true", help="the peer has a cache of a fixed size")
    add_device_options(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.prompt, arguments.new, arguments.rounds = 8, 16, 1
    use_device(arguments)
    for line in report(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
