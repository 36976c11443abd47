"""Tasks of few-shot evaluation: files of questions with their answers.

A task is a file of JSON lines. The first may be a header; all its keys but `task` may be left out:

    {"task": "capitals", "metric": "multiple_choice", "instruction": "Answer the questions.",
     "template": "Q: {question}\\nA:", "delimiter": " ", "answer_context": "Answer:"}
    {"question": "What is the capital of France?", "choices": ["Paris", "Rome"], "answer": 0, "split": "demo"}
    {"question": "What is the capital of Italy?", "choices": ["Paris", "Rome"], "answer": 1}

`template` is filled in from an example's own keys; without one it is "{prompt}". A "cloze" has no choices, and its
`answer` is the text that greedy decoding has to give. Demonstrations are drawn from the lines of split "demo"; if
there are none, from the other test lines. The answer is joined to its prompt by `delimiter`, unless there is white
space already; with `answer_context`, choices are also scored by p(choice | prompt) / p(choice | answer_context).
"""

import json
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxformer.config.schema import did_you_mean
from jaxformer.errors import UserError

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

METRICS = ("multiple_choice", "cloze")
HEADER = {"task", "metric", "instruction", "template", "delimiter", "answer_context"}


@dataclass(frozen=True)
class Example:
    """A line of a task file."""

    line: int
    """Its number, from 1."""
    prompt: str
    """The template, filled in."""
    choices: tuple[str, ...]
    """The answers to choose from; in a cloze task, the only one."""
    answer: int
    """Which of them is right."""


@dataclass(frozen=True)
class FewShotTask:
    """A task file; see this module's docstring."""

    path: Path
    """The file."""
    line: int
    """The number of its first line, which the header is, if there is one."""
    name: str
    """What its header calls it; else the file's stem."""
    metric: str
    """One of METRICS."""
    instruction: str
    """Stands before the demonstrations; may be empty."""
    delimiter: str
    """Stands between a prompt and its answer."""
    answer_context: str | None
    """What choices are normalised by, or None."""
    tests: tuple[Example, ...]
    """The examples of split "test"."""
    demos: tuple[Example, ...]
    """The examples of split "demo"; if there are none, demonstrations come from `tests`."""

    def demonstrations(self, index: int, shots: int, seed: int) -> list[Example]:
        """The demonstrations for test example `index`: a pure function of the arguments, never the example itself.

        Fewer shots are the first of more.

        Raises:
          UserError: there are not as many.
        """
        available = len(self.demos) or len(self.tests) - 1
        if shots > available:
            kind = 'of split "demo"' if self.demos else "besides the one that is asked"
            raise UserError(f"{self.path}: {shots} shots need as many examples {kind}; there are {available}")
        if shots == 0:
            return []
        rng = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, 0, index]))
        drawn = rng.permutation(available)[:shots]
        if self.demos:
            return [self.demos[place] for place in drawn]
        return [self.tests[place + (place >= index)] for place in drawn]

    def continuation(self, context: str, answer: str) -> str:
        """The answer as it follows a context: after the delimiter, unless there is white space already."""
        joined = context == "" or context[-1].isspace() or answer[0].isspace()
        return answer if joined else self.delimiter + answer

    def solved(self, example: Example) -> str:
        """An example's prompt with its answer: a demonstration."""
        return example.prompt + self.continuation(example.prompt, example.choices[example.answer])


def read_task(path: Path) -> FewShotTask:
    """Reads a task file.

    Raises:
      UserError: it cannot be read, or something in it is wrong; names the line.
    """
    lines = list(read_lines(path))
    if not lines:
        raise UserError(f"{path}: holds no examples; expected a JSON object a line")
    first_line, first = lines[0]
    header = first if "task" in first and "answer" not in first else {}
    lines = lines[bool(header) :]
    if not lines:
        raise UserError(f"{path}: holds no examples, only a header; add one JSON object a line")
    where = f"{path}, line {first_line}"
    for key, value in header.items():
        if key not in HEADER:
            raise UserError(f"{where}: unknown key {key!r} in the header; {did_you_mean(key, HEADER)}")
        if not isinstance(value, str):
            raise UserError(f"{where}: {key!r} is {value!r}, expected text")
    metric = header.get("metric", METRICS[0] if "choices" in lines[0][1] else METRICS[1])
    if metric not in METRICS:
        raise UserError(f"{where}: metric {metric!r} is unknown; {did_you_mean(metric, METRICS)}")
    template = header.get("template", "{prompt}")
    fields = template_fields(template, where)
    splits: dict[str, list[Example]] = {"test": [], "demo": []}
    for number, line in lines:
        where = f"{path}, line {number}"
        split = line.get("split", "test")
        if split not in ("test", "demo"):
            raise UserError(f'{where}: split is {split!r}, expected "test" or "demo"')
        splits[split].append(read_example(number, line, metric, template, fields, where))
    if not splits["test"]:
        raise UserError(f'{path}: all lines are of split "demo"; leave "split" out where examples test')
    return FewShotTask(
        path,
        first_line,
        header.get("task", path.stem),
        metric,
        header.get("instruction", ""),
        header.get("delimiter", " "),
        header.get("answer_context"),
        tuple(splits["test"]),
        tuple(splits["demo"]),
    )


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines with their line numbers, from 1; blank lines are passed over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {number}: is not UTF-8; save the file in that encoding") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: is not JSON ({error}); expected an object a line"
            ) from error
        if not isinstance(value, dict):
            raise UserError(f"{path}, line {number}: is {type(value).__name__}, expected a JSON object")
        yield number, value


def template_fields(template: str, where: str) -> list[str]:
    """The keys that a template such as "Q: {question}\\nA:" asks for; only plain names are allowed in braces."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{where}: template {template!r}: {error}; write {{{{ for a brace") from error
    fields = [name for _, name, _, _ in parts if name is not None]
    if any(
        not name.isidentifier() or spec or conversion
        for _, name, spec, conversion in parts
        if name is not None
    ):
        raise UserError(
            f"{where}: template {template!r}: expected plain names in braces, such as {{question}}"
        )
    return fields


def read_example(
    number: int, line: dict[str, Any], metric: str, template: str, fields: Sequence[str], where: str
) -> Example:
    """An example from its JSON object."""
    needed = [*fields, *(["choices"] if metric == "multiple_choice" else []), "answer"]
    missing = [repr(key) for key in dict.fromkeys(needed) if key not in line]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}; it has {', '.join(line) or 'nothing'}")
    for key in fields:
        if not isinstance(line[key], (str, int, float)):
            raise UserError(f"{where}: {key!r} is {line[key]!r}, expected text")
    prompt, answer = template.format_map(line), line["answer"]
    if metric == "cloze":
        if not isinstance(answer, str) or not answer.strip():
            raise UserError(f"{where}: the answer is {answer!r}, expected the text that continues the prompt")
        return Example(number, prompt, (answer,), 0)
    choices = line["choices"]
    if not isinstance(choices, list) or any(not isinstance(c, str) or not c.strip() for c in choices):
        raise UserError(f"{where}: choices are {choices!r}, expected a list of texts")
    if len(choices) < 2:
        raise UserError(f"{where}: expected at least 2 choices, there are {len(choices)}")
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise UserError(f"{where}: the answer is {answer!r}, expected a number from 0 to {len(choices) - 1}")
    return Example(number, prompt, tuple(choices), answer)


def name_culprit(task: FewShotTask, examples: Sequence[Example], tokenizer: "Tokenizer") -> None:
    """Raises UserError that names the line, if one of the examples, or the header, cannot be encoded."""
    lines = [(example.line, [example.prompt, *example.choices]) for example in examples]
    header = [task.instruction, task.delimiter, task.answer_context or ""]
    for number, texts in [(task.line, header), *lines]:
        try:
            tokenizer.encode_batch(texts, special=False)
        except UserError as error:
            raise UserError(f"{task.path}, line {number}: {error.lines[0]}", *error.lines[1:]) from error
