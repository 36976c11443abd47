"""Small models that write texts, and what they write by the full model, token by token."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.data.text.tokenizer_training import Characters
from jaxformer.models.gpt import GPT
from jaxformer.models.rotary import Rotary
from jaxformer.models.seq2seq import Seq2Seq

LETTERS = "abcdefgh .\n"
CONTEXT = 16
SIZES = {"width": 16, "num_heads": 4, "mlp_dim": 24, "context_length": CONTEXT}
GPTS = {
    "learned": {},
    "scanned": {"scan": True},
    "rotary": {"positions": "rotary", "num_kv_heads": 2, "qk_norm": True},
    "alibi": {"positions": "alibi", "norm": "rms"},
    "windows": {"positions": "rotary", "window": 3, "rotary": Rotary(share=0.5)},
    "every other layer": {"positions": "relative", "window": 3, "window_every": 2},
}
SEQ2SEQS = {
    "post": {},
    "t5": {"positions": "relative", "norm": "rms", "norm_position": "pre", "use_bias": False},
}


@cache
def tokenizer(template="none", letters=LETTERS):
    """A token a letter."""
    return Characters(template=template).build(lambda: iter([letters]))


def random_variables(model, *arguments):
    """Random parameters with which tokens change one another a lot."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    rng = np.random.default_rng(1)

    def drawn(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(leaf.dtype)
        return 1 + 0.1 * noise if path[-1].key == "scale" else (0.1 if leaf.ndim == 1 else 0.7) * noise

    return jax.tree_util.tree_map_with_path(drawn, shapes)


@cache
def gpt(name="learned", template="none", letters=LETTERS):
    """A decoder, its variables and its tokenizer."""
    made = tokenizer(template, letters)
    model = GPT(vocab_size=made.vocab_size, depth=2, tied=False, **SIZES, **GPTS[name])
    return model, random_variables(model, jnp.zeros((1, 2), jnp.int32)), made


@cache
def seq2seq(name="post", template="seq2seq", letters=LETTERS):
    """An encoder-decoder, its variables and its tokenizer."""
    made = tokenizer(template, letters)
    depths = {"encoder_depth": 1, "decoder_depth": 2}
    model = Seq2Seq(vocab_size=made.vocab_size, **SIZES, **depths, **SEQ2SEQS[name])
    example = jnp.zeros((1, 2), jnp.int32)
    return model, random_variables(model, example, example), made


@cache
def compiled(model):
    return jax.jit(model.apply)


def next_logits(model, variables, ids, source=None):
    """Logits [V] of what comes after `ids`, by the full model without a cache."""
    padded = np.zeros((1, CONTEXT), np.int32)
    padded[0, : len(ids)] = ids
    arguments = (padded,) if source is None else (np.array([source], np.int32), padded)
    return np.asarray(compiled(model)(variables, *arguments).logits[0, len(ids) - 1], np.float64)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits)


def hypotheses(logits_after, vocab_size, eos, longest):
    """All texts that end with `eos` or have `longest` tokens, with their log-probabilities."""
    for length in range(1, longest + 1):
        for ids in itertools.product(range(vocab_size), repeat=length):
            if eos in ids[:-1] or (length < longest and ids[-1] != eos):
                continue
            yield list(ids), sum(log_softmax(logits_after(ids[:i]))[ids[i]] for i in range(length))


def best_hypothesis(logits_after, vocab_size, eos, longest, alpha):
    """The one with the best log-probability over ((5 + length) / 6) ** alpha."""
    found = hypotheses(cache(logits_after), vocab_size, eos, longest)
    return max(found, key=lambda pair: pair[1] / ((5 + len(pair[0])) / 6) ** alpha)[0]
