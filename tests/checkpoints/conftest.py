"""Checkpoints in one folder."""

import contextlib

import pytest

from jaxformer.checkpoints import Checkpoints
from jaxformer.config.checkpoints import CheckpointConfig


@pytest.fixture
def opened(tmp_path):
    """Makes Checkpoints in one folder, as a run that is started again and again does."""
    with contextlib.ExitStack() as stack:

        def make(keep=2, keep_best=1, monitor="accuracy", **options):
            config = CheckpointConfig(keep=keep, keep_best=keep_best)
            return stack.enter_context(Checkpoints(tmp_path / "checkpoints", config, monitor, **options))

        yield make
