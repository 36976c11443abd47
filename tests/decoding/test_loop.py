"""The decode loop against loops in Python and against transformers; streams; stop strings."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from transformers import GPT2Config, GPT2LMHeadModel

from jaxformer.config import schema
from jaxformer.decoding import sampling
from jaxformer.decoding.loop import Rules, StopStrings, advance, begin, stream
from jaxformer.decoding.sampling import Sampling, seen_tokens
from jaxformer.errors import UserError
from jaxformer.inference.writing import Generation

sample = jax.jit(sampling.sample, static_argnames="sampling")

VOCAB_SIZE, EOS, PAD = 12, 3, 0
GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=1.3, top_k=9, top_p=0.95)


def markov(table, state, tokens):
    """A model whose next token depends on the last one, and whose state counts what it has read."""
    return table[tokens], {"read": state["read"] + 1, "rows": state["rows"].at[:, 0].set(tokens)}


def model(batch, seed=0, eos_logit=0.0):
    """A step, its state, and the first logits."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(VOCAB_SIZE, VOCAB_SIZE)).astype(np.float32) * 2
    table[:, EOS] += eos_logit
    state = {"read": jnp.int32(0), "rows": jnp.zeros((batch, 2), jnp.int32)}
    first = generator.normal(size=(batch, VOCAB_SIZE)).astype(np.float32)
    return Partial(markov, jnp.array(table)), state, jnp.array(first)


def options(sampling=WARM, n=12, eos_ids=(EOS,), seed=0, **more):
    return {
        "key": jax.random.key(seed),
        "rules": Rules(sampling, eos_ids, PAD),
        "max_new_tokens": n,
        **more,
    }


@partial(jax.jit, static_argnames=("rules", "max_new_tokens"))
def generate(step, state, first, *, key, rules, max_new_tokens, seen=None, rows=None):
    """All tokens [B, N] in one loop on the device, how many each row has, and the state after them."""
    progress = replace(begin(first, key, seen, rows, rules), state=state)
    tokens = progress.tokens[:, None]
    if max_new_tokens > 1:
        progress, more = advance(step, progress, key, rows, max_new_tokens, rules, max_new_tokens - 1)
        tokens = jnp.concatenate([tokens, more], axis=1)
    return tokens, progress.lengths, progress.state


def by_hand(step, first, sampling, n, eos_ids, seed, seen=None):
    """`generate`, row by row and token by token: lists that end with the end token."""
    table, rows = np.asarray(step.args[0]), []
    for row in range(first.shape[0]):
        logits, ids, known = first[row], [], None if seen is None else seen[row]
        while len(ids) < n and not (ids and ids[-1] in eos_ids):
            key = jax.random.fold_in(jax.random.key(seed), len(ids))
            one = None if known is None else known[None]
            ids.append(int(sample(key, logits[None], sampling, one, jnp.array([row]))[0]))
            known = None if known is None else known.at[ids[-1]].set(True)
            logits = jnp.array(table[ids[-1]])
        rows.append(ids)
    return rows


def padded(rows, n):
    return [ids + [PAD] * (n - len(ids)) for ids in rows]


@pytest.mark.parametrize("sampling", [GREEDY, WARM, Sampling(repetition_penalty=1.5)], ids=str)
@pytest.mark.parametrize("eos_ids", [(EOS,), (EOS, 5), ()])
def test_tokens_are_those_of_a_loop_in_python(sampling, eos_ids):
    step, state, first = model(5)
    seen = seen_tokens([[1, 2], [4], [7, 8], [9, 9], [2, 11]], VOCAB_SIZE)
    expected = by_hand(step, first, sampling, 12, eos_ids, 0, seen)
    tokens, lengths, _ = generate(step, state, first, **options(sampling, eos_ids=eos_ids, seen=seen))
    assert tokens.dtype == lengths.dtype == jnp.int32
    assert tokens.tolist() == padded(expected, 12)
    assert lengths.tolist() == [len(ids) for ids in expected]


@pytest.fixture(scope="module")
def gpt2():
    """A GPT-2 without layers and positions: a Markov model that transformers decodes. And its table."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_layer=0, n_embd=16, n_head=1, n_positions=64, tie_word_embeddings=False
    )
    module = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        module.transformer.wpe.weight.zero_()
        module.lm_head.weight.normal_(0, 0.5)
        table = module(torch.arange(VOCAB_SIZE)[:, None]).logits[:, 0].numpy()
    return module, jnp.array(table)


@pytest.mark.parametrize("penalty", [1.0, 1.2, 3.0])
def test_greedy_tokens_are_those_of_transformers(gpt2, penalty):
    module, table = gpt2
    prompts = np.array([[1, 2, 4], [5, 6, 7], [8, 9, 10], [11, 1, 1]])
    expected = module.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(4, 3, dtype=torch.long),
        do_sample=False,
        max_new_tokens=15,
        repetition_penalty=penalty,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )[:, 3:].numpy()
    _, state, _ = model(4)
    sampling = Sampling(temperature=0, repetition_penalty=penalty)
    seen = seen_tokens(prompts.tolist(), VOCAB_SIZE)
    tokens, _, _ = generate(
        Partial(markov, table), state, table[prompts[:, -1]], **options(sampling, 15, seen=seen)
    )
    np.testing.assert_array_equal(tokens[:, : expected.shape[1]], expected)
    assert (tokens[:, expected.shape[1] :] == PAD).all()


def test_the_loop_ends_with_the_last_row_and_the_model_reads_no_more():
    step, state, first = model(6, eos_logit=3.0)
    _, lengths, after = generate(step, state, first, **options(n=500))
    assert 1 < lengths.max() < 60
    assert int(after["read"]) == lengths.max() - 1  # the end itself is not read


@pytest.mark.parametrize("n", [1, 2])
def test_few_tokens(n):
    step, state, first = model(3)
    tokens, lengths, after = generate(step, state, first, **options(GREEDY, n, ()))
    assert tokens.shape == (3, n)
    assert tokens[:, 0].tolist() == jnp.argmax(first, axis=-1).tolist()
    assert lengths.tolist() == [n] * 3
    assert int(after["read"]) == n - 1


def test_a_prompt_goes_on_the_same_in_any_batch():
    step, state, first = model(8, eos_logit=-1.0)
    tokens, _, _ = generate(step, state, first, **options())
    _, state, _ = model(3)
    few, _, _ = generate(step, state, first[:3], **options())
    np.testing.assert_array_equal(few, tokens[:3])
    rows = jnp.array([6, 1, 4])
    some, _, _ = generate(step, state, first[rows], **options(rows=rows))
    np.testing.assert_array_equal(some, tokens[rows])


def test_a_batch_that_is_spread_over_devices_goes_on_the_same():
    step, state, first = model(16)
    sampling = Sampling(top_k=9, top_p=0.95, min_p=0.01, repetition_penalty=1.1)
    expected = generate(step, state, first, **options(sampling))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    state = {"read": state["read"], "rows": jax.device_put(state["rows"], spread)}
    result = generate(step, state, jax.device_put(first, spread), **options(sampling))
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.parametrize("n", [1, 2, 9, 20])
@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_a_stream_has_the_tokens_of_generate(n, chunk):
    step, state, first = model(4, seed=2)
    sampling = Sampling(top_p=0.9, repetition_penalty=1.1)
    tokens, lengths, _ = generate(step, state, first, **options(sampling, n))
    chunks = list(stream(step, state, first, **options(sampling, n, chunk=chunk)))
    longest = int(lengths.max())
    np.testing.assert_array_equal(np.concatenate([c.tokens for c in chunks], axis=1), tokens[:, :longest])
    np.testing.assert_array_equal(sum(c.counts for c in chunks), lengths)
    assert [c.tokens.shape[1] for c in chunks[:-1]] == ([1] + [chunk] * n)[: len(chunks) - 1]
    ended = [EOS in row[:length] for row, length in zip(tokens.tolist(), lengths.tolist())]
    assert chunks[-1].done.tolist() == ended


def test_a_stream_takes_the_state_and_leaves_the_parameters():
    step, state, first = model(4)
    list(stream(step, state, first, **options(eos_ids=())))
    assert state["rows"].is_deleted()
    assert not step.args[0].is_deleted()
    assert not first.is_deleted()


def test_a_second_stream_compiles_nothing():
    traced = []

    def step(state, tokens):
        traced.append(tokens.shape)
        return jnp.tile(state["logits"][None], (len(tokens), 1)), state

    def run(seed, n):
        state = {"logits": jnp.arange(VOCAB_SIZE, dtype=jnp.float32)}
        return list(stream(step, state, jnp.zeros((2, VOCAB_SIZE)), **options(WARM, n, (), seed)))

    run(0, 12)
    before = len(traced)
    run(1, 20)
    assert before > 0
    assert len(traced) == before


def test_a_stop_string_ends_a_row():
    stops = StopStrings(["hi", "def"], lambda ids: "".join(chr(ord("a") + i) for i in ids), rows=3)
    alphabet = [list(range(first, first + 10)) for first in (4, 9, 1)]  # efgh..., jklm..., bcdef...
    assert [stops.extend(row, ids[:4]) for row, ids in enumerate(alphabet)] == [False] * 3
    assert [stops.extend(row, ids[4:]) for row, ids in enumerate(alphabet)] == [True, False, True]
    assert [stops.texts[row] for row in range(3)] == ["efg", "jklmnopqrs", "bc"]
    assert stops.found == ["hi", None, "def"]
    assert [len(ids) for ids in stops.ids] == [5, 10, 5]
    assert stops.extend(0, [0])  # dropped
    assert stops.texts[0] == "efg"


def test_what_is_drawn_depends_on_the_number_of_the_token():
    """A model without memory: a stream that begins at token 5 draws what a longer one draws from there on."""
    table = jnp.broadcast_to(jnp.linspace(0, 1, VOCAB_SIZE), (VOCAB_SIZE, VOCAB_SIZE))
    step, first = Partial(markov, table), table[:3]

    def drawn(n, **more):
        state = model(3)[1]
        return np.concatenate(
            [c.tokens for c in stream(step, state, first, **options(n=n, eos_ids=(), **more))], 1
        )

    np.testing.assert_array_equal(drawn(6, first=5, chunk=4), drawn(11)[:, 5:])


def test_a_stop_string_that_never_comes_ends_nothing():
    stops = StopStrings(["zzz"], lambda ids: "a" * len(ids), rows=2)
    assert not any(stops.extend(row, list(range(12))) for row in range(2))
    assert stops.found == [None, None]
    assert stops.texts[0] == stops.settled(0) == "a" * 12


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.text("ab", min_size=1, max_size=3), max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    data=st.data(),
)
def test_the_stop_string_that_is_complete_first_ends_the_text_however_it_comes(pieces, stops, data):
    rows = StopStrings(stops, lambda ids: "".join(pieces[i] for i in ids))
    shown, taken = "", 0
    while taken < len(pieces):
        count = data.draw(st.integers(1, 4))
        done = rows.extend(0, list(range(taken, min(taken + count, len(pieces)))))
        taken += count
        assert rows.settled(0).startswith(shown)
        shown = rows.settled(0)
        assert done == (rows.found[0] is not None)
    whole = "".join(pieces)
    ends = [n for n in range(len(whole) + 1) if any(whole[:n].endswith(stop) for stop in stops)]
    if ends:  # read letter by letter, with the longest stop string where several end
        stop = max((stop for stop in stops if whole[: ends[0]].endswith(stop)), key=len)
        assert rows.found[0] == stop
        assert rows.texts[0] == rows.settled(0) == whole[: ends[0] - len(stop)]
        assert (
            len("".join(pieces[: len(rows.ids[0]) - 1])) < ends[0] <= len("".join(pieces[: len(rows.ids[0])]))
        )
    else:
        assert rows.found[0] is None
        assert rows.texts[0] == whole
        held = whole[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)
        assert not any(whole.endswith(s[:n]) for s in stops for n in range(len(held) + 1, len(s)))


def test_characters_of_which_bytes_are_missing_are_held_back():
    rows = StopStrings(["né!"], lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    shown = []
    for byte in "aén€né!b".encode():
        rows.extend(0, [byte])
        shown.append(rows.settled(0))
    assert shown == ["a", "a", "aé", *["aé"] * 3, "aén€", *["aén€"] * 5]
    assert rows.found == ["né!"]
    assert len(rows.ids[0]) == 11


def test_what_cannot_be_is_refused():
    assert "max_new_tokens=0" in schema.problems(Generation(0))[0]
    assert "top_k=0" in schema.problems(Sampling(top_k=0))[0]
    with pytest.raises(UserError, match="empty"):
        StopStrings(["a", ""], str)
