"""What a wrong command is, and what the families of them have in common; see wrong_commands.py."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A command line with one mistake."""

    name: str
    """What is wrong, in words."""
    argv: tuple[str, ...]
    """The words behind `jaxformer`."""
    says: str = ""
    """What the message has to name."""
    files: Mapping[str, str | bytes] = dataclasses.field(default_factory=dict)
    """Files that stand in the working folder before: path -> content; a path that ends with "/" is a folder."""


HOSTILE = {
    "NaN": "NaN",
    "infinity": "inf",
    "1e400": "1e400",
    "minus one": "-1",
    "10**30": str(10**30),
    "nothing": "",
    "a blank": " ",
    "Arabic digits": "\u0663",
    "a zero byte": "\0",
    "5,000 characters": "x" * 5000,
    "5,000 digits": "9" * 5000,
    "3,000 minus signs": "-" * 3000 + "1",
    "deep nesting": "[" * 3000,
    "a list": "[1]",
    "a half": "0.5x",
}
# The words that each verb needs, so that nothing else is wrong with a command line.
NEEDED = {
    "train": ("--config", "vit_digits"),
    "evaluate": ("run",),
    "fewshot": ("run", "task.yaml"),
    "perplexity": ("run", "text.txt"),
    "harness": ("run", "task"),
    "predict": ("run", "image.png"),
    "explain": ("run", "image.png"),
    "generate": ("run", "--prompt", "It was"),
    "report": ("run",),
    "chaos": ("--config", "vit_digits"),
    "describe": ("--config", "vit_digits"),
    "cross-validate": ("--config", "vit_digits"),
    "sweep": ("--config", "vit_digits", "--set", "optimizer.learning_rate=1e-3,3e-3"),
    "sweep work": ("sweep",),
    "sweep best": ("sweep",),
    "preflight": ("--config", "vit_digits", "--topology", "v5e:2x2"),
    "probe": ("--config", "vit_digits"),
    "models": (),
    "models show": ("timm/resnet50.a1_in1k",),
    "weights import": ("source", "--workdir", "out"),
    "weights export": ("run", "out"),
    "weights soup": ("run", "other", "--workdir", "out"),
    "goodput": ("run",),
    "replay": ("run", "--step", "1"),
    "launch local": ("--config", "vit_digits"),
    "launch tpu": ("--config", "vit_digits", "--type", "v5e-4", "--zone", "us-west4-a"),
    "launch slurm": ("--config", "vit_digits"),
    "launch k8s": ("--config", "vit_digits", "--image", "image", "--volume", "runs:/runs", "--gpus", "8"),
    "launch skypilot": ("--config", "vit_digits", "--accelerators", "H100:8", "--bucket", "gs://mine"),
    "data list": (),
    "data show": ("digits",),
    "data import": ("images", "folder", "--name", "mine"),
    "data tokenizer train": ("text.txt", "--kind", "bpe"),
    "data tokenizer show": ("tokenizer.json",),
    "data back-translate": ("digits", "--forward", "run", "--backward", "run", "--output", "out.jsonl"),
}


def leaves(kind: Any) -> Iterator[Any]:
    """The types inside a type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        yield from leaves(args[0])
    elif origin in (Union, types.UnionType, tuple):
        for arg in args:
            yield from leaves(arg)
    elif kind not in (type(None), ...):
        yield kind


def literals(kind: Any) -> bool:
    """Whether a type is a choice among words."""
    return any(typing.get_origin(leaf) is Literal for leaf in leaves(kind))
