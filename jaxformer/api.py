"""The functions of `import jaxformer as jf` that are not at home elsewhere."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import FlaxError
from ml_collections import ConfigDict

from jaxformer.config import files, schema
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError, UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.loaded import LoadedRun
from jaxformer.models import CONTRACT, MODELS
from jaxformer.models.presets import PRESETS, preset
from jaxformer.state import init_variables

if TYPE_CHECKING:
    from jaxformer.sweeps.spaces import Space, Sweep

BY_THE_PROGRAM = {"self", "deterministic"}  # arguments of a model that are not inputs
INTEGERS = ("tokens", "positions", "segment_ids", "token_types")


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """The names that `create_model` takes: presets (published sizes) and models, in alphabetical order.

    Args:
      pattern: a glob, such as "vit*".
      pretrained: lists published models in their place, as `load_pretrained` takes them; see `jaxformer models`.

    Raises:
      UserError: it is no text.
    """
    if not isinstance(pattern, str):
        raise UserError(f'pattern={pattern!r}: expected a text, such as "vit*"')
    if pretrained:
        from jaxformer.weights.zoo import published

        return [each.source for each in published(pattern)]
    return sorted(name for name in {*PRESETS, *MODELS} if fnmatchcase(name, pattern))


def create_model(name: str, /, **fields: Any) -> nn.Module:
    """A linen module.

    Args:
      name: a preset or a model of `list_models()`, or "package.module:Class" of your own.
      **fields: the model's configuration; it takes the place of the preset's.

    Raises:
      ConfigError: there is no such model, or a field is unknown or has an impossible value.
    """
    if not isinstance(name, str):
        raise UserError(f'name={name!r}: expected a name of `list_models()`, or "package.module:Class"')
    if name not in PRESETS and name not in MODELS and ":" not in name:
        raise ConfigError(f"there is no model {name!r}; {schema.did_you_mean(name, list_models())}")
    value = preset(name, **fields) if name in PRESETS else {"name": name, **fields}
    return schema.build(MODELS, value, "model", CONTRACT)


def init(model: nn.Module, *, seed: int = 0, **inputs: Any) -> dict[str, Any]:
    """A model's fresh variables: {"params": ..., and its other collections, such as "batch_stats"}.

    Args:
      model: a linen module of this package.
      seed: decides the parameters.
      **inputs: an array, or its shape, for each of the model's arguments: `image=(1, 224, 224, 3)`, `tokens=(1, 16)`.

    Raises:
      ConfigError: the model has no such argument, or needs another one.
      UserError: the model does not take inputs of these shapes.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model={model!r}: expected a linen module, as create_model gives")
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed={seed!r}: expected an int, 0 or more")
    parameters = inspect.signature(type(model).__call__).parameters
    known = [name for name in parameters if name not in BY_THE_PROGRAM]
    lines = [
        f"{name}: {type(model).__name__} takes no such argument; {schema.did_you_mean(name, known)}"
        for name in inputs
        if name not in known
    ]
    lines += [
        f"{name}: {type(model).__name__} needs this argument; give an array or its shape"
        for name in known
        if parameters[name].default is inspect.Parameter.empty and name not in inputs
    ]
    if lines:
        raise ConfigError(*lines)
    try:
        arrays = {name: array_of(name, value) for name, value in inputs.items()}
        return jax.jit(lambda key: init_variables(model, arrays, key))(jax.random.key(seed))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        remedy = "use smaller inputs or a smaller model"
        raise UserError(f"{type(model).__name__}: the memory does not suffice; {remedy}") from error
    except (ArithmeticError, TypeError, ValueError, IndexError, FlaxError) as error:
        shapes = [getattr(value, "shape", value) for value in inputs.values()]
        given = ", ".join(f"{name} of shape {shape}" for name, shape in zip(inputs, shapes))
        why = f"{type(model).__name__} does not take it ({str(error).splitlines()[0]})"
        raise UserError(f"{given}: {why}; images are [B, H, W, C], tokens [B, T]") from error


def array_of(name: str, value: Any) -> Any:
    """An array as it is; zeros of a shape, in the dtype that an argument of this name has."""
    if not isinstance(value, (tuple, list)):
        return value
    dtype = bool if name.endswith("mask") else jnp.int32 if name.endswith(INTEGERS) else jnp.float32
    return jnp.zeros(tuple(value), dtype)


def experiment(
    config: str | Path | Mapping[str, Any] | ConfigDict, overrides: Mapping[str, Any] | None = None
) -> Experiment:
    """An experiment from its config, checked as a whole.

    Args:
      config: the name of a config that ships with jaxformer ("vit_digits"), a config file, either with ":ARGUMENT" for
        its `get_config`, or a mapping or `ml_collections.ConfigDict`.
      overrides: new values of leaves, by dotted path: {"train.total": "2 epochs", "data.transforms[0].padding": 2}.

    Raises:
      ConfigError: one line for each mistake in the config.
      UserError: there is no such config, or its dataset is not prepared.
    """
    if not isinstance(overrides or {}, Mapping):
        raise UserError(f"overrides={overrides!r}: expected values by dotted path, such as {{'seed': 1}}")
    nested = nested_config(config)
    files.apply_overrides(nested, overrides or {})
    built = Experiment(resolve(nested))
    built.check()
    return built


def nested_config(config: Any) -> dict[str, Any]:
    """What `experiment` takes, as nested dicts."""
    if isinstance(config, (str, Path)):
        return files.read(str(config))
    if isinstance(config, (Mapping, ConfigDict)):
        return files.nested(config)
    expected = "the name of a config, a config file, a mapping or a ConfigDict"
    raise UserError(f"config={config!r}: expected {expected}")


def sweep(
    config: Experiment | str | Path | Mapping[str, Any] | ConfigDict,
    space: "Sweep | Mapping[str, Space]",
    folder: str | Path,
) -> dict[str, Any]:
    """Trains a config with many values of its leaves, in this process, and finds the best.

    The same call goes on with a sweep where it stopped. `jaxformer sweep work FOLDER` joins in from another process.

    Args:
      config: an experiment, or what `experiment` takes.
      space: what is tried: a `jaxformer.sweeps.spaces.Sweep`, or a dict of paths and spaces.
      folder: the folder of the sweep; it is made if it does not exist.

    Returns:
      The content of study.json: under "trials" all of them, the best first, and under "best" the number of the best.

    Raises:
      ConfigError: one line for each mistake in paths, values and combinations; nothing is trained.
      UserError: the folder holds something else, or cannot be written.
    """
    if not isinstance(folder, (str, Path)):
        raise UserError(f"folder={folder!r}: expected the path of a folder for the sweep")
    from jaxformer.sweeps.reading import as_sweep
    from jaxformer.sweeps.study import Study
    from jaxformer.sweeps.workers import work

    if isinstance(config, Experiment):
        return work(Study.begin(folder, schema.to_dict(config.config), as_sweep(space)))
    return work(Study.begin(folder, nested_config(config), as_sweep(space)))


def load_run(folder: str | Path, checkpoint: str | int = "best") -> LoadedRun:
    """A trained run from its folder; see `LoadedRun`.

    Args:
      folder: the run's folder.
      checkpoint: "best", "latest" or a step.

    Raises:
      UserError: the folder is not a run's, or has no such checkpoint.
    """
    if not isinstance(folder, (str, Path)):
        raise UserError(f"folder={folder!r}: expected the path of a run's folder")
    return LoadedRun(folder, checkpoint)


def ensemble(folders: Sequence[str | Path], how: str = "mean", checkpoint: str | int = "best") -> LoadedRun:
    """Several trained runs that answer together; see `jaxformer.inference.ensemble.Ensemble`.

    Args:
      folders: the runs' folders, two or more.
      how: "mean" of the probabilities, "logits" (the mean of the logits) or "vote".
      checkpoint: of each run; "best", "latest" or a step.

    Raises:
      UserError: a folder is not a run's, the runs' tasks have no classes to average, or their classes differ.
    """
    from jaxformer.inference.ensemble import Ensemble

    return Ensemble(folders, how, checkpoint)
