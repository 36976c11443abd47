"""Prompts: learned vectors in front of the embedded tokens, as Hugging Face's peft has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.parity import build, text
from helpers.text_runs import config_of, write_texts
from test_adapters import fitted, variables_of

from jaxformer.config.sections import resolve
from jaxformer.debugging.tiny import PROMPT, tiny
from jaxformer.errors import ConfigError
from jaxformer.experiment import Experiment
from jaxformer.models.outputs import mean_of_tokens
from jaxformer.optim.adapters import Prompt
from jaxformer.paths import ADAPTERS, matches
from jaxformer.weights.transformers_text import BERT, GPT2, T5

SIZES = {"vocab_size": 41, "width": 24, "num_heads": 4}
N = 5
OURS = {
    "gpt2": ("gpt", {"depth": 2, "context_length": 32}, GPT2),
    "bert": ("bert", {"depth": 2, "max_positions": 32, "head": "none", "pooler": "none"}, BERT),
    "t5": (
        "seq2seq",
        {
            **{
                "encoder_depth": 2,
                "decoder_depth": 2,
                "norm": "rms",
                "use_bias": False,
                "activation": "relu",
            },
            **{"norm_position": "pre", "positions": "relative", "attention_scale": 1.0, "mlp_dim": 32},
            **{"scaled_embedding": False, "scaled_logits": True, "head_dim": 6},
        },
        T5,
    ),
}


def theirs_of(transformers, name):
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=41, n_embd=24, n_layer=2, n_head=4, n_positions=32)
        return transformers.GPT2LMHeadModel(config), "CAUSAL_LM"
    if name == "bert":
        sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
        config = transformers.BertConfig(vocab_size=41, max_position_embeddings=32, **sizes)
        return transformers.BertModel(config, add_pooling_layer=False), "FEATURE_EXTRACTION"
    sizes = {"d_model": 24, "num_layers": 2, "num_heads": 4, "d_kv": 6, "d_ff": 32}
    config = transformers.T5Config(vocab_size=41, decoder_start_token_id=0, **sizes)
    return transformers.T5ForConditionalGeneration(config), "SEQ_2_SEQ_LM"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", OURS)
def test_prompts_are_those_of_peft(name):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    family, fields, names = OURS[name]
    base, kind = theirs_of(transformers, name)
    tensors = {name: tensor.numpy() for name, tensor in base.state_dict().items()}
    theirs = peft.get_peft_model(base, peft.PromptTuningConfig(task_type=kind, num_virtual_tokens=N)).eval()
    model = fitted(Prompt(length=N), build(family, {**SIZES, **fields}))
    tokens, mask = text(2, 9, 41, (9, 6))
    inputs = {"tokens": jnp.asarray(tokens), "token_mask": jnp.asarray(mask)}
    if name == "t5":
        inputs["decoder_tokens"] = jnp.asarray(tokens[:, :4])
    flat = flatten_dict(variables_of(model, **inputs), sep="/")
    shapes = {path: leaf for path, leaf in flat.items() if not matches(ADAPTERS, path)}
    (added,) = flat.keys() - shapes.keys()
    assert added == "params/prompt_tokens"
    read = flatten_dict(names.read(tensors, unflatten_dict(shapes, sep="/")), sep="/")
    ours = jax.jit(model.apply)(unflatten_dict({**flat, **read}, sep="/"), **inputs)
    with torch.no_grad():
        table = theirs.prompt_encoder[
            "default"
        ].embedding.weight  # of T5 with rows for a decoder, which has none
        table[:N].copy_(torch.tensor(np.array(flat[added][0])))
        given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask).long()}
        if name == "t5":
            found = theirs(**given, decoder_input_ids=torch.tensor(tokens[:, :4])).logits.numpy()
            np.testing.assert_allclose(ours.logits, found, rtol=1e-4, atol=1e-4)
            return
        found = theirs(**given)
        found = (found.logits if name == "gpt2" else found.last_hidden_state).numpy()[:, N:]
    np.testing.assert_allclose(np.asarray(ours.logits)[mask], found[mask], rtol=1e-4, atol=1e-4)


DECODERS = {
    "learned": {},
    "rotary, windows": {"positions": "rotary", "window": 4, "window_every": 2},
    "relative, all windows": {"positions": "relative", "window": 6},
}


@pytest.mark.parametrize("name", DECODERS)
def test_texts_behind_a_prompt_are_packed_padded_and_written_as_they_stand_alone(name):
    fields = {**SIZES, "depth": 2, "context_length": 32, **DECODERS[name]}
    model = fitted(Prompt(length=N), build("gpt", fields))
    tokens = jnp.asarray(text(2, 12, 41, (12, 12))[0])
    variables = variables_of(model, tokens=tokens)
    apply = jax.jit(model.apply)
    whole = apply(variables, tokens).logits
    close = {"rtol": 1e-4, "atol": 1e-4}

    # Two documents and padding in a row: the second one is what begins another row.
    row = jnp.concatenate([tokens[:1, :5], tokens[1:, :4], jnp.zeros((1, 3), tokens.dtype)], axis=1)
    segments = jnp.asarray([[1] * 5 + [2] * 4 + [0] * 3])
    positions = jnp.asarray([[*range(5), *range(4), 0, 0, 0]], jnp.int32)
    packed = apply(variables, row, segment_ids=segments, positions=positions).logits
    np.testing.assert_allclose(packed[0, :5], whole[0, :5], **close)
    np.testing.assert_allclose(packed[0, 5:9], whole[1, :4], **close)

    # Padding in front, and a cache that is given 4 tokens at a time.
    mask = jnp.asarray(np.arange(12)[None] >= np.array([[0], [3]]))
    moved = jnp.stack([tokens[0], jnp.roll(tokens[1], 3)])
    np.testing.assert_allclose(apply(variables, moved, mask).logits[1, 3:], whole[1, :9], **close)
    step = jax.jit(lambda cache, tokens, mask: model.apply(variables, tokens, mask, cache=cache))
    cache, found = model.start(2, 12), []
    for first in range(0, 12, 4):
        outputs = step(cache, moved[:, first : first + 4], mask[:, first : first + 4])
        cache = outputs.cache
        found.append(outputs.logits)
    written = jnp.concatenate(found, axis=1)
    np.testing.assert_allclose(written[0], whole[0], **close)
    np.testing.assert_allclose(written[1, 3:], whole[1, :9], **close)


def test_what_heads_see_is_of_the_tokens_alone():
    tokens, mask = text(2, 9, 41, (9, 6))
    inputs = {"tokens": jnp.asarray(tokens), "token_mask": jnp.asarray(mask)}
    fields = {**SIZES, "depth": 1, "max_positions": 32, "num_classes": 3, "pooler": "mean"}
    model = fitted(Prompt(length=N), build("bert", {**fields, "head": "token"}))
    variables = variables_of(model, **inputs)
    outputs = jax.jit(model.apply)(variables, **inputs)
    assert outputs.logits.shape == (2, 9, 3)
    assert outputs.tokens.shape == (2, 9, 24)
    np.testing.assert_allclose(outputs.features, mean_of_tokens(outputs.tokens, mask), rtol=1e-6)
    short = jax.jit(model.apply)(variables, tokens=inputs["tokens"][1:, :6])
    np.testing.assert_allclose(outputs.features[1], short.features[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"model\.prompt: texts that share a row would see each other"):
        jax.eval_shape(model.apply, variables, **inputs, segment_ids=inputs["token_mask"].astype(int))


def test_a_prompt_of_a_vit_is_registers():
    sizes = {"image_size": 8, "patch_size": 4, "width": 8, "depth": 2, "num_heads": 2, "num_classes": 3}
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    registers, model = build("vit", {**sizes, "registers": 3}), build("vit", {**sizes, "prompt": 3})
    flat = flatten_dict(variables_of(registers, image=image), sep="/")
    same = {path.replace("register_tokens", "prompt_tokens"): leaf for path, leaf in flat.items()}
    expected = registers.apply(unflatten_dict(flat, sep="/"), image)
    found = model.apply(unflatten_dict(same, sep="/"), image)
    np.testing.assert_array_equal(found.logits, expected.logits)
    assert model.tokens_before_grid == registers.tokens_before_grid == 4


def test_a_prompt_begins_as_rows_of_the_token_table():
    table = jnp.arange(12.0).reshape(6, 2)
    params = {"text": {"token_embedding": {"embedding": table}, "prompt_tokens": jnp.zeros((1, 4, 2))}}
    image = {"prompt_tokens": jnp.ones((1, 4, 2))}
    added = Prompt(length=4).added({**params, "image": image}, jax.random.key(0))
    rows = np.asarray(added["text"]["prompt_tokens"][0])
    assert all(row.tolist() in table.tolist() for row in rows)
    assert len({tuple(row) for row in rows}) > 1
    np.testing.assert_array_equal(added["image"]["prompt_tokens"], image["prompt_tokens"])


def test_a_prompt_takes_the_room_of_tokens(tmp_path):
    write_texts(tmp_path)
    config = {**config_of("classes", tmp_path), "adapter": {"name": "prompt", "length": 8}}
    longest = resolve(config).model.max_positions
    config["data"]["examples"] |= {"length": longest}
    with pytest.raises(ConfigError) as caught:
        Experiment(resolve(config)).check()
    (line,) = caught.value.lines
    assert line == (
        f"data.examples.length={longest}: the model takes {longest - 8} tokens behind its prompt of 8; "
        "make one fit the other, or make the prompt shorter (adapter.length or model.prompt)"
    )
    config["data"]["examples"] |= {"length": longest - 8}
    small = tiny(resolve(config))
    assert small.model.prompt == small.adapter.length == PROMPT
    Experiment(small).check()
