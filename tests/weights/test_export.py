"""What is exported is opened by transformers with nothing missing, computes the same, and comes back bit for bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.parity import text
from helpers.text_runs import LABELS, SENTENCE, random_run, write_texts

import jaxformer as jf
from jaxformer import cli
from jaxformer.config.schema import build
from jaxformer.errors import UserError
from jaxformer.models import CONTRACT, MODELS
from jaxformer.models.layouts import unrolled
from jaxformer.weights.export import write_pretrained

SMALL = {"vocab_size": 41, "width": 24, "num_heads": 4}
BERT = {"name": "bert", **SMALL, "depth": 2, "mlp_dim": 20, "max_positions": 32, "dropout": 0.2}
GPT = {"name": "gpt", **SMALL, "depth": 2, "context_length": 32}
LLAMA = {
    **GPT,
    "positions": "rotary",
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "activation": "swiglu",
    "mlp_dim": 20,
}
T5 = {
    "name": "seq2seq", "vocab_size": 41, "width": 24, "num_heads": 4, "head_dim": 8, "encoder_depth": 2,
    "decoder_depth": 1, "mlp_dim": 20, "norm": "rms", "norm_position": "pre", "use_bias": False,
    "positions": "relative", "attention_scale": 1.0, "scaled_embedding": False, "dropout": 0.1,
    "attention_dropout": 0.1, "mlp_dropout": 0.1,
}  # fmt: skip
MODERN = {
    **BERT, "depth": 4, "positions": "rotary", "rotary": {"base": 900.0}, "local_rotary": {"base": 50.0}, "window": 3,
    "window_every": 3, "token_types": 0, "norm_position": "pre", "first_norm": False, "use_bias": False,
    "head_layer": True, "activation": "geglu_erf", "norm_epsilon": 1e-5, "pooler": "none",
}  # fmt: skip
# Our model, transformers' class for it, and its kind there.
MODELS_OF_OURS = {
    "bert": ({**BERT, "head": "none"}, "BertModel"),
    "bert, masked": ({**BERT, "head": "mlm"}, "BertForMaskedLM"),
    "bert, texts": ({**BERT, "head": "sequence", "num_classes": 3}, "BertForSequenceClassification"),
    "bert, tokens": ({**BERT, "head": "token", "num_classes": 3}, "BertForTokenClassification"),
    "bert, answers": ({**BERT, "head": "span"}, "BertForQuestionAnswering"),
    "roberta": ({**BERT, "head": "none", "position_offset": 2, "token_types": 1}, "RobertaModel"),
    "roberta, masked": ({**BERT, "head": "mlm", "position_offset": 2, "token_types": 1}, "RobertaForMaskedLM"),
    "roberta, texts": (
        {**BERT, "head": "sequence", "num_classes": 3, "position_offset": 2, "token_types": 1},
        "RobertaForSequenceClassification",
    ),
    "distilbert, texts": (
        {**BERT, "head": "sequence", "num_classes": 3, "token_types": 0, "pooler": "relu"},
        "DistilBertForSequenceClassification",
    ),
    "modernbert": ({**MODERN, "head": "none"}, "ModernBertModel"),
    "modernbert, masked": ({**MODERN, "head": "mlm"}, "ModernBertForMaskedLM"),
    "modernbert, texts": (
        {**MODERN, "head": "sequence", "num_classes": 3, "pooler": "mean", "use_bias": True},
        "ModernBertForSequenceClassification",
    ),
    "modernbert, tokens": ({**MODERN, "head": "token", "num_classes": 3}, "ModernBertForTokenClassification"),
    "modernbert, all global": (
        {**MODERN, "head": "span", "window": None, "window_every": 1, "local_rotary": None},
        "ModernBertForQuestionAnswering",
    ),
    "gpt2": (GPT, "GPT2LMHeadModel"),
    "gpt2, untied, scanned": ({**GPT, "tied": False, "scan": True, "mlp_dim": 20}, "GPT2LMHeadModel"),
    "llama": ({**LLAMA, "use_bias": False, "tied": False, "num_kv_heads": 2}, "LlamaForCausalLM"),
    "qwen2": ({**LLAMA, "use_bias": False, "qkv_bias": True}, "Qwen2ForCausalLM"),
    "qwen3": ({**LLAMA, "use_bias": False, "qk_norm": True, "head_dim": 8}, "Qwen3ForCausalLM"),
    "llama, longer": (
        {**LLAMA, "use_bias": False,
         "rotary": {"scaling": "llama3", "factor": 8.0, "low": 1.0, "high": 4.0, "original_length": 16}},
        "LlamaForCausalLM",
    ),
    "t5": ({**T5, "activation": "relu", "scaled_logits": True}, "T5ForConditionalGeneration"),
    "t5 1.1": ({**T5, "activation": "geglu", "tied": False}, "T5ForConditionalGeneration"),
}  # fmt: skip


def ours(fields):
    """A model with random variables (no one and no zero hides a mistake), and inputs."""
    model = build(MODELS, fields, "model", CONTRACT)
    tokens, mask = text(2, 11, 41, (11, 7))
    inputs = {"tokens": jnp.asarray(np.where(mask, tokens, 0)), "token_mask": jnp.asarray(mask)}
    if model.kind == "encoder-decoder":
        inputs["decoder_tokens"] = jnp.asarray(tokens[:, :5])
    if model.kind == "decoder":
        inputs["token_mask"] = jnp.ones_like(inputs["token_mask"])
    variables = model.init(jax.random.key(0), **inputs)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    return model, jax.tree.unflatten(tree, moved), inputs


@pytest.mark.parametrize("name", MODELS_OF_OURS)
def test_transformers_computes_the_same_and_the_import_is_the_identity(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields, cls = MODELS_OF_OURS[name]
    model, variables, inputs = ours(fields)
    folder = tmp_path / "exported"
    write_pretrained(model, fields["name"], variables, folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == [cls]

    theirs, loading = getattr(transformers, cls).from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    arguments = {
        "input_ids": inputs["tokens"],
        "attention_mask": inputs["token_mask"].astype(jnp.int32),
        **({"decoder_input_ids": inputs["decoder_tokens"]} if "decoder_tokens" in inputs else {}),
    }
    with torch.no_grad():
        outputs = theirs.eval()(**{k: torch.tensor(np.asarray(v, np.int64)) for k, v in arguments.items()})
    outputs = outputs if hasattr(outputs, "start_logits") else outputs[0]
    if hasattr(outputs, "start_logits"):
        expected = np.stack([outputs.start_logits.numpy(), outputs.end_logits.numpy()], axis=-1)
    else:
        expected = outputs.numpy()
    found = np.asarray(jax.jit(model.apply)(variables, **inputs).logits)
    seen = np.asarray(inputs["token_mask"]) if found.shape[:2] == inputs["token_mask"].shape else slice(None)
    np.testing.assert_allclose(
        found[seen], expected[seen], rtol=1e-4, atol=3e-5 * np.abs(expected[seen]).max()
    )

    back = jf.load_pretrained(folder)
    _, expected = unrolled(model, variables)
    expected, found = flatten_dict(expected), flatten_dict(back.variables)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg="/".join(path))


REFUSED = {
    "layers all local": (
        {**MODERN, "head": "none", "window_every": 1},
        "model.window=3: transformers' modernbert",
    ),
    "window": ({**GPT, "window": 4}, "model.window=4: transformers' gpt2 has None"),
    "norm": ({**GPT, "norm": "rms"}, "model.norm='rms': transformers' gpt2 has 'layer'"),
    "activation": (
        {**BERT, "head": "none", "activation": "relu_squared", "norm_position": "pre"},
        "norm_position",
    ),
    "an image model": (
        {"name": "coatnet", "num_classes": 3},
        "model.name='coatnet'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_cannot_express_is_refused_by_name(name, tmp_path):
    fields, said = REFUSED[name]
    model = build(MODELS, fields, "model", CONTRACT)
    with pytest.raises(UserError) as caught:
        write_pretrained(model, fields["name"], {"params": {}}, tmp_path / "exported")
    assert said in "\n".join(caught.value.lines)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_whose_padding_would_move_the_positions_is_refused(tmp_path):
    """RoBERTa's positions begin behind the id of padding: 1, where the first token has position 2."""
    from jaxformer.data.text.tokenizers import Tokenizer

    write_texts(tmp_path / "data")
    run = random_run("classes", tmp_path / "data", tmp_path / "run")
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    assert tokenizer.pad_id == 0
    fields = {**BERT, "head": "none", "position_offset": 2, "token_types": 1}
    model, variables, _ = ours(fields)
    with pytest.raises(UserError, match=r"position_offset=2: .* this tokenizer's is 0"):
        write_pretrained(model, "bert", variables, tmp_path / "exported", tokenizer=tokenizer)
    assert not (tmp_path / "exported").exists()


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "exported").mkdir()
    model = build(MODELS, GPT, "model", CONTRACT)
    with pytest.raises(UserError, match="is there already"):
        write_pretrained(model, "gpt", {"params": {}}, tmp_path / "exported")


def test_a_source_is_named_in_every_refusal(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "mamba"}')
    for source, said in {
        "": "expected a folder",
        tmp_path / "nowhere": "no such folder",
        tmp_path / "empty": "holds no config.json",
        tmp_path / "other": "model_type='mamba'",
        "hf:../etc": "expected hf:OWNER/NAME",
        "hf:a/b/c": "expected hf:OWNER/NAME",
    }.items():
        with pytest.raises(UserError, match=said):
            jf.load_pretrained(source)


def test_fields_of_ours_take_the_place_of_its_own(tmp_path):
    model, variables, _ = ours(GPT)
    write_pretrained(model, "gpt", variables, tmp_path / "exported")
    found = jf.load_pretrained(tmp_path / "exported", dropout=0.3)
    assert (found.model.dropout, found.model.width) == (0.3, 24)
    with pytest.raises(UserError, match="token_embedding"):
        _ = jf.load_pretrained(tmp_path / "exported", width=12).variables


def test_a_runs_model_is_exported_with_its_tokenizer_and_a_card(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    write_texts(tmp_path / "data")
    run = random_run("classes", tmp_path / "data", tmp_path / "run")
    folder = tmp_path / "exported"
    assert cli.main(["weights", "export", str(run), str(folder), "--license=mit"]) == 0
    assert str(folder) in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert '"name": "text_classification"' in card
    assert str(tmp_path) not in card

    trained = jf.load_run(run)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert list(theirs.config.id2label.values()) == LABELS
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCE, return_tensors="pt")
    assert encoded["input_ids"][0].tolist() == trained.tokenizer.encode(SENTENCE)
    long = transformers.AutoTokenizer.from_pretrained(folder)(200 * SENTENCE, truncation=True)
    assert len(long["input_ids"]) == trained.model.max_positions
    tokens = np.asarray(encoded["input_ids"], np.int32)
    ours = trained.model.apply(trained.variables, tokens=tokens, deterministic=True).logits
    np.testing.assert_allclose(ours, theirs(**encoded).logits.detach(), rtol=1e-4, atol=1e-5)


def test_the_card_has_the_metrics_of_the_checkpoint_that_is_exported(tmp_path):
    write_texts(tmp_path / "data")
    run = random_run("classes", tmp_path / "data", tmp_path / "run")  # its checkpoint is of step 1
    rows = [{"step": step, "time": 0.0, "eval/accuracy": value} for step, value in ((1, 0.75), (2, 0.5))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["weights", "export", str(run), str(tmp_path / "exported")]) == 0
    assert "| accuracy | 0.75 |" in (tmp_path / "exported" / "README.md").read_text()


def test_whoever_may_read_the_config_may_read_the_weights(tmp_path):
    model, variables, _ = ours(GPT)
    write_pretrained(model, "gpt", variables, tmp_path / "exported")
    assert len({file.stat().st_mode for file in (tmp_path / "exported").iterdir()}) == 1
