"""The parsers of inputs, tokenizers and lists of words; see fuzzed.py."""

import io
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import sentencepiece

from helpers.fuzzed_files import TEXT, WORDS, Parser, as_json, lines_of_json, text
from helpers.fuzzed_imports import image_folders
from helpers.fuzzed_runs import JSONS, loaded, run_files
from jaxformer import cli
from jaxformer.data.text.paraphrases import read_paraphrases
from jaxformer.data.text.thesaurus import load_thesaurus
from jaxformer.inference.inputs import readable
from jaxformer.inference.texts import read_given, read_lines, read_text, text_inputs

# What is given to `predict`, `generate` and `perplexity`


def predict_images(folder: Path, output: Path) -> None:
    for name in ("vit", "segmenter"):
        readable([folder], loaded(name).example, skip_broken=False)


def predict_texts(form: str) -> Callable[[Path, Path], Any]:
    def read(folder: Path, output: Path) -> None:
        given = read_given(form, [], [folder / "texts.txt"])
        if form == "text":
            text_inputs(loaded("bert"), given)

    return read


def prompts(folder: Path, output: Path) -> None:
    for prompt, _ in read_lines(str(folder / "texts.txt")):
        loaded("gpt").writer.encode(prompt)
    read_text(str(folder / "texts.txt"))


TEXTS = partial(dict, {"texts.txt": text(*WORDS)})
QUESTIONS = {"texts.txt": lines_of_json({"question": w, "context": f"{w} {w}"} for w in WORDS)}
INPUTS = {
    "predict images": Parser(
        lambda: {name.replace("/", ""): content for name, content in image_folders().items()}, predict_images
    ),
    "predict texts": Parser(TEXTS, predict_texts("text"), TEXT),
    "predict pairs": Parser(
        lambda: {"texts.txt": text(*(f"{w}\t{w}" for w in WORDS))}, predict_texts("texts"), TEXT
    ),
    "predict questions": Parser(lambda: QUESTIONS, predict_texts("question"), {".txt": "json"}),
    "prompts": Parser(lambda: {"texts.txt": text(*WORDS[:3])}, prompts, TEXT),
}


# Tokenizers, and other files that a config names


@cache
def sentencepiece_model(kind: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20), model_writer=model, vocab_size=28, model_type=kind, minloglevel=2
    )
    return model.getvalue()


def byte_level_files() -> dict[str, bytes]:
    from jaxformer.data.text.tokenizer_templates import byte_alphabet

    vocabulary = {token: n for n, token in enumerate([*byte_alphabet(), "th", "the", "<|endoftext|>"])}
    return {"vocab.json": as_json(vocabulary), "merges.txt": text("#version: 0.2", "t h", "th e")}


def wordpiece_files() -> dict[str, bytes]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(WORDS[:3]).split(), "##s", "a"]
    return {
        "vocab.txt": text(*dict.fromkeys(words)),
        "tokenizer_config.json": as_json({"do_lower_case": False}),
    }


def characters_file() -> dict[str, bytes]:
    return run_files("gpt", "tokenizer.json")


def show_tokenizer(folder: Path, output: Path) -> int:
    return cli.main(["data", "tokenizer", "show", str(folder), "--text", "the cat saw"])


def train_tokenizer(folder: Path, output: Path) -> int:
    argv = [
        "data",
        "tokenizer",
        "train",
        str(folder / "texts.txt"),
        "--kind",
        "wordpiece",
        "--vocab-size",
        "60",
    ]
    return cli.main([*argv, "--output", str(output / "tokenizer.json")])


def thesaurus(folder: Path, output: Path) -> None:
    load_thesaurus(str(folder / "words.txt"))
    load_thesaurus(str(folder / "words.jsonl"))


PARAPHRASES = [{"text": w, "paraphrases": [w, f"{w}!"]} for w in WORDS]
SYNONYMS = {
    "words.txt": text("big: large, huge", "# a note", "cat: kitty"),
    "words.jsonl": lines_of_json(
        [{"word": "big", "synonyms": ["large"]}, {"word": "cat", "synonyms": ["kitty"]}]
    ),
}
OTHERS = {
    "tokenizer.json": Parser(partial(run_files, "bert", "tokenizer.json"), show_tokenizer, JSONS),
    "byte-level tokenizer.json": Parser(characters_file, show_tokenizer, JSONS),
    "vocab.txt": Parser(wordpiece_files, show_tokenizer, TEXT),
    "vocab.json": Parser(byte_level_files, show_tokenizer, TEXT),
    "sentencepiece unigram": Parser(lambda: {"spiece.model": sentencepiece_model("unigram")}, show_tokenizer),
    "sentencepiece bpe": Parser(lambda: {"spiece.model": sentencepiece_model("bpe")}, show_tokenizer),
    "texts for a tokenizer": Parser(TEXTS, train_tokenizer, TEXT),
    "paraphrases": Parser(
        lambda: {"p.jsonl": lines_of_json(PARAPHRASES)},
        lambda folder, _: read_paraphrases(folder / "p.jsonl") and None,
        TEXT,
    ),
    "thesaurus": Parser(lambda: SYNONYMS, thesaurus, TEXT),
}
