"""Low-rank changes are opened by peft beside the model that they are of, and compute what the run does."""

import json

import jax
import numpy as np
import pytest
from helpers.text_runs import config_of, write_texts

import jaxformer as jf
from jaxformer import cli
from jaxformer.config.schema import build
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment
from jaxformer.models import CONTRACT, MODELS
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
