"""A part of a config whose numbers are inputs of a program, and the same part with other numbers."""

from functools import partial

import jax
import numpy as np

from jaxformer.numbers import Kept, numbers_of, with_numbers


def on_the_host(number):
    """An input as the config has it."""
    if isinstance(number, Kept):
        return number.share
    return int(number) if isinstance(number, np.uint32) else number


def moved(part, by=0.9):
    """The part with all its inputs made smaller."""
    smaller = {path: on_the_host(number) for path, number in numbers_of(part).items()}
    changed = {path: by * n if isinstance(n, float) else n + 7 for path, n in smaller.items()}
    return with_numbers(part, changed)


def numbered(part, function):
    """`function(part, ...)` as one of (numbers, ...)."""
    return lambda numbers, *arguments: function(with_numbers(part, numbers), *arguments)


def program(part, function, *arguments):
    """The text of `function(part, ...)` with the part's numbers as inputs."""
    return jax.jit(numbered(part, function)).lower(numbers_of(part), *arguments).as_text()


def assert_inputs(part, function, *arguments, rtol=0.0):
    """Other numbers are the same program, and give what the same numbers as constants give.

    Args:
      part: of a config.
      function: (part, ...) -> a tree of arrays.
      arguments: what `function` is given beside the part.
      rtol: how far results may be from the constants', as a share of the largest number of an array; 0: the same bits.
    """
    other = moved(part)
    assert numbers_of(part).keys() == numbers_of(other).keys() != set()
    assert program(part, function, *arguments) == program(other, function, *arguments)
    run = jax.jit(numbered(part, function))
    own, found = run(numbers_of(part), *arguments), run(numbers_of(other), *arguments)
    assert any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(found)))
    constant = jax.jit(partial(function, other))(*arguments)
    leaves = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(constant), strict=True)
    for (path, a), b in leaves:
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        error = np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(b), initial=0), 1e-30)
        assert error <= rtol, f"{jax.tree_util.keystr(path)}: {error:.1e}"
