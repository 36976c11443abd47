"""What an adapter has learnt as a folder that peft opens: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from jaxformer.errors import UserError
from jaxformer.files import incomplete, put_in_place, write_json
from jaxformer.models.base import replaced
from jaxformer.models.layouts import unstack_layers
from jaxformer.models.rotary import apply_rotary
from jaxformer.optim.adapters import Adapter, Prefix, Prompt
from jaxformer.optim.base import Optimizer
from jaxformer.optim.lora import MAGNITUDE, A, B, DoRA, LoRA
from jaxformer.optim.masks import trainable_mask
from jaxformer.paths import matches
from jaxformer.weights.export import left_out
from jaxformer.weights.rows import Row, cut, rows_of
from jaxformer.weights.transformers_config import family_of
from jaxformer.weights.transformers_written import config_of

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
EXPORTED = (LoRA, Prompt, Prefix)  # and what is derived from them
TASKS = {  # how the names of transformers' classes end: what peft calls such a task
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "Model": "FEATURE_EXTRACTION",
}
Found = tuple[dict[str, Any], dict[str, np.ndarray]]  # of adapter_config.json, and tensors


def write_adapter(
    model: Any,
    name: str,
    params: Mapping[str, Any],
    thin: Mapping[str, Any],
    adapter: Adapter,
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
      adapter: made it; one of EXPORTED.
      optimizer: tells what else was trained.
      base: the model that was adapted, as it is called there.
      folder: is made; nothing may be there yet.

    Raises:
      UserError: no model of transformers is such, peft cannot adapt it so, or there is something at `folder`.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name another folder, or remove it")
    flat = {
        path: np.asarray(leaf) for path, leaf in flatten_dict(unstack_layers(dict(params)), sep="/").items()
    }
    own = {path: x for path, x in flat.items() if adapter.of_model and matches(adapter.own[0], path)}
    params = unflatten_dict({path: x for path, x in flat.items() if path not in own}, sep="/")
    config = config_of(replaced(model, **dict.fromkeys(adapter.of_model, 0)), name, ())
    task = next((task for end, task in TASKS.items() if config["architectures"][0].endswith(end)), None)
    headless = task == "FEATURE_EXTRACTION"
    family = family_of(config)
    table = cut(
        (row for row in family.rows if row.theirs not in left_out(config)), family.prefix if headless else ""
    )
    below = "base_model.model." if isinstance(adapter, LoRA) else "base_model."
    if isinstance(adapter, LoRA):
        described, tensors = low_rank(adapter, thin, table, below)
    else:
        described, tensors = (prompt if isinstance(adapter, Prompt) else prefixes)(model, own, task)
        described["num_transformer_submodules"] = 1
    whole = family.write({"params": params}, left_out(config), prefixed=not headless)
    trained = flatten_dict(trainable_mask(optimizer, params), sep="/")
    rows = (next(rows_of(table, path)) for path, trains in trained.items() if trains)
    layers = sorted({layer_of(row) for row in rows})
    tensors |= {f"{below}{key}": x for key, x in whole.items() if key.rpartition(".")[0] in layers}
    described |= {"base_model_name_or_path": base, "modules_to_save": layers or None, "inference_mode": True}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with incomplete(folder) as hidden:
        hidden.mkdir()
        write_json(hidden / CONFIG, described)
        save_file({key: np.ascontiguousarray(x) for key, x in tensors.items()}, hidden / TENSORS)
        (hidden / TENSORS).chmod((hidden / CONFIG).stat().st_mode)  # save_file lets only the owner read
        put_in_place(hidden, folder)


def low_rank(adapter: LoRA, thin: Mapping[str, Any], table: list[Row], below: str) -> Found:
    """What LoRA or DoRA has learnt; names of layers begin with `below`.

    Raises:
      UserError: peft cannot adapt a kernel.
    """
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
        tensors[f"{below}{layer}.lora_A.weight"] = flat[path + A].T
        tensors[f"{below}{layer}.lora_B.weight"] = flat[path + B].T
        if path + MAGNITUDE in flat:
            tensors[f"{below}{layer}.lora_magnitude_vector"] = flat[path + MAGNITUDE]
    described = {
        "peft_type": "LORA", "r": adapter.rank, "lora_alpha": adapter.alpha, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(adapted), "use_dora": isinstance(adapter, DoRA), "fan_in_fan_out": style == "conv1d",
    }  # fmt: skip
    return described, tensors


def prompt(model: Any, own: Mapping[str, np.ndarray], task: str | None) -> Found:
    """A prompt, from the parameters that are its own.

    Raises:
      UserError: peft's computes something else in such a model.
    """
    of_text = model.kind == "encoder" and model.head in ("sequence", "none")
    if of_text and (model.head == "sequence" or model.pooler in ("tanh", "relu")):
        refuse(
            "prompt", "lets heads over texts read the first learned vector in the place of the first token"
        )
    if task is None or model.kind not in ("encoder", "decoder", "encoder-decoder"):
        refuse("prompt", "has no task for such a model")
    described = {"peft_type": "PROMPT_TUNING", "task_type": task, "num_virtual_tokens": model.prompt}
    return described, {"prompt_embeddings": own["prompt_tokens"][0]}


def prefixes(model: Any, own: Mapping[str, np.ndarray], task: str | None) -> Found:
    """The keys and values of a decoder's prefixes, [N, L * 2 * Hkv * Dh], from the parameters that are their own.

    There the tokens have the positions from N on. Keys that are turned by N positions, too, give the same products.

    Raises:
      UserError: peft's compute something else in such a model.
    """
    if task != "CAUSAL_LM":
        refuse("prefix", "has prefixes of decoders alone")
    if model.positions != "rotary" or model.window is not None or model.local_rotary is not None:
        refuse("prefix", "moves the tokens behind a prefix, which only rotary positions without windows bear")
    count, size = model.prefix, model.size_of_heads
    tables = model.rotary.tables(jnp.full((1, count), count, jnp.int32), size)
    turn = tables[0] / model.rotary.sharpening, tables[1] / model.rotary.sharpening
    layers = []
    for i in range(model.depth):
        key, value = (own[f"decoder/block_{i}/attention/prefix_{part}"] for part in ("key", "value"))
        turned = np.asarray(apply_rotary(jnp.asarray(key)[None], turn))[0]
        layers += [turned.swapaxes(0, 1), value.swapaxes(0, 1)]  # [N, Hkv, Dh]
    described = {"peft_type": "PREFIX_TUNING", "task_type": task, "num_virtual_tokens": count}
    return described, {"prompt_embeddings": np.stack(layers, axis=1).reshape(count, -1)}


def refuse(name: str, why: str) -> NoReturn:
    """Raises the UserError that peft's adapter of this name computes something else."""
    raise UserError(f'adapter.name="{name}": peft {why}; keep the run, which computes what was trained')


def layer_of(row: Row) -> str:
    """The layer that a tensor belongs to: "bert.pooler.dense" of "bert.pooler.dense.weight"."""
    return row.theirs.rpartition(".")[0]
