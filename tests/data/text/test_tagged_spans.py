"""Tags of words on the first of their pieces, and answers in windows over contexts."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer.data.kinds.spans import find
from jaxformer.data.kinds.tagged import align
from jaxformer.errors import UserError

BERT = {"name": "characters", "template": "bert"}


@pytest.fixture
def wordpiece(tmp_path) -> dict:
    """A BERT tokenizer of a few pieces."""
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "new",
        "york",
        "##ers",
        "live",
        "##s",
        "in",
        "a",
        "-",
        "b",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return {"name": "file", "path": str(tmp_path / "vocab.txt")}


def test_a_words_first_piece_has_its_tag(written, batches, wordpiece):
    examples = [
        {"words": ["New", "Yorkers", "lives", "in", "a-b"], "tags": [1, 2, 0, 0, 1]},
        {"words": ["in"], "tags": [2]},
        {"words": [], "tags": []},
    ]
    settings = {"name": "tagged", "length": 12, "words_feature": "words", "tags_feature": "tags"}
    made = batches(
        data_dir=written(train=examples), tokenizer=wordpiece, examples=settings, train=False, batch_size=3
    )
    batch = made[0]
    assert set(batch) == {"tokens", "token_mask", "labels", "example_mask", "index"}
    pieces = [made.tokenizer.hf.id_to_token(int(token)) for token in batch["tokens"][0]]
    assert pieces == ["[CLS]", "new", "york", "##ers", "live", "##s", "in", "a", "-", "b", "[SEP]", "[PAD]"]
    assert batch["labels"][0].tolist() == [-1, 1, 2, -1, 0, -1, 0, 1, -1, -1, -1, -1]
    assert batch["labels"][1].tolist() == [-1, 2] + [-1] * 10
    assert (batch["labels"][2] == -1).all()
    assert made.class_names == ["O", "B-X", "I-X"]
    assert made.sizes == {"vocab_size": 14, "num_classes": 3}


def test_words_beyond_the_length_are_counted(written, batches, wordpiece):
    examples = [{"words": ["new", "yorkers", "in", "a"], "tags": [1, 2, 0, 1]}]
    settings = {"name": "tagged", "length": 5, "words_feature": "words", "tags_feature": "tags"}
    made = batches(data_dir=written(train=examples), tokenizer=wordpiece, examples=settings, batch_size=1)
    assert made[0]["labels"].tolist() == [[-1, 1, 2, -1, -1]]
    assert "train: 50% of 4 words were cut off at 5 tokens" in made.facts


def test_alignment_by_hand():
    assert align([None, 0, 0, 1, 2, 2, None, None], [4, 5, 6]) == [-1, 4, -1, 5, 6, -1, -1, -1]


@pytest.mark.parametrize(
    ("example", "words"),
    [({"words": ["a", "b"], "tags": [1]}, "index 0: has 2 words and 1 tags; each word needs a tag")],
)
def test_tags_that_do_not_fit_are_named(written, batches, wordpiece, example, words):
    settings = {"name": "tagged", "length": 5, "words_feature": "words", "tags_feature": "tags"}
    with pytest.raises(UserError, match=words):
        batches(data_dir=written(train=[example]), tokenizer=wordpiece, examples=settings)


def test_lists_that_are_not_there_are_named(written, batches):
    folder = written(train=["a"])
    for settings, words in (
        (
            {"words_feature": "text"},
            "'text' of written/1.0.0 is Text, not a list of texts; features that are: words",
        ),
        ({"words_feature": "words", "tags_feature": "tgas"}, "no feature 'tgas'; did you mean 'tags'"),
    ):
        with pytest.raises(UserError) as error:
            batches(data_dir=folder, examples={"name": "tagged", "length": 8} | settings)
        assert words in str(error.value)


def test_every_word_of_wnut_has_its_tag(prepared, batches):
    settings = {"name": "tagged", "length": 512}
    made = batches(
        "validation", train=False, name="wnut17", data_dir=prepared("wnut17"), examples=settings, batch_size=64,
        tokenizer={"name": "trained", "kind": "wordpiece", "vocab_size": 2000, "template": "bert"},
    )  # fmt: skip
    records = made.source.records
    tags = [list(record["ner"].int64_list.value) for _, group in records.groups() for record in group]
    labels = np.concatenate([batch["labels"][batch["example_mask"]] for batch in made])
    missing = 0
    for row, expected in zip(labels, tags):
        missing += len(expected) - (row >= 0).sum()
        if len(expected) == (row >= 0).sum():
            assert row[row >= 0].tolist() == expected
    empty = sum(int(fact.split()[1]) for fact in made.facts if "have no tokens" in fact)
    assert missing == empty < 10


def squad(**fields) -> dict:
    return {
        "id": "q",
        "question": "who?",
        "context": "",
        "answers": {"text": [], "answer_start": []},
    } | fields


def answers(*pairs: tuple[str, int]) -> dict:
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


SQUAD = {
    "id": tfds.features.Text(),
    "question": tfds.features.Text(),
    "context": tfds.features.Text(),
    "answers": tfds.features.Sequence(
        {"text": tfds.features.Text(), "answer_start": tfds.features.Scalar(np.int32)}
    ),
}


def test_windows_slide_over_a_long_context(written, batches):
    context = "abcdefghijklmnopqrst"
    examples = [
        squad(context=context, answers=answers(("jkl", 9), ("c", 2))),
        squad(id="none", context="ab"),
        squad(id="wrong", context="ab", answers=answers(("b", 0))),
    ]
    folder = written(features=SQUAD, train=examples)
    settings = {"name": "spans", "length": 15, "stride": 3, "question_length": 4}
    made = batches(data_dir=folder, tokenizer=BERT, examples=settings, train=False, batch_size=8)
    source, batch = made.source, made[0]
    real = batch["example_mask"]
    # [CLS] w h o ? [SEP] eight characters [SEP], each window five characters on
    texts = [made.tokenizer.decode(row[6:-1]) for row in batch["tokens"][real]]
    assert texts == ["abcdefgh", "fghijklm", "klmnopqr", "pqrst", "ab", "ab"]
    assert batch["example"][real].tolist() == [0, 0, 0, 0, 1, 2]
    assert batch["start"][real].tolist() == [0, 10, 0, 0, 0, 0]
    assert batch["end"][real].tolist() == [0, 12, 0, 0, 0, 0]
    assert batch["token_types"][0].tolist() == [0] * 6 + [1] * 9
    assert source.characters(1).tolist() == [[-1, -1]] * 6 + [[n, n + 1] for n in range(5, 13)] + [[-1, -1]]
    question = source.question(0)
    assert (question.id, question.answers, question.context) == ("q", ["jkl", "c"], context)
    assert "train: 33% of 3 questions have no answer" in made.facts
    assert any("33% of 3 answers are not in the context where" in fact for fact in made.facts)


def test_long_questions_are_cut_and_counted(written, batches):
    folder = written(
        features=SQUAD, train=[squad(question="x" * 30, context="abc", answers=answers(("b", 1)))]
    )
    settings = {"name": "spans", "length": 15, "stride": 3, "question_length": 4}
    made = batches(data_dir=folder, tokenizer=BERT, examples=settings, batch_size=1)
    assert made.tokenizer.decode(made[0]["tokens"][0], skip_special=False).startswith(
        "[CLS]xxxx[SEP]abc[SEP]"
    )
    assert any("100% of 1 questions were cut at 4 tokens" in fact or "1e+02%" in fact for fact in made.facts)


def test_answers_are_found_by_their_characters():
    characters = np.asarray([[-1, -1], [0, 3], [3, 5], [6, 9], [9, 10], [-1, -1]], np.int32)
    assert find(characters, (0, 3)) == (1, 1)
    assert find(characters, (1, 7)) == (1, 3)  # pieces that are only partly of it belong to it
    assert find(characters, (5, 9)) == (3, 3)  # begins with a space, which no token has
    assert find(characters, (9, 11)) == (0, 0)
    assert find(characters[3:], (3, 8)) == (0, 0)
    assert find(characters, None) == (0, 0)


@pytest.mark.parametrize(
    "tokenizer",
    [
        BERT,
        {"name": "trained", "kind": "wordpiece", "vocab_size": 3000, "template": "bert"},
        {"name": "trained", "vocab_size": 3000, "template": "roberta"},
    ],
    ids=["characters", "wordpiece", "byte-level bpe"],
)
def test_every_answer_of_xquad_is_recovered(prepared, batches, tokenizer):
    length = 1024 if tokenizer is BERT else 256
    settings = {"name": "spans", "length": length, "stride": length // 4, "question_length": length // 4}
    made = batches(
        "validation",
        train=False,
        name="xquad_en",
        data_dir=prepared("xquad_en"),
        tokenizer=tokenizer,
        examples=settings,
    )
    source = made.source
    answered, exact = set(), 0
    for row in range(len(source)):
        example = int(source.examples[row])
        question, characters = source.question(example), source.characters(row)
        start, end = (int(source.arrays[name][row]) for name in ("start", "end"))
        first = question.starts[0]
        last = first + len(question.answers[0])
        context = characters[characters[:, 0] >= 0]
        inside = context[0, 0] <= first and context[-1, 1] >= last
        assert inside == ((start, end) != (0, 0))
        if inside:
            found = question.context[characters[start, 0] : characters[end, 1]]
            assert question.answers[0] in found
            exact += found == question.answers[0]
            answered.add(example)
            assert exact or tokenizer is not BERT
    assert len(answered) == len(source.records) == 238
    assert exact > 0.97 * len(answered)


def test_a_template_is_needed_for_nothing_else(written, batches):
    """A byte-level vocabulary without special tokens has its windows, too."""
    folder = written(features=SQUAD, train=[squad(context="abc", answers=answers(("b", 1)))])
    settings = {"name": "spans", "length": 15, "stride": 3, "question_length": 4}
    made = batches(data_dir=folder, examples=settings, batch_size=1)
    assert made[0]["start"].tolist() == made[0]["end"].tolist() == [5]
