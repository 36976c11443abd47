"""Low-rank changes of a run as a folder that peft opens: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from jaxformer.errors import UserError
from jaxformer.files import incomplete, put_in_place, write_json
from jaxformer.models.layouts import unrolled, unstack_layers
from jaxformer.optim.base import Optimizer
from jaxformer.optim.lora import MAGNITUDE, A, B, DoRA, LoRA
from jaxformer.optim.masks import trainable_mask
from jaxformer.weights.export import left_out
from jaxformer.weights.rows import Row, cut, rows_of
from jaxformer.weights.transformers_config import family_of
from jaxformer.weights.transformers_written import config_of

CONFIG, TENSORS, BELOW = "adapter_config.json", "adapter_model.safetensors", "base_model.model."


def write_adapter(
    model: Any,
    name: str,
    params: Mapping[str, Any],
    thin: Mapping[str, Any],
    adapter: LoRA,
    optimizer: Optimizer,
    base: str,
    folder: Path,
) -> None:
    """Writes the folder, all of it or nothing: `peft.PeftModel.from_pretrained(base, folder)` then computes the same.

    Layers that were trained as a whole, such as the head, are in it, too (peft: modules_to_save).

    Args:
      model: a linen module.
      name: its key in MODELS.
      params: its parameters, with the changes in them.
      thin: what stands beside the kernels, a tree like the parameters.
      adapter: made it.
      optimizer: tells what else was trained.
      base: the model that was adapted, as it is called there.
      folder: is made; nothing may be there yet.

    Raises:
      UserError: no model of transformers is such, peft cannot adapt a kernel, or there is something at `folder`.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name another folder, or remove it")
    config = config_of(model, name, ())
    headless = config["architectures"][0].endswith("Model")
    family = family_of(config)
    table = cut(
        (row for row in family.rows if row.theirs not in left_out(config)), family.prefix if headless else ""
    )
    flat = {
        path: np.asarray(leaf) for path, leaf in flatten_dict(unstack_layers(dict(thin)), sep="/").items()
    }
    tensors, adapted, style = {}, [], ""
    for path in (path.removesuffix(A) for path in flat if path.endswith(A)):
        row = next(rows_of(table, path), None)
        if row is None or row.part is not None or flat[path + A].ndim != 2:
            there = (
                "has no such layer" if row is None or row.part is None else f"it is a part of {row.theirs}"
            )
            remedy = "leave it out of adapter.kernels, or export the whole model"
            raise UserError(f"{path}: in transformers {there}, so peft cannot adapt it; {remedy}")
        layer, style = layer_of(row), row.style
        adapted.append(layer)
        tensors[f"{BELOW}{layer}.lora_A.weight"] = flat[path + A].T
        tensors[f"{BELOW}{layer}.lora_B.weight"] = flat[path + B].T
        if path + MAGNITUDE in flat:
            tensors[f"{BELOW}{layer}.lora_magnitude_vector"] = flat[path + MAGNITUDE]
    whole = family.write(unrolled(model, {"params": params})[1], left_out(config), prefixed=not headless)
    trained = flatten_dict(trainable_mask(optimizer, unstack_layers(dict(params))), sep="/")
    rows = (next(rows_of(table, path)) for path, trains in trained.items() if trains)
    layers = sorted({layer_of(row) for row in rows})
    tensors |= {f"{BELOW}{key}": x for key, x in whole.items() if key.rpartition(".")[0] in layers}
    described = {
        "peft_type": "LORA", "base_model_name_or_path": base, "r": adapter.rank, "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0, "bias": "none", "target_modules": sorted(adapted), "modules_to_save": layers or None,
        "use_dora": isinstance(adapter, DoRA), "fan_in_fan_out": style == "conv1d", "inference_mode": True,
    }  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with incomplete(folder) as hidden:
        hidden.mkdir()
        write_json(hidden / CONFIG, described)
        save_file({key: np.ascontiguousarray(x) for key, x in tensors.items()}, hidden / TENSORS)
        (hidden / TENSORS).chmod((hidden / CONFIG).stat().st_mode)  # save_file lets only the owner read
        put_in_place(hidden, folder)


def layer_of(row: Row) -> str:
    """The layer that a tensor belongs to: "bert.pooler.dense" of "bert.pooler.dense.weight"."""
    return row.theirs.rpartition(".")[0]
