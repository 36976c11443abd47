"""Fields of configs with values that cannot be; see wrong_commands.py."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Union

from helpers.tiny_models import BESIDE, TINY
from helpers.wrong import Wrong, leaves, literals
from jaxformer.config import schema
from jaxformer.config.durations import Duration
from jaxformer.config.fields import Constraint
from jaxformer.config.sections import ExperimentConfig


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
