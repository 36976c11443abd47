"""Language models whose answers can be worked out by hand."""

from types import SimpleNamespace

import numpy as np

from jaxformer.data.text.tokenizer_training import Characters


def words(vocabulary, bos=None, eos=None):
    """A tokenizer that takes the longest word of `vocabulary` each time; ids are places in it."""

    def encode(text, special=False):
        assert not special, "special tokens are the caller's business"
        ids = []
        while text:
            word = max((w for w in vocabulary if text.startswith(w)), key=len)
            ids.append(vocabulary.index(word))
            text = text[len(word) :]
        return ids

    def decode(ids, skip_special=True):
        return "".join(vocabulary[i] for i in ids if not (skip_special and i in (bos, eos)))

    return SimpleNamespace(encode=encode, decode=decode, bos_id=bos, eos_id=eos)


def characters(texts):
    """The package's character tokenizer, without special tokens."""
    return Characters().build(lambda: iter(texts))


class Bigram:
    """p(next | last) from a table float [V, V]; holds its callers to the protocol, and keeps what they asked."""

    def __init__(self, tokenizer, table, context_length=64):
        self.tokenizer = tokenizer
        self.table = np.asarray(table)
        with np.errstate(divide="ignore"):
            self.logs = np.log(self.table)
        self.context_length = context_length
        self.asked = []

    def token_log_likelihoods(self, windows):
        for context, continuation in windows:
            assert context, "a context is never empty"
            assert continuation, "a continuation is never empty"
            assert all(type(token) is int for token in context + continuation)
            assert len(context) + len(continuation) <= self.context_length + 1
        self.asked += windows
        return [
            self.logs[(context[-1:] + after)[:-1], after].astype(np.float32) for context, after in windows
        ]

    def log_likelihoods(self, requests):
        answers = self.token_log_likelihoods(requests)
        best = self.table.argmax(-1)
        return [
            (float(answer.sum()), bool((best[(before[-1:] + after)[:-1]] == after).all()))
            for answer, (before, after) in zip(answers, requests)
        ]

    def generate_until(self, prompts, stops, max_new_tokens):
        self.asked += prompts
        return [self.generate(prompt, stops, max_new_tokens) for prompt in prompts]

    def generate(self, prompt, stops, max_new_tokens):
        assert prompt
        assert len(prompt) + max_new_tokens <= self.context_length
        ids = []
        for _ in range(max_new_tokens):
            ids.append(int(self.table[(prompt + ids)[-1]].argmax()))
            text = self.tokenizer.decode(ids)
            ends = [text.index(stop) for stop in stops if stop in text]
            if ends:
                return text[: min(ends)]
        return self.tokenizer.decode(ids)


def random_table(size, seed=0):
    """Probabilities float [V, V]."""
    table = np.random.default_rng(seed).random((size, size)) + 0.05
    return table / table.sum(-1, keepdims=True)
