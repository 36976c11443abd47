"""The fields of our model that computes what a model of Hugging Face transformers does, from its config.json."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.weights import towers, towers_config
from jaxformer.weights.convert import Family
from jaxformer.weights.transformers_image_config import KINDS
from jaxformer.weights.transformers_text import BERT, DISTILBERT, GPT2, LLAMA, MODERNBERT, ROBERTA, T5
from jaxformer.weights.transformers_values import activation

Config = Mapping[str, Any]
Fields = dict[str, Any]

NAMES = {  # our fields: what theirs are called, each in the configs of one kind of model or of several
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings",),
    "context_length": ("max_position_embeddings", "n_positions"),
    "token_types": ("type_vocab_size",),
    "width": ("hidden_size", "dim", "n_embd", "d_model"),
    "depth": ("num_hidden_layers", "n_layers", "n_layer"),
    "encoder_depth": ("num_layers",),
    "num_heads": ("num_attention_heads", "n_heads", "n_head", "num_heads"),
    "head_dim": ("d_kv",),
    "mlp_dim": ("intermediate_size", "hidden_dim", "d_ff"),
    "norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps"),
    "dropout": ("hidden_dropout_prob", "resid_pdrop", "dropout_rate", "dropout", "embedding_dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attn_pdrop", "dropout_rate", "attention_dropout"),
    "mlp_dropout": ("dropout_rate",),
    "activation": ("hidden_act", "activation", "activation_function", "hidden_activation"),
}
HEADS = {  # the end of a class's name: the head
    "Model": "none",
    **dict.fromkeys(("ForPreTraining", "ForMaskedLM"), "mlm"),
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
}


def model_of(config: Config) -> tuple[str, Fields]:
    """Our model for theirs.

    Args:
      config: their config.json, parsed.

    Returns:
      A key of MODELS and its fields; in all that they leave out, our defaults are theirs.

    Raises:
      UserError: the kind of model is not known, or it does something that ours does not.
    """
    kind = config.get("model_type", "")
    if not isinstance(kind, str):
        raise UserError(f"model_type={kind!r}: expected the name of a kind of model, such as 'bert'")
    if kind in OTHERS:
        raise UserError(f"model_type={kind!r}: {OTHERS[kind]}")
    if kind not in FAMILIES:
        raise UserError(f"model_type={kind!r}: no table for such checkpoints; {did_you_mean(kind, FAMILIES)}")
    _, name, fields_of, unsupported = FAMILIES[kind_of(config)]
    refuse(config, unsupported)
    try:
        return name, fields_of(config)
    except KeyError as error:
        raise UserError(f"{error.args[0]}: missing in the config of model_type={kind!r}") from None


def family_of(config: Config) -> Family:
    """How checkpoints with this config.json are read; `model_of` refuses what there is no table for."""
    model_of(config)
    return FAMILIES[kind_of(config)][0]


def kind_of(config: Config) -> str:
    """The key of FAMILIES: the "model_type", and the class where another one of that type is another model of ours."""
    kind: str = config["model_type"]
    by_class = "/".join((kind, *(config.get("architectures") or [])[:1]))
    return by_class if by_class in FAMILIES else kind


def refuse(config: Config, unsupported: Mapping[str, Any]) -> None:
    """Raises a UserError for every key that is set to something else than what our models do."""
    problems = [
        f"{key}={config[key]!r}: there is no such model here; expected {expected!r}"
        for key, expected in unsupported.items()
        if key in config and config[key] not in (expected, None)
    ]
    if problems:
        raise UserError(*problems)


def renamed(config: Config, *fields: str) -> Fields:
    """The fields of ours that theirs have under another name alone, and three that every model has.

    Raises:
      KeyError: there is none of the names.
    """
    found = {}
    for field in ("vocab_size", "width", "num_heads", *fields):
        given = [config[name] for name in NAMES[field] if name in config]
        if not given:
            raise KeyError(" or ".join(NAMES[field]))
        found[field] = activation(given[0]) if field == "activation" else given[0]
    return found


def same(config: Config, *keys: str) -> Any:
    """The value that all of these have; those that are missing are False.

    Raises:
      UserError: they differ.
    """
    found = {key: config.get(key, False) for key in keys}
    if len({*found.values()}) > 1:
        given = " and ".join(f"{key}={value}" for key, value in found.items())
        raise UserError(f"{given}: expected the same of all")
    return found[keys[0]]


ENCODER = ("depth", "max_positions", "mlp_dim", "activation", "dropout", "attention_dropout")
DECODER = ("depth", "context_length", "norm_epsilon")


def bert(config: Config) -> Fields:
    """The fields of a BERT or a RoBERTa."""
    offset = config["pad_token_id"] + 1 if config["model_type"] == "roberta" else 0
    fields = renamed(config, *ENCODER, "token_types", "norm_epsilon")
    return {**fields, "position_offset": offset, "pooler": "tanh", **head(config)}


def distilbert(config: Config) -> Fields:
    """A DistilBERT, which has neither token types nor a pooler, but a layer more under the head over texts."""
    top = head(config)
    pooler = "relu" if top["head"] == "sequence" else "none"
    return {**renamed(config, *ENCODER), "token_types": 0, "pooler": pooler, **top}


def modernbert(config: Config) -> Fields:
    """A ModernBERT: local layers between global ones, which turn more slowly."""
    local, full = "sliding_attention", "full_attention"
    types = config.get("layer_types")
    every = config.get("global_attn_every_n_layers") or ([*types[1:], full].index(full) + 1 if types else 3)
    if types and types != [local if i % every else full for i in range(len(types))]:
        raise UserError(f"layer_types={types}: expected {full}, and after it as many of {local} each time")
    turns = config.get("rope_parameters") or {
        full: {"rope_theta": config.get("global_rope_theta", 160_000.0)},
        local: {"rope_theta": config.get("local_rope_theta", 10_000.0)},
    }
    return {
        **renamed(config, "depth", "max_positions", "mlp_dim"),
        # Published configs also have BERT's names of these, with other values.
        "norm_epsilon": config.get("norm_eps", 1e-5),
        "dropout": config.get("embedding_dropout", 0.0),
        "attention_dropout": config.get("attention_dropout", 0.0),
        "activation": activation(config["hidden_activation"], gated=True),
        "positions": "rotary",
        "rotary": rotary({**config, "rope_parameters": turns[full]}),
        "local_rotary": rotary({**config, "rope_parameters": turns[local]}) if every > 1 else None,
        "window": config.get("local_attention", 128) // 2 + 1 if every > 1 else None,
        "window_every": every,
        "token_types": 0,
        "norm_position": "pre",
        "first_norm": False,
        "use_bias": same(config, "attention_bias", "mlp_bias", "classifier_bias", "norm_bias"),
        "head_layer": True,
        "pooler": {"cls": "none", "mean": "mean"}[config.get("classifier_pooling", "cls")],
        **head(config),
    }


def head(config: Config) -> Fields:
    """The head that the class in "architectures" has, and its labels."""
    name = (config.get("architectures") or ["Model"])[0]
    kind = next((kind for end, kind in HEADS.items() if name.endswith(end)), None)
    if kind is None:
        raise UserError(f"architectures={name!r}: no such head here; there are: {', '.join(HEADS)}")
    labels = {"num_classes": len(config.get("id2label") or (0, 1))} if kind in ("sequence", "token") else {}
    return {"head": kind, **labels}


def gpt2(config: Config) -> Fields:
    """The fields of a GPT-2."""
    return {
        **renamed(config, *DECODER, "dropout", "attention_dropout", "activation"),
        "mlp_dim": config.get("n_inner"),
        "tied": config.get("tie_word_embeddings", True),
    }


def llama(config: Config) -> Fields:
    """The fields of a Llama, a Qwen 2 or a Qwen 3."""
    kind = config["model_type"]
    return {
        **renamed(config, *DECODER, "mlp_dim"),
        "num_kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "activation": activation(config["hidden_act"], gated=True),
        "norm": "rms",
        "use_bias": same(config, "attention_bias", "mlp_bias"),
        "qkv_bias": True if kind == "qwen2" else None,
        "qk_norm": kind == "qwen3",
        "positions": "rotary",
        "rotary": rotary(config),
        "tied": config.get("tie_word_embeddings", False),
        "attention_dropout": config.get("attention_dropout", 0.0),
    }


def rotary(config: Config) -> Fields:
    """The fields of `Rotary`, from "rope_parameters" or what versions before 5 have in its place."""
    older = {"rope_theta": config.get("rope_theta", 10_000.0), **(config.get("rope_scaling") or {})}
    given = config.get("rope_parameters") or older
    kind = given.get("rope_type", given.get("type", "default"))
    fields: Fields = {"base": given["rope_theta"]}
    if kind == "default":
        return fields
    if kind not in ("linear", "yarn", "llama3"):
        raise UserError(f"rope_type={kind!r}: expected default, linear, yarn or llama3")
    refuse(given, {"truncate": True, "attention_factor": None, "mscale": None, "partial_rotary_factor": 1.0})
    fields |= {"scaling": kind, "factor": given["factor"]}
    if kind != "linear":
        original = given.get("original_max_position_embeddings") or config["max_position_embeddings"]
        fields["original_length"] = original
    if kind == "yarn":
        fields |= {"fast": given.get("beta_fast") or 32.0, "slow": given.get("beta_slow") or 1.0}
    if kind == "llama3":
        fields |= {"low": given["low_freq_factor"], "high": given["high_freq_factor"]}
    return fields


def t5(config: Config) -> Fields:
    """The fields of a T5; version 1.1 has an untied head, and then does not scale what it sees."""
    gate, _, name = config.get("feed_forward_proj", "relu").rpartition("-")
    name = "gelu_new" if (gate, name) == ("gated", "gelu") else name
    tied = config.get("tie_word_embeddings", True)
    dropouts = ("dropout", "attention_dropout", "mlp_dropout")
    fields = renamed(config, "encoder_depth", "head_dim", "mlp_dim", "norm_epsilon", *dropouts)
    return {
        **fields,
        "decoder_depth": config.get("num_decoder_layers") or fields["encoder_depth"],
        "activation": activation(name, gated=gate == "gated"),
        "norm": "rms",
        "norm_position": "pre",
        "use_bias": False,
        "positions": "relative",
        "attention_scale": 1.0,
        "tied": tied,
        "scaled_embedding": False,
        "scaled_logits": tied and config.get("scale_decoder_outputs", True),
    }


ABSOLUTE = {"position_embedding_type": "absolute", "is_decoder": False}
FILLED = {"decoder_bias": True, "classifier_activation": "gelu", "tie_word_embeddings": True}
PLAIN = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
BUCKETS = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}

# model_type, or model_type/class: the tensors' names, our model, its fields, and what else of a config has one value
# alone here.
FAMILIES: dict[str, tuple[Family, str, Callable[[Config], Fields], Config]] = {
    "bert": (BERT, "bert", bert, ABSOLUTE),
    "roberta": (ROBERTA, "bert", bert, ABSOLUTE),
    "distilbert": (DISTILBERT, "bert", distilbert, {}),
    "modernbert": (MODERNBERT, "bert", modernbert, FILLED),
    "gpt2": (GPT2, "gpt", gpt2, PLAIN),
    "llama": (LLAMA, "gpt", llama, {}),
    "qwen2": (LLAMA, "gpt", llama, {"use_sliding_window": False}),
    "qwen3": (LLAMA, "gpt", llama, {"use_sliding_window": False}),
    "t5": (T5, "seq2seq", t5, BUCKETS),
    "clip": (towers.CLIP, "two_towers", towers_config.CLIP.fields, {}),
    "siglip": (towers.SIGLIP_TOWERS, "two_towers", towers_config.SIGLIP_TOWERS.fields, {}),
    **{kind: (each.family, each.name, each.fields, each.needs) for kind, each in KINDS.items()},
}
OTHERS = {  # kinds that are near one of these: what to take
    "siglip2": "is SigLIP 2 for images of any shape (NaFlex), which no model here computes; take a checkpoint for "
    "images of one size, such as hf:google/siglip2-base-patch16-224, whose model_type is 'siglip'",
}
