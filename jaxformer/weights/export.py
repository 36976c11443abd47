"""A model of ours as a folder that Hugging Face transformers opens: config.json, model.safetensors, tokenizer, card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save_file

from jaxformer.data.text.tokenizers import ROLES
from jaxformer.errors import UserError
from jaxformer.files import incomplete, put_in_place, write_json
from jaxformer.models.layouts import unrolled
from jaxformer.weights.files import SINGLE
from jaxformer.weights.preprocessing import PROCESSOR, Preprocessing, to_transformers
from jaxformer.weights.transformers_config import family_of
from jaxformer.weights.transformers_written import config_of

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer


def write_pretrained(
    model: Any,
    name: str,
    variables: Mapping[str, Any],
    folder: Path,
    *,
    tokenizer: "Tokenizer | None" = None,
    classes: Sequence[str] = (),
    card: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Writes the folder, all of it or nothing.

    Args:
      model: a linen module.
      name: its key in MODELS.
      variables: {"params": ...}.
      folder: is made; nothing may be there yet.
      tokenizer: what the tokens of a text model mean.
      classes: the names of the classes.
      card: the text of README.md, the model card.
      preprocessing: what is done to images before a model sees them.

    Raises:
      UserError: no model of transformers computes the same, or there is something at `folder`.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name another folder, or remove it")
    config = config_of(model, name, tuple(classes))
    model, variables = unrolled(model, variables)
    headless = config["architectures"][0].endswith("Model")
    tensors = family_of(config).write(variables, left_out(config), prefixed=not headless)
    if tokenizer is not None:
        found = {f"{role}_token_id": token_id(tokenizer, role) for role in ("pad", "bos", "eos")}
        if config["model_type"] == "roberta" and found["pad_token_id"] != config["pad_token_id"]:
            counted = f"from behind the id of padding, and this tokenizer's is {found['pad_token_id']}"
            raise UserError(
                f"model.position_offset={model.position_offset}: transformers' roberta counts positions {counted}"
            )
        config |= {name: id for name, id in found.items() if id is not None}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with incomplete(folder) as hidden:
        hidden.mkdir()
        write_json(hidden / "config.json", {**config, "dtype": "float32"})
        save_file(tensors, hidden / SINGLE, metadata={"format": "pt"})
        (hidden / SINGLE).chmod((hidden / "config.json").stat().st_mode)  # save_file lets only the owner read
        if tokenizer is not None:
            tokenizer.save(hidden / "tokenizer.json")
            longest = longest_text(config, getattr(model, "position_offset", 0))
            write_json(hidden / "tokenizer_config.json", {**tokenizer_config(tokenizer), **longest})
        if preprocessing is not None:
            write_json(hidden / PROCESSOR, to_transformers(preprocessing, config["model_type"]))
        if card is not None:
            (hidden / "README.md").write_text(card)
        put_in_place(hidden, folder)


def token_id(tokenizer: "Tokenizer", role: str) -> int | None:
    """The id of a special token."""
    return vars(tokenizer)[f"{role}_id"]


def tokenizer_config(tokenizer: "Tokenizer") -> dict[str, Any]:
    """What transformers has to know besides tokenizer.json."""
    ids = {role: token_id(tokenizer, role) for role in ROLES}
    tokens = {f"{role}_token": tokenizer.hf.id_to_token(id) for role, id in ids.items() if id is not None}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}


def longest_text(config: Mapping[str, Any], offset: int) -> dict[str, int]:
    """How many tokens transformers' tokenizer truncates to: those that have positions."""
    sizes = [config[key] for key in ("max_position_embeddings", "n_positions") if key in config]
    return {"model_max_length": sizes[0] - offset} if sizes else {}


def left_out(config: Mapping[str, Any]) -> set[str]:
    """The layers of a family's table that a model with this config.json does not have."""
    kind, cls = config["model_type"], config["architectures"][0]
    heads = {"classifier", "classifier.out_proj", "qa_outputs"}
    own = "qa_outputs" if cls.endswith("QuestionAnswering") and kind != "modernbert" else "classifier"
    unused = set()
    if kind == "roberta":
        texts = cls.endswith("SequenceClassification")
        own = "classifier.out_proj" if texts else own
        unused = {"roberta.pooler.dense" if texts else "classifier.dense"}
    rows = family_of(config).rows
    if kind == "t5":
        gated = config["feed_forward_proj"].startswith("gated-")
        unused = {row.theirs for row in rows if row.theirs.endswith(".wi" if gated else ".wi_1")}
    if kind.startswith("dinov2"):
        others = ("mlp.fc1", "mlp.fc2") if config["use_swiglu_ffn"] else ("weights_in", "weights_out")
        unused = {row.theirs for row in rows if row.theirs.endswith(others)}
    return unused | (heads - {own})


def model_card(name: str, facts: Mapping[str, Any], metrics: Mapping[str, float], license: str | None) -> str:
    """The text of a model card: what it was trained on and how well it does.

    Args:
      name: what the model is called.
      facts: a config, nested.
      metrics: by name.
      license: as the Hub calls it ("apache-2.0"); None leaves the field out.
    """
    rule = 3 * "-"  # begins and ends what the Hub reads
    field = [f"license: {license}"] if license else []
    rows = [f"| {metric} | {value:.6g} |" for metric, value in sorted(metrics.items())]
    table = ["## Metrics", "", "| metric | value |", f"|{rule}|{rule}|", *rows, ""] if rows else []
    config = json.dumps(without_folders(facts), indent=2, default=str, ensure_ascii=False)
    head = [rule, *field, "library_name: transformers", "tags: [jaxformer]", rule, ""]
    body = [f"# {name}", "", "Trained with jaxformer, exported for Hugging Face transformers.", ""]
    return "\n".join([*head, *body, *table, "## Config", "", "```json", config, "```", ""])


def without_folders(value: Any) -> Any:
    """A config in which absolute paths of this machine are no more than their last name."""
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
