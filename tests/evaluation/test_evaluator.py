"""A whole split's evaluation: every example counts once, on any number of devices and for any widths."""

import os
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformer.evaluation.evaluator import GivenUp, added, evaluate, real_rows, widened
from jaxformer.models.outputs import TextOutputs
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.step import make_eval_step
from jaxformer.tasks.base import Evaluation
from jaxformer.tasks.language import CausalLM
from jaxformer.verbs.common import cpu_devices

VOCAB = 7
TABLE = np.random.default_rng(0).normal(size=(VOCAB, VOCAB)).astype(np.float32)


class Bigram:
    """A model whose logits are a row of a table."""

    def apply(self, variables, tokens, deterministic):
        logits = variables["table"][tokens]
        return TextOutputs(logits=logits, tokens=logits)


class Collecting(CausalLM):
    """Collects each example's tokens and the sum of its losses, and gives them as they come."""

    def collect(self, outputs, batch, model, variables):
        mean = self.errors(outputs, batch)
        return {"index": batch["index"], "tokens": batch["tokens"], "mean": mean, "logits": outputs.logits}

    def summarize(self, sums, collected, data):
        return Evaluation(super().summarize(sums, collected, data).metrics, collected)


class Split:
    """21 examples in batches of 8, each as wide as its longest; the last one is padded."""

    def __init__(self, examples=21, widths=(3, 6, 4)):
        rng, self.batches, self.texts = np.random.default_rng(1), [], []
        for first, width in zip(range(0, examples, 8), widths):
            real = min(8, examples - first)
            text = rng.integers(0, VOCAB, (8, width + 1)).astype(np.int32)
            lengths = rng.integers(1, width + 1, 8)
            lengths[0] = width
            targets = np.where(np.arange(width) < lengths[:, None], text[:, 1:], -1)
            index = np.where(np.arange(8) < real, 100 + first + np.arange(8), 0).astype(np.int32)
            batch = {"tokens": text[:, :-1], "targets": targets, "index": index}
            self.batches.append({**batch, "example_mask": np.arange(8) < real})
            self.texts += [(text[row, :-1], targets[row]) for row in range(real)]

    def __len__(self):
        return len(self.batches)

    def numbers(self, step):
        return np.arange(8 * step, min(8 * step + 8, len(self.texts)))

    @contextmanager
    def read(self, start, process, processes, stop):
        rows = 8 // processes
        mine = slice(process * rows, (process + 1) * rows)
        yield ({name: array[mine] for name, array in batch.items()} for batch in self.batches[start:stop])


LAYOUTS = {
    "one device": ("jit", {"data": 1}, 1),
    "data": ("jit", {"data": 8}, 8),
    "tensor": ("jit", {"data": 2, "fsdp": 2, "tensor": 2}, 8),
    "pmap": ("pmap", {"data": 8}, 8),
}


def evaluated(name, split, task, **kwargs):
    mode, mesh, count = LAYOUTS[name]
    return evaluated_on(Layout(mode, make_mesh(mesh, jax.devices()[:count])), split, task, **kwargs)


def evaluated_on(layout, split, task, **kwargs):
    step = layout.eval_step(make_eval_step(Bigram(), task, axis=layout.axis))
    table = jax.make_array_from_callback(TABLE.shape, layout.replicated, lambda index: TABLE[index])
    return evaluate(step, {"table": table}, task, split, layout, **kwargs)


@pytest.fixture(scope="module")
def split():
    return Split()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_example_counts_once(name, split):
    found = evaluated(name, split, Collecting())
    x = TABLE.astype(np.float64)
    chances = x - np.log(np.exp(x).sum(-1, keepdims=True))
    losses = [[-chances[a, b] for a, b in zip(*text) if b >= 0] for text in split.texts]
    right = [[chances[a].argmax() == b for a, b in zip(*text) if b >= 0] for text in split.texts]
    assert found.metrics["loss"] == pytest.approx(np.mean(np.concatenate(losses)), rel=1e-5)
    assert found.metrics["accuracy"] == pytest.approx(np.mean(np.concatenate(right)))

    rows = found.tables
    assert rows["index"].tolist() == [*range(100, 121)]
    np.testing.assert_allclose(rows["mean"], [np.mean(loss) for loss in losses], rtol=1e-5)
    assert rows["tokens"].shape == (21, 6)
    for row, logits, (tokens, _) in zip(rows["tokens"], rows["logits"], split.texts):
        np.testing.assert_array_equal(row, [*tokens, *[-1] * (6 - len(tokens))])
        np.testing.assert_array_equal(logits, [*TABLE[tokens], *[np.zeros(VOCAB)] * (6 - len(tokens))])


ONE_OF_TWO = """
    import sys
    import jax
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    from test_evaluator import Collecting, Layout, Split, evaluated_on, make_mesh
    for mode in ("jit", "pmap"):
        found = evaluated_on(Layout(mode, make_mesh({"data": 4})), Split(), Collecting())
        rows = found.tables
        print(mode, found.metrics["loss"], rows["index"].tolist(), rows["tokens"].sum(), flush=True)
"""


def test_two_processes_find_what_one_does(split):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        **cpu_devices(2),
        "PYTHONPATH": os.path.dirname(__file__),
    }
    command = [sys.executable, "-c", textwrap.dedent(ONE_OF_TWO), address]
    both = [
        subprocess.Popen(
            [*command, rank], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    try:
        printed = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    for out, err in printed:
        lines = [line for line in out.splitlines() if line.startswith(("jit", "pmap"))]
        assert [line.split()[0] for line in lines] == ["jit", "pmap"], out + err
        for line in lines:
            expected = evaluated("one device", split, Collecting())
            loss, rest = line.split(" ", 2)[1:]
            assert float(loss) == pytest.approx(expected.metrics["loss"], rel=1e-6)
            assert rest == f"{expected.tables['index'].tolist()} {expected.tables['tokens'].sum()}"


def test_a_task_that_collects_nothing_is_given_the_rows_numbers(split):
    class Seeing(CausalLM):
        def summarize(self, sums, collected, data):
            assert data is split
            return Evaluation({}, dict(collected))

    assert {name: rows.tolist() for name, rows in evaluated("pmap", split, Seeing()).tables.items()} == {
        "index": [*range(21)]
    }


def test_an_evaluation_can_be_given_up(split):
    asked = []
    with pytest.raises(GivenUp):
        evaluated("one device", split, CausalLM(), give_up=lambda: asked.append(1) or len(asked) > 2)
    assert len(asked) == 3


def test_sums_are_added_in_float64():
    """2**24 + 1 is no float32."""
    parts = [
        {"a": np.float32(2**24), "b": np.float32([1, 2])},
        {"a": np.float32(1), "b": np.float32([3, 4, 5])},
    ]
    total = added(parts)
    assert total["a"] == 2**24 + 1
    np.testing.assert_array_equal(total["b"], [4, 6, 5])
    assert total["b"].dtype == np.float64
    np.testing.assert_array_equal(added(parts[:1])["b"], [1, 2])


def test_rows_that_are_padding_are_left_out_and_widths_made_one():
    mask = np.array([True, False])
    parts = [
        {"tags": np.ones((2, 2), np.int32), "logits": np.ones((2, 3, 2), np.float32), "example_mask": mask},
        {"tags": np.ones((2, 1), np.int32), "logits": np.ones((2, 3, 4), np.float32), "example_mask": ~mask},
    ]
    joined = real_rows(parts)
    np.testing.assert_array_equal(joined["tags"], [[1, 1], [1, -1]])
    np.testing.assert_array_equal(joined["logits"].sum(-1), [[2] * 3, [4] * 3])
    assert joined["tags"].dtype == np.int32
    assert real_rows([]) == {}


def test_arrays_are_widened_at_their_ends():
    narrow, wide = widened([np.ones((2, 1), np.float32), np.ones((1, 3), np.float32)], 1)
    np.testing.assert_array_equal(narrow, [[1, 0, 0]] * 2)
    assert wide.shape == (1, 3)
    scalars = widened([np.float64(1), np.float64(2)], 0)
    assert scalars == [1, 2]


def test_collected_arrays_of_a_device_stay_in_order():
    """Under pmap as everywhere: row i of what is collected is row i of the batch."""
    step = SimpleNamespace(
        apply=lambda variables, tokens, deterministic: TextOutputs(tokens[..., None], tokens)
    )

    class Echo(CausalLM):
        def eval_sums(self, outputs, batch):
            return {"count": jnp.sum(batch["tokens"])}

        def collect(self, outputs, batch, model, variables):
            return {"tokens": batch["tokens"], "first": batch["tokens"][:, 0]}

    batch = {"tokens": np.arange(48, dtype=np.int32).reshape(16, 3), "example_mask": np.arange(16) != 7}
    for name in LAYOUTS:
        mode, mesh, count = LAYOUTS[name]
        layout = Layout(mode, make_mesh(mesh, jax.devices()[:count]))
        eval_step = layout.eval_step(make_eval_step(step, Echo(), axis=layout.axis))
        sums, collected = jax.device_get(eval_step({"params": np.zeros(1)}, layout.shard_batch(batch)))
        assert sums["count"] == batch["tokens"].sum()
        np.testing.assert_array_equal(collected["tokens"], batch["tokens"])
        np.testing.assert_array_equal(collected["first"], batch["tokens"][:, 0])
        np.testing.assert_array_equal(collected["example_mask"], batch["example_mask"])
