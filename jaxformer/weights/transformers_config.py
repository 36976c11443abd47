"""The fields of our model that computes what a model of Hugging Face transformers does, from its config.json."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError
from jaxformer.weights.convert import Family
from jaxformer.weights.transformers_bert import BERT, DISTILBERT, ROBERTA
from jaxformer.weights.transformers_gpt2 import GPT2
from jaxformer.weights.transformers_llama import LLAMA
from jaxformer.weights.transformers_t5 import T5

Config = Mapping[str, Any]
Fields = dict[str, Any]

ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
}
GATED = {"gelu_erf": "geglu_erf", "gelu_tanh": "geglu", "silu": "swiglu"}
HEADS = {  # the end of a class's name: the head
    "Model": "none",
    "ForPreTraining": "mlm",
    "ForMaskedLM": "mlm",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
}


def text_model_of(config: Config) -> tuple[str, Fields]:
    """Our model for theirs.

    Args:
      config: their config.json, parsed.

    Returns:
      A key of MODELS and its fields; in all that they leave out, our defaults are theirs.

    Raises:
      UserError: the kind of model is not known, or it does something that ours does not.
    """
    kind = config.get("model_type", "")
    if kind not in FAMILIES:
        raise UserError(f"model_type={kind!r}: no table for such checkpoints; {did_you_mean(kind, FAMILIES)}")
    _, name, fields_of, unsupported = FAMILIES[kind]
    refuse(config, unsupported)
    try:
        return name, fields_of(config)
    except KeyError as error:
        raise UserError(f"{error.args[0]}: missing in the config of model_type={kind!r}") from None


def family_of(config: Config) -> Family:
    """How checkpoints with this config.json are read; `text_model_of` refuses what there is no table for."""
    text_model_of(config)
    return FAMILIES[config["model_type"]][0]


def refuse(config: Config, unsupported: Mapping[str, Any]) -> None:
    """Raises a UserError for every key that is set to something else than what our models do."""
    problems = [
        f"{key}={config[key]!r}: there is no such model here; expected {expected!r}"
        for key, expected in unsupported.items()
        if key in config and config[key] not in (expected, None)
    ]
    if problems:
        raise UserError(*problems)


def activation(name: str, gated: bool = False) -> str:
    """Our name of an activation of theirs."""
    if name not in ACTIVATIONS or (gated and ACTIVATIONS[name] not in GATED):
        raise UserError(f"the activation {name!r} is not known; {did_you_mean(name, ACTIVATIONS)}")
    return GATED[ACTIVATIONS[name]] if gated else ACTIVATIONS[name]


def bert(config: Config) -> Fields:
    """Of BERT and RoBERTa."""
    roberta = config["model_type"] == "roberta"
    return {
        "vocab_size": config["vocab_size"],
        "max_positions": config["max_position_embeddings"],
        "position_offset": config["pad_token_id"] + 1 if roberta else 0,
        "token_types": config["type_vocab_size"],
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_dim": config["intermediate_size"],
        "activation": activation(config["hidden_act"]),
        "norm_epsilon": config["layer_norm_eps"],
        "dropout": config["hidden_dropout_prob"],
        "attention_dropout": config["attention_probs_dropout_prob"],
        "pooler": "tanh",
        **head(config),
    }


def distilbert(config: Config) -> Fields:
    """Of DistilBERT, which has neither token types nor a pooler, but a layer more under the head over texts."""
    top = head(config)
    return {
        "vocab_size": config["vocab_size"],
        "max_positions": config["max_position_embeddings"],
        "token_types": 0,
        "width": config["dim"],
        "depth": config["n_layers"],
        "num_heads": config["n_heads"],
        "mlp_dim": config["hidden_dim"],
        "activation": activation(config["activation"]),
        "dropout": config["dropout"],
        "attention_dropout": config["attention_dropout"],
        "pooler": "relu" if top["head"] == "sequence" else "none",
        **top,
    }


def head(config: Config) -> Fields:
    """The head that the class in "architectures" has, and its labels."""
    name = (config.get("architectures") or ["Model"])[0]
    ends = [end for end in HEADS if name.endswith(end)]
    if not ends:
        raise UserError(f"architectures={name!r}: no such head here; there are: {', '.join(HEADS)}")
    labels = len(config.get("id2label") or (0, 1))
    return {
        "head": HEADS[ends[0]],
        **({"num_classes": labels} if HEADS[ends[0]] in ("sequence", "token") else {}),
    }


def gpt2(config: Config) -> Fields:
    """Of GPT-2."""
    return {
        "vocab_size": config["vocab_size"],
        "context_length": config["n_positions"],
        "width": config["n_embd"],
        "depth": config["n_layer"],
        "num_heads": config["n_head"],
        "mlp_dim": config.get("n_inner"),
        "activation": activation(config["activation_function"]),
        "norm_epsilon": config["layer_norm_epsilon"],
        "dropout": config["resid_pdrop"],
        "attention_dropout": config["attn_pdrop"],
        "tied": config.get("tie_word_embeddings", True),
    }


def llama(config: Config) -> Fields:
    """Of Llama, Qwen 2 and Qwen 3."""
    kind = config["model_type"]
    biases = config.get("attention_bias", False), config.get("mlp_bias", False)
    if biases[0] != biases[1]:
        raise UserError(f"attention_bias={biases[0]} and mlp_bias={biases[1]}: expected the same of both")
    return {
        "vocab_size": config["vocab_size"],
        "context_length": config["max_position_embeddings"],
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "mlp_dim": config["intermediate_size"],
        "activation": activation(config["hidden_act"], gated=True),
        "norm": "rms",
        "norm_epsilon": config["rms_norm_eps"],
        "use_bias": biases[0],
        "qkv_bias": True if kind == "qwen2" else None,
        "qk_norm": kind == "qwen3",
        "positions": "rotary",
        "rotary": rotary(config),
        "tied": config.get("tie_word_embeddings", False),
        "attention_dropout": config.get("attention_dropout", 0.0),
    }


def rotary(config: Config) -> Fields:
    """The fields of `Rotary`, from "rope_parameters" or what versions before 5 have in its place."""
    given = config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta", 10_000.0),
        **(config.get("rope_scaling") or {}),
    }
    kind = given.get("rope_type", given.get("type", "default"))
    fields: Fields = {"base": given["rope_theta"]}
    if kind == "default":
        return fields
    if kind not in ("linear", "yarn", "llama3"):
        raise UserError(f"rope_type={kind!r}: expected default, linear, yarn or llama3")
    refuse(given, {"truncate": True, "attention_factor": None, "mscale": None, "partial_rotary_factor": 1.0})
    fields |= {"scaling": kind, "factor": given["factor"]}
    if kind == "linear":
        return fields
    original = given.get("original_max_position_embeddings") or config["max_position_embeddings"]
    fields["original_length"] = original
    if kind == "yarn":
        return {**fields, "fast": given.get("beta_fast") or 32.0, "slow": given.get("beta_slow") or 1.0}
    return {**fields, "low": given["low_freq_factor"], "high": given["high_freq_factor"]}


def t5(config: Config) -> Fields:
    """Of T5; 1.1 has an untied head, and then does not scale what it sees."""
    gate, _, name = config.get("feed_forward_proj", "relu").rpartition("-")
    name = "gelu_new" if (gate, name) == ("gated", "gelu") else name
    tied = config.get("tie_word_embeddings", True)
    return {
        "vocab_size": config["vocab_size"],
        "width": config["d_model"],
        "encoder_depth": config["num_layers"],
        "decoder_depth": config.get("num_decoder_layers") or config["num_layers"],
        "num_heads": config["num_heads"],
        "head_dim": config["d_kv"],
        "mlp_dim": config["d_ff"],
        "activation": activation(name, gated=gate == "gated"),
        "norm": "rms",
        "norm_epsilon": config["layer_norm_epsilon"],
        "norm_position": "pre",
        "use_bias": False,
        "positions": "relative",
        "attention_scale": 1.0,
        "tied": tied,
        "scaled_embedding": False,
        "scaled_logits": tied and config.get("scale_decoder_outputs", True),
        "dropout": config["dropout_rate"],
        "mlp_dropout": config["dropout_rate"],
        "attention_dropout": config["dropout_rate"],
    }


# model_type: the tensors' names, our model, its fields, and what else of a config has one value alone here.
FAMILIES: dict[str, tuple[Family, str, Callable[[Config], Fields], Config]] = {
    "bert": (BERT, "bert", bert, {"position_embedding_type": "absolute", "is_decoder": False}),
    "roberta": (ROBERTA, "bert", bert, {"position_embedding_type": "absolute", "is_decoder": False}),
    "distilbert": (DISTILBERT, "bert", distilbert, {}),
    "gpt2": (
        GPT2,
        "gpt",
        gpt2,
        {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    ),
    "llama": (LLAMA, "gpt", llama, {}),
    "qwen2": (LLAMA, "gpt", llama, {"use_sliding_window": False}),
    "qwen3": (LLAMA, "gpt", llama, {"use_sliding_window": False}),
    "t5": (
        T5,
        "seq2seq",
        t5,
        {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    ),
}
