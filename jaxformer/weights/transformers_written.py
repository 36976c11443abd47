"""The config.json of transformers' model that computes what ours does: `transformers_config` backwards.

What is written is read again, and has to be the same model of ours: what theirs cannot express is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from flax import linen as nn

from jaxformer.config.schema import build
from jaxformer.errors import UserError
from jaxformer.models import CONTRACT, MODELS
from jaxformer.models.rotary import Rotary
from jaxformer.weights import towers_config
from jaxformer.weights.transformers_config import FAMILIES, HEADS, NAMES, model_of
from jaxformer.weights.transformers_image_config import KINDS
from jaxformer.weights.transformers_values import GATED, THEIRS

Config = dict[str, Any]
HOW = (  # fields that change no result
    "dtype", "param_dtype", "axis_name", "remat", "scan", "pretrained", "drop_path", "scale", "parent", "name",
)  # fmt: skip
BERT_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps",
    "max_position_embeddings", "type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_act",
)  # fmt: skip
DISTILBERT_KEYS = (
    "vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings", "dropout",
    "attention_dropout", "activation",
)  # fmt: skip
MODERNBERT_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "norm_eps",
    "max_position_embeddings", "embedding_dropout", "attention_dropout", "hidden_activation",
)  # fmt: skip
GPT2_KEYS = (
    "vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "layer_norm_epsilon", "resid_pdrop", "attn_pdrop",
    "activation_function",
)  # fmt: skip
LLAMA_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "rms_norm_eps",
    "max_position_embeddings", "attention_dropout", "hidden_act",
)  # fmt: skip
T5_KEYS = (
    "vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff", "layer_norm_epsilon", "dropout_rate",
)  # fmt: skip
UNGATED = {gated: THEIRS[plain] for plain, gated in GATED.items()}
CLASSES = {kind: end for end, kind in HEADS.items()}  # a head of ours: how the names of their classes end
LABELS = {"sequence", "token"}  # heads over classes


def named(model: Any, keys: tuple[str, ...]) -> Config:
    """The fields that theirs have under another name alone."""
    found: Config = {}
    for field in {each.name for each in fields(model)} & NAMES.keys():
        value = getattr(model, field)
        value = THEIRS.get(value, UNGATED.get(value, value)) if field == "activation" else value
        found |= {key: value for key in NAMES[field] if key in keys}
    return found


def with_head(model: Any, family: str, classes: tuple[str, ...]) -> Config:
    """Their class, and the names of its labels: those that are given, or as transformers calls them."""
    config: Config = {"architectures": [family + CLASSES[model.head]]}
    if model.head in LABELS:
        names = classes or [f"LABEL_{i}" for i in range(model.num_classes)]
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return config


def bert(model: Any, classes: tuple[str, ...]) -> Config:
    """A BERT."""
    config = named(model, BERT_KEYS) | with_head(model, "Bert", classes)
    return {**config, "intermediate_size": model.mlp_dim or 4 * model.width, "pad_token_id": 0}


def roberta(model: Any, classes: tuple[str, ...]) -> Config:
    """A RoBERTa, whose positions are counted from behind the id of padding."""
    config = bert(model, classes) | with_head(model, "Roberta", classes)
    return {**config, "pad_token_id": model.position_offset - 1}


def distilbert(model: Any, classes: tuple[str, ...]) -> Config:
    """A DistilBERT."""
    config = named(model, DISTILBERT_KEYS) | with_head(model, "DistilBert", classes)
    return {**config, "hidden_dim": model.mlp_dim or 4 * model.width, "seq_classif_dropout": model.dropout}


def modernbert(model: Any, classes: tuple[str, ...]) -> Config:
    """A ModernBERT."""
    turns = model.rotary, model.local_rotary or model.rotary
    biases = ("attention_bias", "mlp_bias", "classifier_bias", "norm_bias")
    return {
        **named(model, MODERNBERT_KEYS),
        **with_head(model, "ModernBert", classes),
        **dict.fromkeys(biases, model.use_bias),
        "intermediate_size": model.mlp_dim or 4 * model.width,
        "global_attn_every_n_layers": model.window_every,
        "local_attention": 2 * ((model.window or 1) - 1),
        "rope_parameters": dict(zip(("full_attention", "sliding_attention"), map(rope, turns))),
        "classifier_pooling": "mean" if model.pooler == "mean" else "cls",
        "classifier_dropout": model.dropout,
        "pad_token_id": 0,
    }


def gpt2(model: Any, classes: tuple[str, ...]) -> Config:
    """A GPT-2."""
    config = named(model, GPT2_KEYS) | {"architectures": ["GPT2LMHeadModel"]}
    return {
        **config,
        "n_inner": model.mlp_dim,
        "tie_word_embeddings": model.tied,
        "embd_pdrop": model.dropout,
    }


def llama(model: Any, classes: tuple[str, ...]) -> Config:
    """A Llama."""
    return llama_like(model, "Llama", {"attention_bias": model.use_bias, "mlp_bias": model.use_bias})


def qwen2(model: Any, classes: tuple[str, ...]) -> Config:
    """A Qwen 2."""
    return llama_like(model, "Qwen2", {})


def qwen3(model: Any, classes: tuple[str, ...]) -> Config:
    """A Qwen 3."""
    return llama_like(model, "Qwen3", {"attention_bias": model.use_bias})


def llama_like(model: Any, family: str, own: Config) -> Config:
    """What Llama and Qwen have in common."""
    return {
        **named(model, LLAMA_KEYS),
        "architectures": [f"{family}ForCausalLM"],
        "num_key_value_heads": model.num_kv_heads or model.num_heads,
        "head_dim": model.head_dim or model.width // model.num_heads,
        "rope_parameters": rope(model.rotary),
        "tie_word_embeddings": model.tied,
        **own,
    }


def rope(rotary: Rotary) -> Config:
    """How queries and keys turn."""
    kind = "default" if rotary.scaling == "none" else rotary.scaling
    found: Config = {"rope_type": kind, "rope_theta": rotary.base}
    if kind != "default":
        found["factor"] = rotary.factor
    if kind not in ("default", "linear"):
        found["original_max_position_embeddings"] = rotary.original_length
    if kind == "yarn":
        found |= {"beta_fast": rotary.fast, "beta_slow": rotary.slow}
    if kind == "llama3":
        found |= {"low_freq_factor": rotary.low, "high_freq_factor": rotary.high}
    return found


def t5(model: Any, classes: tuple[str, ...]) -> Config:
    """A T5, or a T5 1.1, which has a gate."""
    gated = model.activation in UNGATED
    name = {"gelu_new": "gelu"}.get(activation := UNGATED.get(model.activation, model.activation), activation)
    return {
        **named(model, T5_KEYS),
        "architectures": ["T5ForConditionalGeneration"],
        "num_decoder_layers": model.decoder_depth,
        "d_kv": model.head_dim or model.width // model.num_heads,
        "feed_forward_proj": f"gated-{name}" if gated else name,
        "tie_word_embeddings": model.tied,
        "scale_decoder_outputs": model.scaled_logits,
        "is_encoder_decoder": True,
    }


WRITERS: dict[str, Callable[[Any, tuple[str, ...]], Config]] = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "modernbert": modernbert,
    "gpt2": gpt2,
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "t5": t5,
    "clip": towers_config.CLIP.config_of,
    "siglip": towers_config.SIGLIP_TOWERS.config_of,
    **{kind: each.config_of for kind, each in KINDS.items()},
}


def config_of(model: Any, name: str, classes: tuple[str, ...] = ()) -> Config:
    """Their config.json for a model of ours.

    Args:
      model: a linen module.
      name: its key in MODELS.
      classes: the names of its classes.

    Raises:
      UserError: no model of theirs computes the same; the fields that the nearest cannot express are named.
    """
    kinds = [kind for kind, (_, ours, _, _) in FAMILIES.items() if ours == name]
    if not kinds:
        known = ", ".join(sorted({ours for _, ours, _, _ in FAMILIES.values()}))
        raise UserError(f"model.name={name!r}: cannot be written for transformers yet; these can: {known}")
    refusals: list[UserError] = []
    for kind in kinds:
        try:
            config = {"model_type": kind.partition("/")[0], **WRITERS[kind](model, classes)}
            if not (different := differences(model, read_back(config))):
                return config
            shown = different.items()
            refusals.append(
                UserError(
                    *(f"model.{field}={a!r}: transformers' {kind} has {b!r}" for field, (a, b) in shown)
                )
            )
        except UserError as error:  # there is no such model of theirs
            refusals.append(error)
    raise min(refusals, key=lambda refusal: (not str(refusal).startswith("model."), len(refusal.lines)))


def read_back(config: Config) -> Any:
    """Our model for their config."""
    name, found = model_of(config)
    return build(MODELS, {"name": name, **found}, "model", CONTRACT)


def differences(one: Any, other: Any) -> Mapping[str, tuple[Any, Any]]:
    """The fields in which two models of a class differ so that they compute something else, with both values."""
    both = {field.name: (meaning(one, field.name), meaning(other, field.name)) for field in fields(one)}
    found: dict[str, tuple[Any, Any]] = {}
    for name, (a, b) in both.items():
        if isinstance(a, nn.Module) and type(a) is type(b):
            found |= {f"{name}.{inner}": values for inner, values in differences(a, b).items()}
        elif name not in HOW and a != b:
            found[name] = a, b
    return found


def meaning(model: Any, field: str) -> Any:
    """The value of a field; where None stands for a number that follows from others, that number."""
    value = getattr(model, field)
    if field == "pooler" and model.head in ("mlm", "token", "span"):
        return None  # it is not used
    if field in ("bias", "padding") and model.kind == "two-towers":
        return value is not None if field == "bias" else value if model.text_pooling == "last" else None
    follows: dict[str, Callable[[], Any]] = {
        "mlp_dim": lambda: 4 * model.width,
        "num_kv_heads": lambda: model.num_heads,
        "head_dim": lambda: model.width // model.num_heads,
        "qkv_bias": lambda: model.use_bias,
        "local_rotary": lambda: model.rotary,
    }
    return follows[field]() if value is None and field in follows else value
