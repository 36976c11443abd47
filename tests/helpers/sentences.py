"""A dataset of a few sentences with the features of every dataset of text that a shipped config names."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxformer.data.writing import write_dataset

NAME = "sentences"
SENTENCES = (
    ("A brown dog runs along the sea.", "Ein brauner Hund rennt am Meer entlang."),
    ("Two children play with a red ball.", "Zwei Kinder spielen mit einem roten Ball."),
    ("An old man reads a newspaper in Berlin.", "Ein alter Mann liest in Berlin eine Zeitung."),
    ("The woman in the blue coat is waiting.", "Die Frau im blauen Mantel wartet."),
    ("Nobody liked this film, and rightly so.", "Niemand mochte diesen Film, und das zu Recht."),
    ("What a warm and clever story!", "Was f\u00fcr eine warme und kluge Geschichte!"),
)


def features() -> dict[str, Any]:
    """TFDS's description of the examples."""
    text = tfds.features.Text()
    return {
        "id": text,
        "text": text,
        "sentence": text,
        "en": text,
        "de": text,
        "label": tfds.features.ClassLabel(names=["negative", "positive"]),
        "tokens": tfds.features.Sequence(text),
        "ner": tfds.features.Sequence(tfds.features.ClassLabel(names=["O", "B-location", "I-location"])),
        "question": text,
        "context": text,
        "answers": tfds.features.Sequence({"text": text, "answer_start": tfds.features.Scalar(np.int32)}),
    }


def example(number: int) -> dict[str, Any]:
    """An example; they repeat after a while, but for their ids."""
    english, german = SENTENCES[number % len(SENTENCES)]
    words = english.split()
    return {
        "id": str(number),
        "text": " ".join(one for one, _ in SENTENCES),
        "sentence": english,
        "en": english,
        "de": german,
        "label": number % 2,
        "tokens": words,
        "ner": [int(word == "Berlin.") for word in words],
        "question": "Who is it about?",
        "context": english,
        "answers": {"text": [words[1]], "answer_start": [english.index(words[1])]},
    }


def write_sentences(data_dir: Path) -> Path:
    """Writes the dataset NAME into `data_dir`; returns `data_dir`."""
    counts = {"train": 48, "validation": 24, "test": 24}
    splits = {split: [example(i) for i in range(count)] for split, count in counts.items()}
    write_dataset(data_dir, NAME, "1.0.0", features(), splits)
    return data_dir
