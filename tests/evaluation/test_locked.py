"""What a locked image tower gives is computed once: training learns the same, and does not run the tower again."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from helpers.scenes import images_config, write_scenes

from jaxformer.config.sections import resolve
from jaxformer.data.transforms import Flip
from jaxformer.errors import ConfigError
from jaxformer.evaluation import features, locked
from jaxformer.experiment import Experiment
from jaxformer.train import train

TOWER = {
    "name": "vit",
    "image_size": 32,
    "patch_size": 16,
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "num_classes": 0,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = write_scenes(tmp_path_factory.mktemp("datasets"))
    made = images_config("contrastive", folder)
    made["model"]["image"] = TOWER
    made["optimizer"]["freeze"] = ["image/.*"]
    made["train"] |= {"total": "3 steps", "cached_images": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield resolve(made)


def test_training_learns_what_it_learns_without(config, tmp_path, monkeypatch):
    made, kept = [], features.kept
    monkeypatch.setattr(locked, "kept", lambda *given: made.append(kept(*given)) or made[-1])
    found = train(Experiment(config), tmp_path / "cached")["final"]
    assert [len(rows) for rows, _ in made] == [24, 8]  # a row for each picture, in batches of 8
    plain = replace(config, train=replace(config.train, cached_images=False))
    whole = train(Experiment(plain), tmp_path / "whole")["final"]
    assert len(made) == 2
    assert found == pytest.approx(whole, rel=1e-4)


def test_the_tower_is_in_no_step(config):
    experiment = Experiment(config)
    variables = experiment.init_state().variables()
    batch = locked.with_image_features(experiment, variables).train_data[0]
    image = experiment.task.normalised(batch)["image"]
    seen = experiment.model.apply(variables, image, method="seen")
    np.testing.assert_allclose(batch["image_features"], seen, rtol=1e-5, atol=1e-6)
    broken = jax.tree.map(lambda x: x * np.nan, variables["params"]["image"])
    given = {"params": {**variables["params"], "image": broken}}, experiment.task.inputs(batch)
    assert np.isfinite(experiment.model.apply(given[0], **given[1]).image).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": {"freeze": ()}}, "is trained"),
        ({"data": {"eval_transforms": (Flip(),)}}, "at random"),
    ],
)
def test_what_does_not_stay_the_same_is_refused(config, change, said):
    changed = {section: replace(getattr(config, section), **fields) for section, fields in change.items()}
    with pytest.raises(ConfigError, match=said):
        locked.check_locked(Experiment(replace(config, **changed)))
