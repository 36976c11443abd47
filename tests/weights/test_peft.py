"""What adapters have learnt is opened by peft beside the model that it is of, and computes what the run does."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers.text_runs import config_of, write_texts

import jaxformer as jf
from jaxformer import cli
from jaxformer.config.schema import build
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.inference.peft import write_adapter
from jaxformer.models import CONTRACT, MODELS
from jaxformer.models.base import replaced
from jaxformer.optim import OPTIMIZERS
from jaxformer.optim.adapters import Prefix, Prompt
from jaxformer.optim.lora import LoRA, beside_kernels
from jaxformer.paths import ADAPTERS, matches
from jaxformer.train import train
from jaxformer.weights.export import write_pretrained

SOURCE = {
    "name": "bert", "vocab_size": 60, "width": 16, "num_heads": 2, "mlp_dim": 32, "max_positions": 32, "depth": 2,
    "head": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    write_texts(folder / "data")
    model = build(MODELS, SOURCE, "model", CONTRACT)
    write_pretrained(model, "bert", jf.init(model, seed=5, tokens=(1, 4)), folder / "source")
    return folder


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft asks transformers for it
@pytest.mark.parametrize("name", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_peft_opens_what_was_trained(name, there, tmp_path, monkeypatch, capsys):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    import torch

    for each in ("write_shown", "write_report"):
        monkeypatch.setattr(f"jaxformer.reporting.{each}", lambda *_: None)
    config = config_of("classes", there / "data")
    config["model"] = {"pretrained": str(there / "source"), "head": "sequence", "scan": name == "lora"}
    config["adapter"] = {
        "name": name,
        "kernels": ["attention/(query|out)", "mlp/up"],
        "rank": 2,
        "alpha": 3.0,
    }
    config["optimizer"] |= {"learning_rate": 0.1, "train_only": ["head", "pooler"]}
    train(Experiment(resolve(config)), tmp_path / "run")
    assert cli.main(["weights", "export", str(tmp_path / "run"), str(tmp_path / "out"), "--adapter"]) == 0
    base = transformers.AutoModelForSequenceClassification.from_pretrained(there / "source", num_labels=3)
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    run = jf.load_run(tmp_path / "run")
    tokens = np.random.default_rng(0).integers(5, 40, (3, 8))
    ours = jax.jit(run.model.apply)(run.variables, tokens=tokens, token_mask=np.ones_like(tokens, bool))
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens)).logits.numpy()
        before = theirs.base_model.model.bert(input_ids=torch.from_numpy(tokens)).pooler_output
        with theirs.disable_adapter():
            moved = theirs.base_model.model.bert(input_ids=torch.from_numpy(tokens)).pooler_output - before
    np.testing.assert_allclose(ours.logits, expected, atol=1e-5)
    assert float(moved.abs().max()) > 1e-2
    described = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(there / "source")
    assert cli.main(["weights", "export", str(tmp_path / "run"), str(tmp_path / "out"), "--adapter"]) == 2
    assert "is there already" in capsys.readouterr().err


SIZES = {"vocab_size": 60, "width": 16, "num_heads": 2, "mlp_dim": 32}
DECODER = {"name": "gpt", **SIZES, "depth": 2, "context_length": 32}
LLAMA = {
    **DECODER, "positions": "rotary", "norm": "rms", "use_bias": False, "activation": "swiglu", "tied": False,
    "num_kv_heads": 1, "head_dim": 10,
}  # fmt: skip
T5 = {
    "name": "seq2seq", **SIZES, "encoder_depth": 1, "decoder_depth": 1, "norm": "rms", "use_bias": False,
    "norm_position": "pre", "positions": "relative", "attention_scale": 1.0, "scaled_embedding": False,
    "scaled_logits": True, "dropout": 0.0,
}  # fmt: skip
ADAPTED = {
    "a prompt of GPT-2": (DECODER, Prompt(length=4), "CausalLM"),
    "a prompt of tags": ({**SOURCE, "head": "token", "num_classes": 3}, Prompt(length=4), "TokenClassification"),
    "a prompt of answers": ({**SOURCE, "head": "span"}, Prompt(length=4), "QuestionAnswering"),
    "a prompt of T5": (T5, Prompt(length=4), "Seq2SeqLM"),
    "prefixes of Llama": (LLAMA, Prefix(length=4), "CausalLM"),
    "LoRA of GPT-2": (DECODER, LoRA(kernels=("mlp/(up|down)",), rank=2), "CausalLM"),
}  # fmt: skip
REFUSED = {
    "lets heads over texts read the first": (
        {**SOURCE, "head": "sequence", "num_classes": 3},
        Prompt(length=4),
    ),
    "has no task for such a model": ({**SOURCE, "head": "mlm"}, Prompt(length=4)),
    "moves the tokens behind a prefix": (DECODER, Prefix(length=4)),
    "has prefixes of decoders alone": (SOURCE, Prefix(length=4)),
}


def exported(fields, adapter, folder):
    """A model whose adapter and head have moved, its parameters, the folder of its source and peft's."""
    bare = build(MODELS, fields, "model", CONTRACT)
    model, inputs = replaced(bare, **adapter.of_model), {"tokens": np.zeros((1, 2), int)}
    inputs |= {"decoder_tokens": inputs["tokens"]} if fields["name"] == "seq2seq" else {}
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), **inputs)["params"], sep="/")
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32) for path, leaf in shapes.items()}
    plain = {path: x for path, x in flat.items() if not matches(ADAPTERS, path)}
    source = {"params": unflatten_dict(plain, sep="/")}
    write_pretrained(bare, fields["name"], source, folder / "source")
    params = unflatten_dict({path: x + path.startswith("head/") for path, x in flat.items()}, sep="/")
    given = {"name": "adamw", "learning_rate": 1e-3}
    optimizer = build(OPTIMIZERS, given, "optimizer")
    trained = adapter.trained(optimizer, model.heads)
    optimizer = build(OPTIMIZERS, {**given, "train_only": list(trained)}, "optimizer")
    thin = {}
    if isinstance(adapter, LoRA):
        begun = flatten_dict(adapter.added(params, jax.random.key(0)), sep="/")
        state = unflatten_dict(
            {path: x + 0.1 * path.endswith("_lora_b") for path, x in begun.items()}, sep="/"
        )
        thin, params = beside_kernels(state), adapter.merged(state)
    beside = (adapter, optimizer, str(folder / "source"), folder / "out")
    write_adapter(model, fields["name"], params, thin, *beside)
    return model, params


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", ADAPTED)
def test_peft_opens_adapters_of_other_models(name, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    import torch

    fields, adapter, end = ADAPTED[name]
    model, params = exported(fields, adapter, tmp_path)
    base = getattr(transformers, f"AutoModelFor{end}").from_pretrained(tmp_path / "source")
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    tokens = np.random.default_rng(1).integers(3, 60, (2, 6))
    targets = tokens[:, :3] if end == "Seq2SeqLM" else None
    ours = {"tokens": tokens} | ({} if targets is None else {"decoder_tokens": targets})
    found = jax.jit(model.apply)({"params": params}, **ours).logits
    with torch.no_grad():
        given = {} if targets is None else {"decoder_input_ids": torch.from_numpy(targets)}
        outputs = theirs(input_ids=torch.from_numpy(tokens), **given)
    if end == "QuestionAnswering":
        expected = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
    else:
        expected = outputs.logits
    np.testing.assert_allclose(found, expected.numpy()[:, -found.shape[1] :], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("line", REFUSED)
def test_what_peft_computes_otherwise_is_refused(line, tmp_path):
    with pytest.raises(UserError, match=f"peft {line}.*; keep the run"):
        exported(*REFUSED[line], tmp_path)
    assert not (tmp_path / "out").exists()
