"""How many steps a kill repeats at most, whenever it comes: those taken since the newest checkpoint that is whole."""

import time

import pytest

import jaxformer as jf
from jaxformer import checkpoint_items
from jaxformer.launching.attempts import newest_checkpoint
from jaxformer.train import Loop

EVERY, STEPS = 2, 9
TINY = {
    "train.total": f"{STEPS} steps", "eval.every": "5 steps", "eval.split": "test[:32]", "data.batch_size": 16,
    "data.train_split": "train[:96]", "schedule.warmup": "2 steps", "model.width": 16, "model.depth": 1,
    "model.num_heads": 1, "model.mlp_dim": 16,
}  # fmt: skip


@pytest.mark.parametrize("background", [True, False])
def test_a_kill_at_any_moment_repeats_one_interval_or_two_in_the_background(
    background, digits_dir, tmp_path, monkeypatch
):
    """Saves take longer than the steps between two of them. The bounds are looked at where they are reached: after each
    step, and just before a checkpoint is whole; evaluations, and saves of the best, come in between."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    for name in ("write_shown", "write_report"):
        monkeypatch.setattr(f"jaxformer.reporting.{name}", lambda *_: None)
    steps, repeated = [0], []

    def look():
        repeated.append(steps[-1] - newest_checkpoint(tmp_path / "run"))

    def after_a_step(loop):
        steps.append(loop.step)
        look()
        return is_due(loop)

    def before_it_is_whole(folder):
        time.sleep(0.3)
        look()
        write_digests(folder)

    is_due, write_digests = Loop.save_is_due, checkpoint_items.write_digests
    monkeypatch.setattr(Loop, "save_is_due", after_a_step)
    monkeypatch.setattr(checkpoint_items, "write_digests", before_it_is_whole)
    overrides = {**TINY, "checkpoint.every": f"{EVERY} steps", "checkpoint.background": background}
    jf.train(jf.experiment("configs/vit_digits.py", overrides), tmp_path / "run")
    assert steps[-1] == STEPS - 1  # the last one is saved without asking
    assert max(repeated) == (2 * EVERY if background else EVERY)
