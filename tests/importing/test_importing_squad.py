"""SQuAD's JSON: TFDS's features, every answer in its place, and no context in two splits."""

import json
from pathlib import Path

import pytest
from helpers.importing_cases import bring, examples, real, refusal, write

CONTEXT = "Zürich 🚋 is larger than Bern; Bern is the capital."


def squad(*questions: dict, context: str = CONTEXT, title: str = "Swiss") -> dict:
    return {"data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(key: str, *answers: tuple[str, int], **more) -> dict:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": key, "question": f"What is {key}?", "answers": given} | more


def save(path: Path, content: object) -> Path:
    return write(path, json.dumps(content, indent=1))


def xquad(split: str) -> tuple[dict, list[dict]]:
    """XQuAD as a file of SQuAD's format, and as TFDS reads it."""
    articles: dict[str, dict[str, list]] = {}
    rows = []
    for e in real("xquad_en").as_data_source(split):
        row = {key: e[key].decode() for key in ("id", "title", "context", "question")}
        texts, starts = e["answers"]["text"], e["answers"]["answer_start"]
        row["answers"] = {"text": [t.decode() for t in texts], "answer_start": [int(s) for s in starts]}
        rows.append(row)
        qas = articles.setdefault(row["title"], {}).setdefault(row["context"], [])
        answers = list(zip(row["answers"]["text"], row["answers"]["answer_start"]))
        qas.append(question(row["id"], *answers) | {"question": row["question"]})
    data = [
        {
            "title": title,
            "paragraphs": [{"context": context, "qas": qas} for context, qas in contexts.items()],
        }
        for title, contexts in articles.items()
    ]
    return {"version": "1.1", "data": data}, rows


def test_xquad_as_files_comes_back_with_tfdss_features(tmp_path):
    written = {}
    for split, name in (("train", "train-v1.1.json"), ("validation", "dev-v1.1.json")):
        content, written[split] = xquad(split)
        save(tmp_path / "files" / name, content)
    made = bring(tmp_path / "files", tmp_path, "squad")
    assert made.splits == {split: len(rows) for split, rows in written.items()}
    for split, rows in written.items():
        by_id = {row["id"]: row for row in examples(made, split)}
        assert by_id == {row["id"]: row for row in rows}
    theirs = Path(real("xquad_en").data_dir) / "features.json"
    ours = made.folder / "features.json"
    assert json.loads(ours.read_text()) == json.loads(theirs.read_text())


@pytest.mark.parametrize("titles", ["many", "one"])
def test_no_context_is_in_two_splits(tmp_path, titles):
    content, rows = xquad("train")
    if titles == "one":
        content["data"] = [{"paragraphs": [p for article in content["data"] for p in article["paragraphs"]]}]
    else:  # a context of the first article stands in the last one, too
        again = json.loads(json.dumps(content["data"][0]["paragraphs"][0]))
        again["qas"] = [item | {"id": f"again {item['id']}"} for item in again["qas"]]
        content["data"][-1]["paragraphs"].append(again)
    made = bring(save(tmp_path / "all.json", content), tmp_path, "squad")
    train, test = examples(made, "train"), examples(made, "test")
    assert len(train) + len(test) >= len(rows)
    assert not {e["context"] for e in train} & {e["context"] for e in test}
    if titles == "many":
        # Of two titles above one context, the first counts.
        shared = content["data"][-1]["title"]
        assert not {e["title"] for e in train} & {e["title"] for e in test} - {shared}
    assert 0.15 < len(test) / (len(train) + len(test)) < 0.25


def test_version_2_has_questions_without_answers(tmp_path):
    content = squad(question("a", ("Bern", 24)), question("b", is_impossible=True, plausible_answers=[]))
    made = bring(save(tmp_path / "a.json", content), tmp_path, "squad", test_share=0)
    assert [(e["is_impossible"], e["answers"]) for e in examples(made, "train")] == [
        (False, {"text": ["Bern"], "answer_start": [24]}),
        (True, {"text": [], "answer_start": []}),
    ]
    assert "is_impossible" in made.features


def test_questions_without_answers_can_be_left_out(tmp_path):
    content = squad(question("a", ("Bern", 24)), question("b", is_impossible=True, plausible_answers=[]))
    path = save(tmp_path / "a.json", content)
    made = bring(path, tmp_path, "squad", test_share=0, answerable=True)
    assert [(e["id"], e["answers"]["text"]) for e in examples(made, "train")] == [("a", ["Bern"])]
    assert made.notes == ["left out: 1 question without an answer"]
    assert made.features == ["id", "title", "context", "question", "answers"]
    wrong = save(tmp_path / "b.json", squad(question("a", ("Bern", 24)), question("b")))
    said = refusal(wrong, tmp_path / "other", "squad", answerable=True)
    assert "question 'b': has no answers, and is not marked is_impossible" in said


@pytest.mark.parametrize("value", ["0", "false", "False", 0, None])
def test_what_is_not_impossible_needs_answers(tmp_path, value):
    path = save(tmp_path / "a.json", squad(question("a", ("Bern", 24), is_impossible=value)))
    made = bring(path, tmp_path, "squad", test_share=0)
    assert [e.get("is_impossible", False) for e in examples(made, "train")] == [False]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("Bern", 23), "question 'b': answer 'Bern' is not at character 23 of its context, but at 24"),
        (("Bern", 29), "answer 'Bern' is not at character 29 of its context, but at 30"),
        (("Bern", -20), "answer 'Bern' is not at character -20 of its context, but at 24"),
        (("Basel", 25), "answer 'Basel' is nowhere in its context"),
        (("", 25), "an answer is empty"),
        (("Bern", "25"), "answer 'Bern' needs 'answer_start', a whole number"),
    ],
)
def test_answers_in_other_places_are_named_or_left_out(tmp_path, answer, words):
    good = ("Bern", CONTEXT.encode("utf-32-le").index("Bern".encode("utf-32-le")) // 4)
    content = squad(question("a", good), question("b", answer, good), question("c", answer))
    path = save(tmp_path / "a.json", content)
    text = refusal(path, tmp_path, "squad")
    assert words in text
    line = next(n for n, row in enumerate(path.read_text().splitlines(), 1) if '"id": "b"' in row)
    assert f"a.json, line {line}: question 'b'" in text
    made = bring(path, tmp_path, "squad", skip_broken=True, test_share=0)
    kept = {e["id"]: e["answers"]["text"] for e in examples(made, "train")}
    assert kept == {"a": ["Bern"], "b": ["Bern"]}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (question("b"), "question 'b': has no answers, and is not marked is_impossible"),
        (question("b", ("Bern", 24), is_impossible=True), "is_impossible, but there are answers"),
        (question("b", ("Bern", 24), is_impossible="no"), "is_impossible is 'no'; expected true or false"),
        (question("b", ("Bern", 24)) | {"question": " "}, "its question is empty"),
        (question("b", ("Bern", 24)) | {"question": "\ud83d"}, "question holds half of a surrogate pair"),
        (question("a", ("Bern", 24)), "question 'a' is there twice"),
    ],
)
def test_questions_that_are_broken_are_named_or_left_out(tmp_path, item, words):
    path = save(tmp_path / "a.json", squad(question("a", ("Bern", 24)), item))
    assert words in refusal(path, tmp_path, "squad")
    made = bring(path, tmp_path, "squad", skip_broken=True, test_share=0)
    assert [e["id"] for e in examples(made, "train")] == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"data": [}', "a.json: not JSON (Expecting value at character 11)"),
        ('{"data":\n [}', "a.json: not JSON (Expecting value at line 2, character 3)"),
        ("[]", "a.json: the file needs 'data', a list; expected SQuAD's JSON"),
        ('{"data": [5]}', "a.json: data[0] needs 'paragraphs', a list"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "data[0].paragraphs[0] needs 'context', a text"),
        (json.dumps(squad({"question": "?"})), "data[0].paragraphs[0].qas[0] needs 'id', a text"),
        (
            json.dumps(squad(question("a") | {"answers": [{"answer_start": 1}]})),
            "data[0].paragraphs[0].qas[0].answers[0] needs 'text', a text",
        ),
        ('{"data": []}', "no examples are left"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path, content, words):
    assert words in refusal(write(tmp_path / "a.json", content), tmp_path, "squad")
