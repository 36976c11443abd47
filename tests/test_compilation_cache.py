"""A compiled program that a killed process has written half is removed, and kept anew."""

import os
import subprocess
import sys
import zlib

import pytest

COMPILE = """
import jax, jax.numpy as jnp
from jaxformer.verbs.common import use_compilation_cache

use_compilation_cache()
use_compilation_cache()  # does nothing more
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

@jax.jit
def a_program(x):
    return jnp.sin(x) @ x

a_program(jnp.ones((4, 4)))
"""


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_program_that_was_cut_short_is_compiled_and_kept_anew(tmp_path, left):
    def compiled():
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XLA_FLAGS": ""}
        done = subprocess.run(
            [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [*tmp_path.glob("jit_a_program-*-cache")]

    (entry,) = compiled()
    size = entry.stat().st_size
    os.truncate(entry, left % size)
    other = entry.with_name("jit_a_program-of-another-config-cache")
    other.write_bytes(zlib.compress(b"a program of the same name"))
    assert {*compiled()} == {entry, other}
    assert entry.stat().st_size == size
    zlib.decompress(entry.read_bytes())
