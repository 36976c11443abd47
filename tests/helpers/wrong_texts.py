"""Damaged few-shot tasks, tokenizers and texts; see wrong_commands.py."""

import json
from collections.abc import Iterator

from helpers.wrong import Wrong


def bomb(levels: int) -> str:
    """YAML whose nested aliases stand for 10**levels words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + f"\ntask: *a{levels - 1}\n"


TASKS: dict[str, str | bytes] = {
    "is empty": "",
    "is a zero byte": b"\0",
    "is a list": "- 1\n",
    "is a word": "hello\n",
    "has a tab": "a:\n\t- b\n",
    "nests aliases": bomb(9),
    "holds itself": "&a [*a]\n",
    "holds itself in a mapping": "&a {b: *a, output_type: multiple_choice}\n",
    "nests 100,000 brackets": "[" * 100_000,
    "nests 10,000 mappings": "a: {" * 10_000,
    "runs a program": "!!python/object/apply:os.getcwd []\n",
    "names a type": "a: !!timestamp x\n",
    "lacks keys": "task: mine\n",
    "has an unknown key": "output_type: multiple_choice\ndoc_to_text: a\ndoc_to_target: b\nnonsense: 1\n",
    "is not UTF-8": b"a: \xff\n",
    "has a date that is none": "a: 2023-99-99\n",
    "has a number of 100,000 digits": "num_fewshot: " + "9" * 100_000 + "\n",
    "has a key that is a list": "? [1, 2]\n: 3\n",
}
TOKENIZERS: dict[str, str | bytes] = {
    "is empty": "",
    "is null": "null",
    "is a list": "[]",
    "is no tokenizer": '{"a": 1}',
    "is a pickle": b"\x80\x04K\x01.",
    "is a zip": b"PK\x03\x04",
    "nests 100,000 brackets": "[" * 100_000,
    "has a huge id": json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 1}, "unk_token": "a"},
        }
    ),
    "backtracks": json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "post_processor": None,
            "decoder": None,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a|aa)+$"},
                "behavior": "Isolated",
                "invert": False,
            },
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
        }
    ),
}


def other_files() -> Iterator[Wrong]:
    """Tasks in prompts, tokenizers, texts."""
    for what, content in TASKS.items():
        yield Wrong(
            f"fewshot: a task that {what}",
            ("fewshot", "run", "task.yaml"),
            "task.yaml",
            {"task.yaml": content},
        )
    for what, content in TOKENIZERS.items():
        text = "--text=" + "a" * 60 + "b"
        argv = ("data", "tokenizer", "show", "tokenizer.json", text)
        yield Wrong(f"tokenizer show: a file that {what}", argv, "tokenizer", {"tokenizer.json": content})
    for name in ("nowhere", "", "\0", "t" * 5000, "gs:", "folder", "text.csv"):
        argv = ("data", "tokenizer", "show", name)
        yield Wrong(f"tokenizer show: {name[:30]!r}", argv, "", {"folder/": "", "text.csv": "a,b\n"})
    for what, content in {"is empty": "", "is not UTF-8": b"\xff", "is blank": " \n"}.items():
        argv = ("data", "tokenizer", "train", "text.txt", "--kind", "bpe")
        yield Wrong(f"tokenizer train: a text that {what}", argv, "", {"text.txt": content})
