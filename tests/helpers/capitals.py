"""Questions about capitals, as files of JSON lines, and a model whose tokens are letters."""

import json

from helpers.bigram import Bigram, characters, random_table

HEADER = {
    "task": "capitals",
    "instruction": "Name them.",
    "template": "Q: {country}\nA:",
    "answer_context": "A:",
}
CITIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Malta": "Valletta", "Österreich": "Wien"}
CHOICES = list(CITIES.values())
LETTERS = sorted(set("Name them.Q: \nA" + "".join(CITIES) + "".join(CHOICES)))
EXAMPLES = [{"country": country, "choices": CHOICES, "answer": i} for i, country in enumerate(CITIES)]


def write(path, *lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def bigram(context_length=1000, seed=0):
    tokenizer = characters(["".join(LETTERS)])
    return Bigram(tokenizer, random_table(tokenizer.vocab_size, seed), context_length)
