"""Every preset of a model of text has the published number of parameters (shapes alone are computed)."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxformer.config.schema import load, resolve
from jaxformer.models import MODELS
from jaxformer.models.presets import PRESETS, preset
from jaxformer.weights.transformers_config import model_of

# Of published checkpoints: the sum of their tensors' sizes, tied ones counted once. Encoders without a head, but with
# the pooler where they have one.
EXACT = {
    # google-research/bert (README), 4.4M to 41.4M
    "bert-tiny": 4_385_920,
    "bert-mini": 11_170_560,
    "bert-small": 28_763_648,
    "bert-medium": 41_373_184,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "minilm-l6": 22_713_216,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "distilbert-base": 66_362_880,
    "modernbert-base": 149_014_272,
    "modernbert-large": 394_781_696,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
}
# As papers round them: Brown et al. 2020, table 2.1; Vaswani et al. 2017, table 3 (whose vocabulary is "about 37000").
ROUGHLY = {
    "gpt3-125m": 125e6,
    "gpt3-350m": 350e6,
    "gpt3-760m": 760e6,
    "gpt3-1.3b": 1.3e9,
    "gpt3-2.7b": 2.7e9,
    "gpt3-6.7b": 6.7e9,
    "gpt3-13b": 13e9,
    "gpt3-175b": 175e9,
    "transformer-base": 65e6,
    "transformer-big": 213e6,
}
# transformers' class, and the arguments of its config that are not its defaults.
BERT = {"vocab_size": 30522}
THEIRS = {
    "bert-tiny": (
        "Bert", "Model",
        {**BERT, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    ),
    "bert-base": ("Bert", "Model", {}),
    "bert-large": (
        "Bert", "Model",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "minilm-l6": (
        "Bert", "Model",
        {**BERT, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "roberta-base": (
        "Roberta", "Model", {"max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": 50265},
    ),
    "distilbert-base": ("DistilBert", "Model", {}),
    "modernbert-base": ("ModernBert", "Model", {}),
    "modernbert-large": (
        "ModernBert", "Model",
        {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624},
    ),
    "gpt2": ("GPT2", "LMHeadModel", {}),
    "gpt2-medium": ("GPT2", "LMHeadModel", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "gpt2-large": ("GPT2", "LMHeadModel", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "gpt2-xl": ("GPT2", "LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "llama-2-7b": ("Llama", "ForCausalLM", {}),
    "llama-3-8b": (
        "Llama", "ForCausalLM", {"vocab_size": 128256, "num_key_value_heads": 8, "intermediate_size": 14336},
    ),
    "llama-3.2-1b": (
        "Llama", "ForCausalLM",
        {
            "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 16, "num_key_value_heads": 8,
            "intermediate_size": 8192, "head_dim": 64, "tie_word_embeddings": True,
        },
    ),
    "qwen2.5-0.5b": (
        "Qwen2", "ForCausalLM",
        {
            "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        "Qwen3", "ForCausalLM",
        {
            "vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "intermediate_size": 3072, "head_dim": 128, "tie_word_embeddings": True,
        },
    ),
    "t5-small": ("T5", "ForConditionalGeneration", {}),
    "t5-base": (
        "T5", "ForConditionalGeneration", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    ),
    "t5-large": (
        "T5", "ForConditionalGeneration", {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
    ),
    "t5-v1.1-small": (
        "T5", "ForConditionalGeneration",
        {"d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"},
    ),
}  # fmt: skip


def built(name, **overrides):
    """The model, as a config would build it; encoders without a head."""
    fields = preset(name, **overrides)
    if fields["name"] == "bert":
        fields |= {"head": "none", **({"pooler": "none"} if name.startswith("distil") else {})}
    errors = []
    model = resolve(load(MODELS[fields.pop("name")]), fields, "model", errors)
    assert not errors, errors
    return model


def count_parameters(name, **overrides):
    model = built(name, **overrides)
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    inputs = (tokens, tokens) if PRESETS[name]["name"] == "seq2seq" else (tokens,)
    params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_no_preset_is_left_out():
    of_text = {name for name, fields in PRESETS.items() if fields["name"] in ("gpt", "bert", "seq2seq")}
    assert of_text == set(EXACT) | set(ROUGHLY)


@pytest.mark.parametrize("name", EXACT)
def test_number_of_parameters(name):
    alike = PRESETS[name].get("first_norm", True)  # blocks that can be scanned over: traced once
    assert count_parameters(name, **({"scan": True} if alike else {})) == EXACT[name]


@pytest.mark.parametrize("name", ROUGHLY)
def test_number_of_parameters_is_about_that_of_the_paper(name):
    assert count_parameters(name, scan=True) == pytest.approx(ROUGHLY[name], rel=0.03)


@pytest.mark.parametrize("name", THEIRS)
def test_transformers_has_as_many(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, kind, fields = THEIRS[name]
    with torch.device("meta"):
        model = getattr(transformers, family + kind)(getattr(transformers, f"{family}Config")(**fields))
    count = sum(parameter.numel() for parameter in model.parameters())
    # T5 1.1 has a head of its own, which version 5 ties until it reads a checkpoint that has one.
    untied = 32128 * 512 if name == "t5-v1.1-small" else 0
    assert count + untied == EXACT[name]


@pytest.mark.parametrize("name", ["bert-base", "distilbert-base", "modernbert-base", "gpt2", "t5-small"])
def test_fields_are_those_of_transformers_defaults(name):
    """What the number of parameters does not tell: activations, epsilons, positions."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = model_of(getattr(transformers, f"{THEIRS[name][0]}Config")().to_dict())[1]
    dropout = {field: value for field, value in theirs.items() if "dropout" in field}
    errors = []
    model = resolve(load(MODELS[PRESETS[name]["name"]]), theirs, "model", errors)
    ours = built(name, **dropout)
    assert not errors
    for field in theirs:
        mine, other = getattr(ours, field), getattr(model, field)
        assert mine == other or (field == "mlp_dim" and {mine, other} == {None, 4 * ours.width}), field


@pytest.mark.parametrize("name", ["gpt2", "bert-tiny", "t5-small"])
def test_unrolled_layers_have_the_same_number(name):
    assert count_parameters(name) == EXACT[name]


def test_local_layers_alternate_with_dense_ones_as_in_gpt_3():
    assert built("gpt3-125m").windows() == [None]
    assert built("gpt3-125m", window=256, window_every=2).windows() == [None, 256]
