"""Checkpoints across processes: killed while saving, and read with other devices."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxformer.checkpoints import Checkpoints

SAVE_FOR_EVER = """
    import sys, time
    import jax, jax.numpy as jnp
    from jaxformer import checkpoint_items as disk
    from jaxformer.checkpoints import CheckpointConfig, Checkpoints

    if sys.argv[2] == "held up":  # the third save never ends
        real = disk.write_digests
        disk.write_digests = lambda folder: time.sleep(600 * (folder.name[0] == "3")) or real(folder)
    checkpoints = Checkpoints(sys.argv[1], CheckpointConfig(keep=2))
    begin = checkpoints.latest_step() or 0
    for step in range(begin + 1, begin + 1000):
        checkpoints.save(step, {"params": {"w": jnp.full((50_000,), step, jnp.float32)}}, {})
        print(step, flush=True)
"""


@pytest.mark.parametrize("moment", ["held up", "0.05", "0.11"])
def test_killed_in_the_middle_of_a_save(tmp_path, moment):
    checkpoints = Checkpoints(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SAVE_FOR_EVER), str(checkpoints.directory), moment],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    try:
        lines = [int(child.stdout.readline()) for _ in range(3)]
        time.sleep(1 if moment == "held up" else float(moment))
    finally:
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate(timeout=30)
    begun = [*lines, *map(int, rest.split())][-1]
    unfinished = checkpoints.directory / "3.orbax-checkpoint-tmp"
    assert moment != "held up" or unfinished.exists()
    restored, progress = checkpoints.restore({"params": {"w": jax.ShapeDtypeStruct((50_000,), jnp.float32)}})
    if moment == "held up":
        assert not unfinished.exists()
        assert progress["step"] == 2
    assert (
        progress["step"] >= begun - 2
    )  # a save begins after the one before is committed; one line may be lost
    assert (np.asarray(restored["params"]["w"]) == progress["step"]).all()
    checkpoints.save(begun + 1, {"params": {"w": jnp.zeros(3)}}, {})
    checkpoints.close()
    assert checkpoints.latest_step() == begun + 1


RESTORE = """
    import sys
    import jax, numpy as np
    from jaxformer.checkpoints import Checkpoints

    assert len(jax.devices()) == 1
    target = {"params": {"w": jax.ShapeDtypeStruct((64, 16), np.float32)}}
    (items, progress) = Checkpoints(sys.argv[1], read_only=True).restore(target)
    print(progress["step"], float(np.asarray(items["params"]["w"]).sum()))
"""


def test_restores_in_a_process_with_one_device(tmp_path):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    kernel = jax.device_put(jnp.arange(1024.0).reshape(64, 16), NamedSharding(mesh, PartitionSpec("fsdp")))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, {"params": {"w": kernel}}, {})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RESTORE), str(checkpoints.directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    assert done.stdout.split() == ["4", str(1024 * 1023 / 2)]
