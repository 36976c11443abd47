"""Writing a text for another: what the full model says without a cache, for any lengths in a batch."""

import numpy as np
import pytest
from helpers.tiny_writers import CONTEXT, SEQ2SEQS, best_hypothesis, gpt, next_logits, seq2seq

from jaxformer.decoding.sampling import Sampling
from jaxformer.errors import UserError
from jaxformer.inference.writers import TextToText
from jaxformer.inference.writing import BATCH, Generation

GREEDY = Sampling(temperature=0)
SOURCES = ["a", "bad cab", "h.face deed ba"]


def greedy_ids(model, variables, source, first, eos, count):
    ids = []
    while len(ids) < count and (not ids or ids[-1] != eos):
        ids.append(int(np.argmax(next_logits(model, variables, [first, *ids], source))))
    return ids


@pytest.mark.parametrize("template", ["seq2seq", "t5"])
@pytest.mark.parametrize("name", SEQ2SEQS)
def test_greedy_translation_is_the_argmax_of_the_full_model(name, template):
    model, variables, letters = seq2seq(name, template)
    writer = TextToText(model, variables, letters)
    sources = [writer.encode(source) for source in SOURCES]
    found = list(writer.generate(sources, Generation(100, GREEDY)))
    first = letters.bos_id if template == "seq2seq" else letters.pad_id
    expected = [
        greedy_ids(model, variables, source, first, letters.eos_id, CONTEXT - 1) for source in sources
    ]
    assert [continuation.text for continuation in found] == [letters.decode(ids) for ids in expected]
    assert [continuation.tokens for continuation in found] == [len(ids) for ids in expected]
    ends = ["end of text" if ids[-1] == letters.eos_id else "context" for ids in expected]
    assert [continuation.ended for continuation in found] == ends
    assert [next(writer.generate([source], Generation(100, GREEDY))) for source in sources] == found


def test_beams_find_the_best_translation_of_all():
    model, variables, letters = seq2seq(template="t5", letters="ab")
    writer = TextToText(model, variables, letters)
    sources = [writer.encode(source) for source in ("ab", "abbab")]
    found = list(writer.generate(sources, Generation(3, beams=40, length_penalty=0.6)))
    for source, continuation in zip(sources, found):
        best = best_hypothesis(
            lambda ids, source=source: next_logits(model, variables, [letters.pad_id, *ids], source),
            letters.vocab_size,
            letters.eos_id,
            3,
            0.6,
        )
        assert continuation.text == letters.decode(best)
        assert continuation.tokens == len(best)


def test_a_source_ends_as_in_training():
    """The pairs of a dataset have the token that ends a text, also if the tokenizer's template does not write it."""
    bare = TextToText(*seq2seq(template="gpt"))
    assert bare.encode("ab") == [*bare.tokenizer.encode("ab"), bare.eos_id]
    written = TextToText(*seq2seq())
    assert written.encode("ab") == written.tokenizer.encode("ab")
    assert written.encode("ab").count(written.eos_id) == 1


def test_samples_depend_on_their_number():
    writer = TextToText(*seq2seq())
    how = Generation(10, Sampling(temperature=1.5))
    texts = [found.text for found in writer.generate([writer.encode("bad")] * (BATCH + 3), how)]
    assert len(set(texts)) > BATCH // 2
    assert texts[BATCH:] != texts[:3]


def test_a_stop_string_ends_a_translation():
    writer = TextToText(*seq2seq())
    source = [writer.encode("bad cab")]
    (whole,) = writer.generate(source, Generation(12, GREEDY))
    stop = whole.text[3:5]
    (found,) = writer.generate(source, Generation(12, GREEDY, (stop,)))
    assert (found.text, found.ended) == (whole.text[: whole.text.index(stop)], "stop string")


def test_mistakes_are_said_in_a_line():
    writer = TextToText(*seq2seq())
    sources = [writer.encode("a")] * (BATCH + 1) + [writer.encode("a" * CONTEXT)]
    for how in (Generation(), Generation(beams=2)):
        with pytest.raises(UserError, match=r"prompt: has 18 tokens, the model's context is 16; shorten it"):
            next(writer.generate(sources, how))
    with pytest.raises(UserError, match="this run's tokenizer has no token that ends a text"):
        TextToText(*gpt())
