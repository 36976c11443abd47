"""Wrong command lines and configs, one mistake each: at least 500 of them, for tests/test_wrong_commands.py.

To add a mistake, add a line to one of the tables below: they are tried by every test of wrong commands. Families of
mistakes are generated from the schema of configs and from the options of the verbs, so that a new field, a new choice
and a new flag are tried without a line here.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union

from helpers.tiny_models import BESIDE, TINY
from jaxformer.cli import verb_class
from jaxformer.config import schema
from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint
from jaxformer.config.sections import ExperimentConfig
from jaxformer.verbs import VERBS
from jaxformer.verbs.options import called


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


def wrong_commands() -> list[Wrong]:
    """All of them; no name is there twice."""
    found = [
        *verbs_and_flags(),
        *values_of_flags(),
        *written_overrides(),
        *fields_of_sections(),
        *config_files(),
        *splits_and_datasets(),
        *run_folders(),
        *other_files(),
    ]
    names = [wrong.name for wrong in found]
    assert len(set(names)) == len(names), sorted(name for name in set(names) if names.count(name) > 1)
    return found


# Command lines

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
    "describe": ("--config", "vit_digits"),
    "data list": (),
    "data show": ("digits",),
    "data import": ("images", "folder", "--name", "mine"),
    "data tokenizer train": ("text.txt", "--kind", "bpe"),
    "data tokenizer show": ("tokenizer.json",),
    "data back-translate": ("digits", "--forward", "run", "--backward", "run", "--output", "out.jsonl"),
}


def verbs_and_flags() -> Iterator[Wrong]:
    """Verbs and flags that are not there, or are not complete."""
    for words in (
        ["trian"],
        ["data"],
        [""],
        ["\0"],
        ["-"],
        ["x" * 5000],
        ["data", "lst"],
        ["data", "tokenizer"],
    ):
        yield Wrong(f"no verb: {' '.join(words)[:20]!r}", tuple(words))
    for verb in VERBS:
        start, needed = verb.split(), NEEDED[verb]
        yield Wrong(f"{verb}: an unknown flag", (*start, *needed, "--nope"), "--nope")
        yield Wrong(f"{verb}: a long unknown flag", (*start, *needed, "--" + "n" * 5000), "--nnn")
        yield Wrong(f"{verb}: three minus signs", (*start, *needed, "---"))
        yield Wrong(
            f"{verb}: an override without a value", (*start, *needed, "--config.seed"), "--config.seed"
        )
        if needed:
            yield Wrong(f"{verb}: nothing behind it", tuple(start), verb)
        for field in schema.config_fields(verb_class(verb)).values():
            name = called(field)
            if name.startswith("--") and field.type is not bool:
                if bool not in typing.get_args(field.type):
                    yield Wrong(f"{verb}: {name} without a value", (*start, *needed, name), name)
                misspelt = name[:3] + name[4:] + "q"
                yield Wrong(f"{verb}: {misspelt} for {name}", (*start, *needed, f"{misspelt}=1"), misspelt)


def values_of_flags() -> Iterator[Wrong]:
    """Hostile values of every flag that is a number or a choice."""
    for verb in VERBS:
        for field in schema.config_fields(verb_class(verb)).values():
            kinds = set(leaves(field.type))
            name = called(field)
            if not name.startswith("--") or (not kinds & {int, float} and not literals(field.type)):
                continue
            for what, value in HOSTILE.items():
                if what == "10**30" and float in kinds:  # large, and a number like others
                    continue
                argv = (*verb.split(), *NEEDED[verb], f"{name}={value}")
                yield Wrong(f"{verb}: {name} is {what}", argv, name)


# Configs


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


def constraints(kind: Any) -> list[Constraint]:
    """The constraints of a type's own value."""
    if typing.get_origin(kind) is Annotated:
        return [c for c in typing.get_args(kind)[1:] if isinstance(c, Constraint)] + constraints(
            typing.get_args(kind)[0]
        )
    if typing.get_origin(kind) in (Union, types.UnionType):
        return [c for arg in typing.get_args(kind) for c in constraints(arg)]
    return []


def needs(section: str, name: str) -> dict[str, Any]:
    """A choice with what it needs, and nothing wrong."""
    if section == "model":
        return {"name": name, **TINY.get(name, {}), **BESIDE.get(name, {})}
    cls = schema.load(CHOICES[section][name])
    given = {"learning_rate": 1e-3, "warmup": "1 step", "size": 8, "length": 8, "decay": "1 step"}
    fields = schema.config_fields(cls).items()
    required = [key for key, f in fields if f.default is f.default_factory is dataclasses.MISSING]
    return {"name": name, **{key: given[key] for key in required if key in given}}


SECTIONS = schema.config_fields(ExperimentConfig)
CHOICES = {name: f.metadata["choices"].table for name, f in SECTIONS.items() if "choices" in f.metadata}
PLAIN = {name: f.type for name, f in SECTIONS.items() if schema.is_section(f.type)}


def wrong_values(field: dataclasses.Field) -> Iterator[tuple[str, Any]]:
    """Values that a field cannot have, with what is wrong in words."""
    kinds, single = set(leaves(field.type)), "tuple" not in str(field.type)
    if kinds <= {int, float, bool, Duration} and kinds:
        yield "a word", "wide"
        yield "a mapping", {"a": 1}
    if kinds == {bool}:
        yield "a number", 2
    if kinds == {str}:
        yield "a list", [[1]]
    if literals(field.type):
        yield "an unknown choice", "nothing_of_the_kind"
    if kinds == {int} and single:
        yield "a float", 3.5
        yield "10**30", 10**30
    if kinds and kinds <= {int, float} and single:
        negative = -1.5 if float in kinds else -7
        if not all(c.holds(negative) for c in constraints(field.type)):
            yield "negative", negative
    if kinds == {float}:
        yield "10**400", 10**400


def fields_of_sections() -> Iterator[Wrong]:
    """Every field of every section and of every class that a section chooses, with wrong values."""
    for section, cls in PLAIN.items():
        yield override(f"{section}.nonsense", 1, f"{section}.nonsense")
        for name, field in schema.config_fields(cls).items():
            yield override(f"{section}.{name[:-1]}q", 1, f"{section}.{name[:-1]}q")
            for what, value in wrong_values(field):
                yield override(f"{section}.{name}", value, f"{section}.{name}", what)
    for section, table in CHOICES.items():
        for choice in table:
            given = needs(section, choice)
            for name, field in schema.config_fields(schema.load(table[choice])).items():
                path = f"{section}.{name}"
                for what, value in list(wrong_values(field))[:3]:
                    yield override(section, {**given, name: value}, path, f"{choice}.{name} is {what}")
            yield override(section, {**given, "nonsense": 1}, "nonsense", f"{choice}.nonsense")


def override(path: str, value: Any, says: str = "", what: str = "", config: str = "vit_digits") -> Wrong:
    """A training with one override that cannot be."""
    shown = repr(value) if not isinstance(value, int) or value < 10**300 else "1" + "0" * 400
    name = f"{path}={shown[:40]}" + (f" ({what})" if what else "")
    return Wrong(f"train: {name}", ("train", "--config", config, f"--config.{path}={shown}"), says)


# path, value as it is typed, what the message names
OVERRIDES = [
    ("model.width", "100000000", "model.width"),
    ("model.width", "480000000000", "model.width"),
    ("model.depth", "100000", "model.depth"),
    ("model.num_heads", "100000000", "num_heads"),
    ("model.mlp_dim", "2147483647", "mlp_dim"),
    ("model.patch_size", "1000000000", "patch_size"),
    ("model.image_size", "1000000000", "image_size"),
    ("model.registers", "1000000000", "registers"),
    ("model.num_classes", "1000000000", "num_classes"),
    ("model.layer_scale", "-1", "layer_scale"),
    ("model.max_positions", "512", "max_positions"),
    ("data.batch_size", "8000000000", "batch_size"),
    ("data.batch_size", "1000000000", "batch_size"),
    ("data.eval_batch_size", "8000000000", "eval_batch_size"),
    ("data.eval_batch_size", "1000000000", "eval_batch_size"),
    ("data.prefetch", "1000000000", "prefetch"),
    ("data.read_threads", "1000000", "read_threads"),
    ("data.repeats", "1000000000", "repeats"),
    ("data.buckets", "[8]", "buckets"),
    ("data.transforms", "[dict(name='resize', size=1000000)]", "size"),
    ("data.transforms", "[dict(name='pad_and_crop', padding=100)]", "padding"),
    ("data.transforms", "[dict(name='pad_and_crop', padding=1000000000)]", "padding"),
    ("data.transforms", "[dict(name='mask_tokens')]", "MaskTokens"),
    ("data.transforms", "[dict(name='random_crop', size=1000000)]", "size"),
    ("data.transforms", "[dict(name='resize_shorter', sizes=[1000000])]", "sizes"),
    ("data.transforms", "flip", "data.transforms"),
    ("data.transforms[7].padding", "1", "data.transforms"),
    ("data.transforms", "[" * 500, "data.transforms"),
    ("data.transforms", "[" * 90 + "]" * 90, "data.transforms"),
    ("data.name", "''", "data.name"),
    ("data.name", "x\0y", "data.name"),
    ("data.name", "x" * 5000, "data.name"),
    ("data.name", "gs://bucket", "gs:"),
    ("data.name", "../digits", "data.name"),
    ("data.version", "9.9.9", "9.9.9"),
    ("data.version", "'\0'", "data.version"),
    ("data.data_dir", "/nowhere/at/all", "/nowhere/at/all"),
    ("data.data_dir", "'x\0y'", "data.data_dir"),
    ("data.data_dir", "y" * 5000, "yyy"),
    ("data.tokenizer", "bytes", "tokenizer"),
    ("data.mixture", "[dict(name='digits', weight=1)]", "mixture"),
    ("parallel.mesh", "dict(data=99999999)", "mesh"),
    ("parallel.mesh", "dict(data=-2)", "mesh"),
    ("parallel.mesh", "dict(data=0)", "mesh"),
    ("parallel.mesh", "dict(tensor=99999999999999999999)", "mesh"),
    ("parallel.mesh", "dict(data=-1, tensor=-1)", "mesh"),
    ("parallel.mesh", "dict(data=1, tensor=8)", "tensor"),
    ("parallel.mesh.nonsense", "1", "mesh.nonsense"),
    ("train.total", "'0 steps'", "train.total"),
    ("train.total", "'-5 steps'", "train.total"),
    ("train.total", "'1e9 steps'", "train.total"),
    ("train.total", "'99999999999B epochs'", "train.total"),
    ("train.total", "'" + "9" * 5000 + " steps'", "train.total"),
    ("train.total", "'0." + "9" * 5000 + " epochs'", "train.total"),
    ("train.total", "'\u0663 steps'", "train.total"),
    ("train.total", "'5 parsecs'", "train.total"),
    ("train.total", "'50%'", "train.total"),
    ("train.total", "'NaN steps'", "train.total"),
    ("train.total", "None", "train.total"),
    ("train.accumulate", "1000000000", "accumulate"),
    ("train.accumulate", "3", "accumulate"),
    ("train.ema_decay", "1", "ema_decay"),
    ("train.log_every", "'0 steps'", "log_every"),
    ("eval.split", "train[5%:2%]", "train[5%:2%]"),
    ("eval.split", "test[", "test["),
    ("eval.split", "''", "eval.split"),
    ("eval.split", "nothing", "nothing"),
    ("eval.split", "test[:0]", "test[:0]"),
    ("eval.split", "test[:-999999999]", "test[:-"),
    ("eval.split", "test[99999999999999999999:]", "test[999"),
    ("eval.split", "s" * 5000, "eval.split"),
    ("data.train_split", "train[5%:2%]", "train[5%:2%]"),
    ("data.train_split", "train[:0]", "train[:0]"),
    ("data.train_split", "train+", "data.train_split"),
    ("data.train_split", "+".join(["train"] * 3000) + "x", "data.train_split"),
    ("eval.monitor", "acuracy", "eval.monitor"),
    ("eval.monitor", "''", "eval.monitor"),
    ("eval.monitor", "m" * 5000, "eval.monitor"),
    ("eval.patience", "-1", "eval.patience"),
    ("eval.min_delta", "float('nan')", "eval.min_delta"),
    ("eval.min_delta", "1e400", "eval.min_delta"),
    ("seed", "99999999999999999999", "seed"),
    ("seed", "-1", "seed"),
    ("seed", "0.0", "seed"),
    ("seed", "True", "seed"),
    ("seed", "-" * 3000 + "1", "seed"),
    ("seed", "0x" + "f" * 5000, "seed"),
    ("seed", "1" * 5000, "seed"),
    ("seed", "(" * 3000, "seed"),
    ("seed", "\0", "seed"),
    ("seed", "\u0661", "seed"),
    ("seed", "", "seed"),
    ("seed", "dict(" * 200 + ")" * 200, "seed"),
    ("seed", "{" * 150 + "}" * 150, "seed"),
    ("seed", "lambda: 1", "seed"),
    ("seed", "__import__('os').getcwd()", "seed"),
    ("precision", "float8", "precision"),
    ("precision", "dict(params='float8')", "precision"),
    ("precision", "dict(nonsense='float32')", "precision"),
    ("optimizer.learning_rate", "1e400", "optimizer.learning_rate"),
    ("optimizer.learning_rate", "-1e-3", "optimizer.learning_rate"),
    ("optimizer.learning_rate", "'fast'", "optimizer.learning_rate"),
    ("optimizer.freeze", "['(']", "optimizer.freeze"),
    ("optimizer.freeze", "['nothing_of_the_kind']", "nothing_of_the_kind"),
    ("optimizer.freeze", "[3]", "optimizer.freeze"),
    ("optimizer.learning_rate_multipliers", "[['head', -1]]", "learning_rate_multipliers"),
    ("optimizer.learning_rate_multipliers", "[['head']]", "learning_rate_multipliers"),
    ("optimizer.clip_norm", "0", "clip_norm"),
    ("optimizer.layer_decay", "2", "layer_decay"),
    ("schedule.warmup", "'1000 epochs'", "schedule.warmup"),
    ("schedule.warmup", "'200%'", "schedule.warmup"),
    ("checkpoint.keep", "0", "checkpoint.keep"),
    ("checkpoint.keep", "-1", "checkpoint.keep"),
    ("checkpoint.every_minutes", "0", "checkpoint.every_minutes"),
    ("checkpoint.every_minutes", "1e400", "checkpoint.every_minutes"),
    ("task.label_smoothing", "1.5", "task.label_smoothing"),
    ("task.mean", "[0.5, 0.5]", "task.mean"),
    ("task.std", "[0.0]", "task.std"),
    ("task.distillation", "dict(run='/nowhere')", "/nowhere"),
    ("task.distillation", "dict(run='\0')", "distillation"),
    ("task.name", "detection", "task"),
    ("task.name", "causal_lm", "task"),
    ("model.name", "vitt", "model.name"),
    ("model.name", "", "model"),
    ("model.name", "os:getcwd", "model.name"),
    ("model.name", "no_such_module:Model", "no_such_module"),
    ("model.name", ":", "model.name"),
    ("model.name", "a:b:c", "model.name"),
    ("model.name", "\0:x", "model.name"),
    ("model.name", "." * 50 + ":x", "model.name"),
    ("model.name", "v" * 5000, "model.name"),
    ("model.name", "json:JSONDecoder", "model.name"),
    ("model", "None", "model"),
    ("model", "[]", "model"),
    ("model", "3", "model"),
    ("data", "None", "data"),
    ("data", "'digits'", "data"),
    ("train", "[1, 2]", "train"),
    ("eval", "''", "eval"),
    ("parallel.mesh", "None", "mesh"),
    ("nonsense", "1", "nonsense"),
    ("optimiser.name", "adam", "optimiser"),
    ("model.width.more", "1", "model.width"),
    ("model." + "a." * 500 + "b", "1", "model."),
    ("model.width\0", "1", "model.width"),
    ("model." + "w" * 5000, "1", "model.www"),
]


def written_overrides() -> Iterator[Wrong]:
    """Those of the table above."""
    for number, (path, value, says) in enumerate(OVERRIDES):
        argv = ("train", "--config", "vit_digits", f"--config.{path}={value}")
        yield Wrong(f"train, override {number}: {path[:30]}={value[:30]!r}", argv, says)
    for path in ("", ".", "..", "seed.", ".seed", "model..width", "[0]"):
        argv = ("train", "--config", "vit_digits", f"--config.{path}=1")
        yield Wrong(f"train: the path {path!r}", argv, f"--config.{path}" if path != "[0]" else "")


# Config files

HEAD = "from ml_collections import ConfigDict\n"
FILES = {
    "is empty": "",
    "is a comment": "# nothing\n",
    "has no get_config": "x = 1\n",
    "has a get_config that is no function": "get_config = 3\n",
    "is not Python": "def get_config(:\n",
    "is indented wrongly": "def get_config():\n  x = 1\n    y = 2\n",
    "has a tab where blanks were": "def get_config():\n        x = 1\n\treturn x\n",
    "divides by zero": "def get_config():\n    return 1 / 0\n",
    "raises": "def get_config():\n    raise RuntimeError('no')\n",
    "raises with many lines": "def get_config():\n    raise RuntimeError('no\\n' * 50)\n",
    "raises a long message": "def get_config():\n    raise RuntimeError('n' * 100_000)\n",
    "raises when it is imported": "raise ValueError('at once')\n",
    "returns None": "def get_config():\n    pass\n",
    "returns a number": "def get_config():\n    return 3\n",
    "returns a list": "def get_config():\n    return [1]\n",
    "returns a dict": "def get_config():\n    return {}\n",
    "asks for a key that is not there": HEAD + "def get_config():\n    return ConfigDict().model.width\n",
    "needs an argument": HEAD + "def get_config(arg):\n    return ConfigDict()\n",
    "calls itself for ever": "def get_config():\n    return get_config()\n",
    "reads a file that is not there": "def get_config():\n    return open('nowhere.txt').read()\n",
    "imports a module that is not there": "import no_such_module_at_all\n",
    "imports a name that is not there": "from json import nothing_of_the_kind\n",
    "ends the program": "import sys\nsys.exit(0)\n",
    "ends the program without a code": "def get_config():\n    raise SystemExit\n",
    "holds a zero byte": "x = '\0'\n",
    "is Latin-1": b"x = '\xe9'\n",
    "is an image": b"\x89PNG\r\n\x1a\n\x00\x00\x00",
    "is UTF-16": "def get_config(): pass\n".encode("utf-16"),
    "nests 3,000 brackets": "x = " + "[" * 3000 + "]" * 3000 + "\n",
    "nests 300 unary signs": "x = " + "-" * 100_000 + "1\n",
    "asserts": "def get_config():\n    assert False\n",
    "is a generator": "def get_config():\n    yield 1\n",
    "is YAML": "model:\n  name: vit\n  width: 48\n",
}


def config_files() -> Iterator[Wrong]:
    """Config files that fail, and names that are no config file."""
    for what, content in FILES.items():
        yield Wrong(
            f"a config that {what}", ("train", "--config", "mine.py"), "mine.py", {"mine.py": content}
        )
    yaml, js = "model:\n  name: vit\n", '{"model": {"name": "vit"}}'
    for name, content in {
        "mine.yaml": yaml,
        "mine.json": js,
        "mine.txt": "hello",
        "mine.bin": b"\0\1",
    }.items():
        yield Wrong(f"a config file called {name}", ("train", "--config", name), name, {name: content})
    for name in (
        "",
        ".",
        "..",
        "/",
        "vit_digit",
        "vit_digits.pyy",
        "\0",
        "x" * 5000,
        ":",
        "vit_digits:small",
        "-",
        "~",
        "gs:",
        "gs://bucket/vit.py",
        "/dev/null",
        "configs",
        "a/b/c.py",
        "folder/",
        "\udcff",
    ):
        what = Wrong(f"train: a config called {name[:30]!r}", ("train", f"--config={name}"), "config")
        yield dataclasses.replace(what, files={"folder/": ""})
        yield dataclasses.replace(
            what,
            name=f"describe: a config called {name[:30]!r}",
            argv=("describe", f"--config={name}"),
            files={"folder/": ""},
        )
    train = ("train", "--config", "vit_digits")
    for value in (
        "1",
        ":",
        "1:",
        ":2",
        "2:1",
        "0:1",
        "-1:2",
        "a:b",
        "1:2:3",
        "\u0661:\u0662",
        "",
        "1" * 5000 + ":2",
        "1e3:2e3",
        "999999:9999999",
    ):
        yield Wrong(f"train: --profile {value[:30]!r}", (*train, f"--profile={value}"), "--profile")
    for value in ("", "\0", "x" * 5000, "gs:", "file", "file/run", "gs://bucket/run", "full", "/dev/null"):
        files = {"file": "mine", "full/letter.txt": "mine"}
        yield Wrong(f"train: --run {value[:30]!r}", (*train, f"--run={value}"), "", files)
    for mesh in (
        "data=99999999",
        "data=0",
        "data",
        "=2",
        "data=2=3",
        "model=2",
        "data=-1",
        "data=1.5",
        "data=x",
        "data=2,data=2",
        ",",
        "data=" + "9" * 5000,
        "data=\u0662",
        "tensor=5",
        "data=2,tensor=5",
    ):
        yield Wrong(
            f"describe: --mesh {mesh[:30]!r}", ("describe", "--config", "vit_digits", f"--mesh={mesh}")
        )
    for path in (
        "modell",
        "model.",
        ".model",
        "model.vitt",
        "model.vit.width.more",
        "model.os:getcwd",
        "\0",
        "x" * 5000,
        "model." + "a." * 1000,
        "seed",
        "model..vit",
    ):
        yield Wrong(f"describe: --fields {path[:30]!r}", ("describe", f"--fields={path}"))
    for preset in ("vit-b17", "", "\0", "p" * 5000):
        yield Wrong(f"describe: --preset {preset[:30]!r}", ("describe", f"--preset={preset}"))
    yield Wrong(
        "describe: a config and a preset", ("describe", "--config", "vit_digits", "--preset", "vit-b16")
    )


# Datasets


def splits_and_datasets() -> Iterator[Wrong]:
    """Names of datasets and of splits that cannot be."""
    for split in (
        "train[5%:2%]",
        "",
        " ",
        "nothing",
        "train[",
        "train[:0]",
        "train[a:b]",
        "train[5:2]",
        "\0",
        "[:5]",
        "s" * 5000,
        "train[:99999999999999999999%]",
        "train[::2]",
        "+",
        "train[-1%:]x",
    ):
        yield Wrong(f"data show: the split {split[:30]!r}", ("data", "show", "digits", f"--split={split}"))
    for name in (
        "",
        ".",
        "..",
        "/",
        "digits/",
        "gs:",
        "gs://bucket/x",
        "no_such_data",
        "a/b/c",
        "\0",
        "n" * 5000,
        "digits/9",
        "digits/1.0.0/x",
        "\udcff",
        "-" * 3000,
        "file",
        "Digits\n",
    ):
        files = {"file": "mine"}
        yield Wrong(f"data show: the dataset {name[:30]!r}", ("data", "show", "--", name), "", files)
    for kind in ("", "imagez", "\0", "k" * 5000):
        yield Wrong(
            f"data import: the kind {kind[:20]!r}", ("data", "import", kind, "folder", "--name", "mine")
        )
    for name in ("", ".", "..", "a/b/c", "\0", "n" * 5000, "gs:", "\udcff", "1.0.0", "../up", "Mixed Name"):
        argv = ("data", "import", "text", "file.txt", f"--name={name}", "--data-dir=made")
        yield Wrong(f"data import: called {name[:20]!r}", argv, "", {"file.txt": "a text\n"})
    for kind, file in (
        ("csv", "a.csv"),
        ("jsonl", "a.jsonl"),
        ("conll", "a.conll"),
        ("squad", "a.json"),
        ("detection", "a.json"),
        ("images", "folder"),
        ("segmentation", "folder"),
        ("pairs", "a.tsv"),
    ):
        for what, content in BROKEN.items():
            files = {f"{file}/": ""} if file == "folder" and what == "is empty" else {file: content}
            argv = ("data", "import", kind, file, "--name", "mine", "--data-dir", "made")
            yield Wrong(f"data import {kind}: a file that {what}", argv, file, files)


BROKEN: dict[str, str | bytes] = {
    "is empty": "",
    "is a zero byte": b"\0",
    "is not UTF-8": b"\xff\xfe\x00\xd8",
    "nests 100,000 brackets": "[" * 100_000,
    "nests 100,000 objects": '{"a":' * 100_000,
}


# Folders of runs

RUN_FILES = {
    "is empty": "",
    "is cut short": '{"config": {',
    "is null": "null",
    "is a list": "[]",
    "is a number": "7",
    "has no config": "{}",
    "has a config that is null": '{"config": null}',
    "has a config that is a list": '{"config": [1]}',
    "has a config that is a text": '{"config": "vit"}',
    "has an empty config": '{"config": {}}',
    "has sections that are null": '{"config": {"model": null, "data": null}}',
    "is not UTF-8": b'{"config": "\xff"}',
    "nests 100,000 brackets": '{"config": ' + "[" * 100_000,
    "nests 100,000 objects": '{"a":' * 100_000,
    "says NaN": '{"config": NaN}',
    "holds a number of 5,000 digits": '{"config": ' + "9" * 5000 + "}",
    "is UTF-16": '{"config": {}}'.encode("utf-16"),
}
METRICS_LINES = {
    "has a mapping for a number": '{"step": 1, "train/loss": {"a": 1}}',
    "has a list for a number": '{"step": 1, "train/loss": [1]}',
    "has a word for a number": '{"step": 1, "train/loss": "low"}',
    "has null for a number": '{"step": 1, "train/loss": null}',
    "has a number of 400 digits": '{"step": 1, "train/loss": ' + "9" * 400 + "}",
    "has a step of 30 digits": '{"step": ' + "9" * 30 + ', "train/loss": 1.0}',
}
RESULT = dict.fromkeys(("final", "best", "seconds", "examples_per_second", "mfu", "device"))
RESULT_FILES = {
    "is empty": "",
    "is null": "null",
    "is a list": "[1]",
    "lacks its keys": "{}",
    "has a status that is a list": json.dumps({**RESULT, "status": [1], "step": 1}),
    "has metrics that are a text": json.dumps({**RESULT, "status": "completed", "step": 1, "final": "good"}),
    "has metrics that are mappings": json.dumps(
        {**RESULT, "status": "completed", "step": 1, "final": {"a": {}}}
    ),
    "has a step that is a text": json.dumps({**RESULT, "status": "completed", "step": "one"}),
    "nests 100,000 brackets": "[" * 100_000,
}


def run_folders() -> Iterator[Wrong]:
    """Runs that are none, or whose files are broken."""
    of_run = [verb for verb in NEEDED if NEEDED[verb][:1] == ("run",)]
    good = {"task.yaml": "", "text.txt": "a text\n", "image.png": b""}
    for verb in of_run:
        rest = NEEDED[verb][1:]
        for folder in (
            "nowhere",
            "",
            "\0",
            "r" * 5000,
            "gs:",
            "gs://bucket/run",
            "text.txt",
            "\udcff",
            "empty",
        ):
            name = f"{verb}: the run {folder[:30]!r}"
            yield Wrong(name, (*verb.split(), folder, *rest), "", good | {"empty/": ""})
        for step in ("newest", "-1", "", "\u0661", "1.5", "9" * 5000, "\0"):
            if verb != "report":
                argv = (*verb.split(), "run", *rest, f"--checkpoint={step}")
                yield Wrong(f"{verb}: the checkpoint {step[:30]!r}", argv, "--checkpoint", good)
    for what, content in RUN_FILES.items():
        files = good | {"run/config.json": content}
        readable = what in (
            "has an empty config",
            "has sections that are null",
        )  # for a report, and to begin anew
        for verb in ("evaluate", "generate") if readable else ("evaluate", "report", "generate"):
            argv = (*verb.split(), *NEEDED[verb])
            yield Wrong(f"{verb}: a config.json that {what}", argv, "config.json", files)
        if not readable:
            argv = ("train", "--config", "vit_digits", "--run", "run")
            begun = files | {"run/metrics.jsonl": '{"step": 1}\n'}  # else it is begun anew
            yield Wrong(f"train: a config.json that {what}", argv, "config.json", begun)
    for what, line in METRICS_LINES.items():
        files = {"run/config.json": '{"config": {}}', "run/metrics.jsonl": line + "\n"}
        yield Wrong(f"report: a metrics.jsonl that {what}", ("report", "run"), "metrics.jsonl, line 1", files)
    for what, content in RESULT_FILES.items():
        files = {"run/config.json": '{"config": {}}', "run/result.json": content}
        yield Wrong(f"report: a result.json that {what}", ("report", "run"), "result.json", files)
    for argv in (
        ("report", "run", "run2", "--output", "empty"),
        ("report", "run", "run2", "--output", "\0"),
        ("report", "run", "run2", "--output", "text.txt/x"),
        ("report", "run", "--output", "x.html"),
        ("report", "run", "nowhere"),
        ("report",),
    ):
        files = {
            **good,
            "run/config.json": '{"config": {}}',
            "run2/config.json": '{"config": {}}',
            "empty/": "",
        }
        yield Wrong(" ".join(argv).replace("\0", "NUL"), argv, "", files)


# Other files


def bomb(levels: int) -> str:
    """YAML whose nested aliases stand for 10**levels words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + f"\ntask: *a{levels - 1}\n"


TASKS: dict[str, str | bytes] = {
    "is empty": "",
    "is a zero byte": b"\0",
    "is a list": "- 1\n",
    "is a word": "hello\n",
    "has a tab": "a:\n\t- b\n",
    "nests aliases": bomb(9),
    "holds itself": "&a [*a]\n",
    "holds itself in a mapping": "&a {b: *a, output_type: multiple_choice}\n",
    "nests 100,000 brackets": "[" * 100_000,
    "nests 10,000 mappings": "a: {" * 10_000,
    "runs a program": "!!python/object/apply:os.getcwd []\n",
    "names a type": "a: !!timestamp x\n",
    "lacks keys": "task: mine\n",
    "has an unknown key": "output_type: multiple_choice\ndoc_to_text: a\ndoc_to_target: b\nnonsense: 1\n",
    "is not UTF-8": b"a: \xff\n",
    "has a date that is none": "a: 2023-99-99\n",
    "has a number of 100,000 digits": "num_fewshot: " + "9" * 100_000 + "\n",
    "has a key that is a list": "? [1, 2]\n: 3\n",
}
TOKENIZERS: dict[str, str | bytes] = {
    "is empty": "",
    "is null": "null",
    "is a list": "[]",
    "is no tokenizer": '{"a": 1}',
    "is a pickle": b"\x80\x04K\x01.",
    "is a zip": b"PK\x03\x04",
    "nests 100,000 brackets": "[" * 100_000,
    "has a huge id": json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 1}, "unk_token": "a"},
        }
    ),
    "backtracks": json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "post_processor": None,
            "decoder": None,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a|aa)+$"},
                "behavior": "Isolated",
                "invert": False,
            },
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
        }
    ),
}


def other_files() -> Iterator[Wrong]:
    """Tasks in prompts, tokenizers, texts."""
    for what, content in TASKS.items():
        yield Wrong(
            f"fewshot: a task that {what}",
            ("fewshot", "run", "task.yaml"),
            "task.yaml",
            {"task.yaml": content},
        )
    for what, content in TOKENIZERS.items():
        text = "--text=" + "a" * 60 + "b"
        argv = ("data", "tokenizer", "show", "tokenizer.json", text)
        yield Wrong(f"tokenizer show: a file that {what}", argv, "tokenizer", {"tokenizer.json": content})
    for name in ("nowhere", "", "\0", "t" * 5000, "gs:", "folder", "text.csv"):
        argv = ("data", "tokenizer", "show", name)
        yield Wrong(f"tokenizer show: {name[:30]!r}", argv, "", {"folder/": "", "text.csv": "a,b\n"})
    for what, content in {"is empty": "", "is not UTF-8": b"\xff", "is blank": " \n"}.items():
        argv = ("data", "tokenizer", "train", "text.txt", "--kind", "bpe")
        yield Wrong(f"tokenizer train: a text that {what}", argv, "", {"text.txt": content})
