"""Model soups: means by NumPy, greedy choices by hand, and what cannot be averaged."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers.text_runs import config_of, train_run, with_random_parameters, write_texts

from jaxformer import cli
from jaxformer.errors import UserError
from jaxformer.inference import soup
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.soup import make_soup, mean


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("soup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
        write_texts(root / "data")
        yield root


@pytest.fixture(scope="module")
def runs(root):
    """A run with random parameters, and one that was trained."""
    return [
        with_random_parameters(config_of("classes", root / "data"), root / "random"),
        train_run("classes", root / "data", root / "trained"),
    ]


def parameters(folder):
    return jax.device_get(LoadedRun(folder).variables)


def test_a_soup_is_the_mean_and_a_run(runs, tmp_path, capsys):
    argv = ["weights", "soup", *map(str, runs), "--workdir", str(tmp_path / "soup")]
    assert cli.main(argv) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [line.split(" at step ")[0] for line in said["ingredients"]] == [str(run) for run in runs]
    expected = jax.tree.map(
        lambda a, b: (a.astype(np.float64) + b) / 2, *(parameters(folder) for folder in runs)
    )
    found = parameters(tmp_path / "soup")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found, expected)
    assert cli.main(["evaluate", str(tmp_path / "soup")]) == 0
    assert cli.main(["predict", str(tmp_path / "soup"), "--text", "the cat"]) == 0


def test_a_soup_of_one_twice_is_the_identity(runs, tmp_path):
    make_soup([runs[1], runs[1]], tmp_path / "soup")
    jax.tree.map(np.testing.assert_array_equal, parameters(tmp_path / "soup"), parameters(runs[1]))


def test_the_last_checkpoints_of_one_run(runs, tmp_path):
    steps = sorted(int(path.name) for path in (runs[1] / "checkpoints").iterdir() if path.name.isdecimal())
    assert len(steps) >= 1
    with pytest.raises(UserError, match="has fewer than 9 checkpoints"):
        make_soup([runs[1]], tmp_path / "soup", last=9)
    made = make_soup(runs, tmp_path / "soup", last=1)
    assert made["ingredients"][1] == f"{runs[1]} at step {steps[-1]}"


def test_greedy_keeps_what_does_no_harm(runs, tmp_path, monkeypatch):
    """The metric of a mean is given by hand: 3 of the first alone, 2 and 1 of the others, less with the second."""
    third = shutil.copytree(runs[0], tmp_path / "third")
    values = {(0,): 1.0, (1,): 3.0, (2,): 2.0, (1, 2): 2.5, (1, 0): 3.0}
    folders = [runs[0], runs[1], third]
    asked, real = [], soup.mean

    def remembered(trees):
        asked.append(tuple(next(n for n, own in enumerate(trees_of) if own is tree) for tree in trees))
        return real(trees)

    trees_of: list = []
    made = soup.Ingredient
    monkeypatch.setattr(soup, "Ingredient", lambda *fields: (trees_of.append(fields[2]), made(*fields))[1])
    monkeypatch.setattr(soup, "mean", remembered)
    scored = type("Scored", (), {"ranked": property(lambda _: {"accuracy": values[asked[-1]]})})
    monkeypatch.setattr(LoadedRun, "evaluate", lambda *_, **__: scored())
    said = make_soup(folders, tmp_path / "soup", greedy=True)
    assert [line.split(" at step ")[0] for line in said["ingredients"]] == [str(runs[1]), str(runs[0])]
    assert (said["best"], said["soup"]) == (3.0, 3.0)


def test_a_greedy_soup_is_measured(runs, tmp_path):
    said = make_soup(runs, tmp_path / "soup", greedy=True)
    assert said["soup"] >= said["best"]
    found = LoadedRun(tmp_path / "soup").evaluate().metrics[said["metric"]]
    assert found == pytest.approx(said["soup"])


def test_integers_are_not_averaged():
    trees = [{"count": np.int32(3), "w": np.float32(1)}, {"count": np.int32(5), "w": np.float32(2)}]
    assert mean(trees) == {"count": 3, "w": 1.5}


def test_what_is_no_soup_is_said(runs, root, tmp_path):
    wider = config_of("classes", root / "data")
    wider["model"]["width"] = 24
    other = with_random_parameters(wider, tmp_path / "wider")
    with pytest.raises(UserError, match=r"model\.width 16 and 24"):
        make_soup([runs[0], other], tmp_path / "soup")
    with pytest.raises(UserError, match="a mean of two checkpoints or more"):
        make_soup(runs[:1], tmp_path / "soup")
    with pytest.raises(UserError, match="is not empty"):
        make_soup(runs, runs[0])
    assert not (tmp_path / "soup").exists()
