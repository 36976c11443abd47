"""Tasks of few-shot evaluation: questions with their answers, in the format of lm-evaluation-harness.

A task is a YAML file, and its questions are JSON lines beside it:

    task: capitals
    dataset_path: json
    dataset_kwargs: {data_files: {test: capitals.jsonl, demos: more.jsonl}}     # relative to where the program runs
    output_type: multiple_choice     # or loglikelihood: greedy decoding has to give the target
    test_split: test
    fewshot_split: demos
    num_fewshot: 2
    description: "Answer the questions.\\n\\n"
    doc_to_text: "Q: {{question}}\\nA:"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{answer}}"

Why the harness does not do it itself: it is an extra that most installations lack, and its demonstrations depend on
the examples before. What it does to a file of the keys of `TaskConfig` is done here too, with the same figures;
`harness.py` hands it everything else. `from_json_lines` converts the files that were read before there was YAML.
"""

import ast
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import jinja2
import numpy as np
import yaml

from jaxformer.config.fields import Constraint, NonNegativeInt
from jaxformer.config.schema import resolve
from jaxformer.errors import UserError
from jaxformer.files import numbered_objects, read_text

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

T = TypeVar("T")
JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
PLAIN = r"([^{}]|\{\{|\}\}|\{[^\W\d]\w*\})*"  # a template for str.format with nothing but names in its braces


@dataclass(frozen=True)
class DatasetKwargs:
    """Where the questions are."""

    data_files: Mapping[str, str | tuple[str, ...]]
    """Split -> a file of JSON lines, or a list of them; relative to the folder that the program runs in."""


@dataclass(frozen=True)
class TaskConfig:
    """The keys of a YAML file that are read, with the harness's defaults; see its docs/new_task_guide.md."""

    output_type: Literal["multiple_choice", "loglikelihood"]
    doc_to_text: Any
    doc_to_target: Any
    dataset_kwargs: DatasetKwargs = field(default_factory=lambda: DatasetKwargs({}))
    doc_to_choice: Any = None
    task: str | None = None
    dataset_path: Literal["json"] = "json"
    test_split: str | None = None
    validation_split: str | None = None
    training_split: str | None = None
    fewshot_split: str | None = None
    num_fewshot: NonNegativeInt | None = None
    description: Annotated[str, Constraint("text, no template", lambda text: "{{" not in text)] = ""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    metric_list: Any = None
    """The metrics of the harness; here all are computed."""
    metadata: Any = None
    tag: Any = None
    answer_context: str | None = None
    """A context in which choices are scored once more, to divide by: a key of ours."""


@dataclass(frozen=True)
class Header:
    """The first line of a task of JSON lines."""

    task: str
    metric: Literal["multiple_choice", "cloze"] | None = None
    instruction: str = ""
    template: Annotated[
        str,
        Constraint(
            "plain names in braces, such as {question}, and {{ for a brace",
            lambda template: re.fullmatch(PLAIN, template) is not None,
        ),
    ] = "{prompt}"
    delimiter: str = " "
    answer_context: str | None = None


@dataclass(frozen=True)
class Doc:
    """A line of a file of questions."""

    path: Path
    """The file."""
    line: int
    """The line's number, from 1."""
    values: dict[str, Any]
    """The line's JSON object."""

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}, line {self.line}"


@dataclass(frozen=True)
class Example:
    """A question with its answer."""

    doc: Doc
    """What it is made of."""
    prompt: str
    """The question, as the model reads it."""
    choices: tuple[str, ...]
    """The answers to choose from; in a cloze task, the only one."""
    answer: int
    """Which of them is right."""


@dataclass(frozen=True)
class FewShotTask:
    """A task file; see this module's docstring."""

    where: str
    """The file, with the line where it has a header, for messages."""
    name: str
    """What the file calls the task; else the file's stem."""
    config: TaskConfig
    """What it says."""
    always_delimited: bool
    """Whether the delimiter also stands where there is white space already, as the harness has it."""
    tests: tuple[Example, ...]
    """The examples that are asked."""
    demos: tuple[Example, ...]
    """The examples that demonstrations come from; if there are none, they come from `tests`."""

    @property
    def metric(self) -> str:
        """What is measured: "multiple_choice" or "cloze"."""
        return "cloze" if self.config.output_type == "loglikelihood" else "multiple_choice"

    def demonstrations(self, index: int, shots: int, seed: int) -> list[Example]:
        """The demonstrations for test example `index`: a pure function of the arguments, never the example itself.

        Fewer shots are the first of more.

        Raises:
          UserError: there are not as many.
        """
        available = len(self.demos) or len(self.tests) - 1
        if shots > available:
            kind = "among the demonstrations" if self.demos else "besides the one that is asked"
            raise UserError(
                f"{self.where}: {shots} shots need as many examples {kind}; there are {available}"
            )
        rng = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, 0, index]))
        drawn = rng.permutation(available)[:shots]
        if self.demos:
            return [self.demos[place] for place in drawn]
        return [self.tests[place + (place >= index)] for place in drawn]

    def continuation(self, context: str, answer: str) -> str:
        """The answer as it follows a context: after the delimiter, unless there is white space already."""
        spaced = context == "" or context[-1].isspace() or answer[0].isspace()
        return answer if spaced and not self.always_delimited else self.config.target_delimiter + answer

    def scored(self, context: str, answer: str) -> str:
        """The answer as the model scores it; the harness has no delimiter before the target of a "loglikelihood"."""
        return (
            answer if self.always_delimited and self.metric == "cloze" else self.continuation(context, answer)
        )

    def context(self, demonstrations: list[Example], prompt: str) -> str:
        """The text before the answer: description, demonstrations and prompt."""
        solved = [
            d.prompt + self.continuation(d.prompt, d.choices[d.answer]) + self.config.fewshot_delimiter
            for d in demonstrations
        ]
        return "".join([self.config.description, *solved, prompt])

    def name_culprit(self, examples: list[Example], tokenizer: "Tokenizer") -> None:
        """Raises UserError that names the line, if one of the examples, or the task's own texts, cannot be encoded."""
        lines = [(example.doc.where, [example.prompt, *example.choices]) for example in examples]
        for where, texts in [
            (
                self.where,
                [self.config.description, self.config.target_delimiter, self.config.answer_context or ""],
            ),
            *lines,
        ]:
            try:
                tokenizer.encode_batch(texts, special=False)
            except UserError as error:
                raise UserError(f"{where}: {error.lines[0]}", *error.lines[1:]) from error


def read_task(path: Path) -> FewShotTask:
    """Reads a task file.

    Raises:
      UserError: it cannot be read, or something in it is wrong; names the line.
    """
    is_yaml = path.suffix in (".yaml", ".yml")
    config, tests, demos, where = (from_yaml if is_yaml else from_json_lines)(path)
    examples = [tuple(read_example(config, doc) for doc in docs) for docs in (tests, demos)]
    return FewShotTask(where, config.task or path.stem, config, is_yaml, *examples)


def from_yaml(path: Path) -> tuple[TaskConfig, list[Doc], list[Doc], str]:
    """(config, tests, demonstrations, what messages call the file) of a YAML file.

    Raises:
      UserError: it cannot be read, or asks for what only the harness can do.
    """
    try:
        loaded = yaml.safe_load(read_text(path))
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected the keys of a task, such as doc_to_text")
    config = parsed(
        TaskConfig, loaded, str(path), "what is not read here, lm-evaluation-harness may evaluate"
    )
    tests = config.test_split or config.validation_split
    demos = config.fewshot_split or config.training_split or config.validation_split or tests
    others = [] if demos == tests else docs_of(path, config, demos)
    return config, docs_of(path, config, tests), others, str(path)


def docs_of(path: Path, config: TaskConfig, split: str | None) -> list[Doc]:
    """The lines of a split; UserError if there are none."""
    files = config.dataset_kwargs.data_files
    if split is None or split not in files:
        raise UserError(f"{path}: split {split!r} is not in data_files; there are {', '.join(files)}")
    names = files[split]
    places = [Path(name) for name in ([names] if isinstance(names, str) else names)]
    docs = [Doc(place, *line) for place in places for line in numbered_objects(place)]
    if not docs:
        raise UserError(f"{path}: split {split!r} holds no examples")
    return docs


def from_json_lines(path: Path) -> tuple[TaskConfig, list[Doc], list[Doc], str]:
    """A file of JSON lines, as we had them before there was YAML, as `from_yaml` would have it.

    The first line may be a `Header`; the others have "answer", "choices" unless it is a cloze, what the template asks
    for ("prompt" without one), and "split": "demo" if they are demonstrations.
    """
    docs = [Doc(path, number, line) for number, line in numbered_objects(path)]
    if not docs:
        raise UserError(f"{path}: holds no examples; expected a JSON object a line")
    where, first = docs[0].where, docs[0].values
    header = Header(path.stem)
    if "task" in first and "answer" not in first:
        header = parsed(Header, docs.pop(0).values, where)
    if not docs:
        raise UserError(f"{path}: holds no examples, only a header; add one JSON object a line")
    splits: dict[str, list[Doc]] = {"test": [], "demo": []}
    fields = re.findall(r"\{(\w+)\}", header.template.replace("{{", ""))
    for doc in docs:
        split = doc.values.get("split", "test")
        if split not in ("test", "demo"):
            raise UserError(f'{doc.where}: split is {split!r}, expected "test" or "demo"')
        splits[split].append(doc)
        for key in fields:
            if not isinstance(doc.values.get(key, ""), (str, int, float)):
                raise UserError(f"{doc.where}: {key!r} is {doc.values[key]!r}, expected text")
    if not splits["test"]:
        raise UserError(f'{path}: all lines are of split "demo"; leave "split" out where examples test')
    metric = header.metric or ("multiple_choice" if "choices" in docs[0].values else "cloze")
    config = TaskConfig(
        "loglikelihood" if metric == "cloze" else "multiple_choice",
        doc_to_text=header.template.format_map,
        doc_to_target="answer",
        doc_to_choice="choices",
        task=header.task,
        description=f"{header.instruction}\n\n" if header.instruction else "",
        target_delimiter=header.delimiter,
        answer_context=header.answer_context,
    )
    return config, splits["test"], splits["demo"], where


def parsed(cls: type[T], values: Mapping[str, Any], where: str, *more: str) -> T:
    """An instance of a dataclass from what a file says.

    Raises:
      UserError: a key is unknown, or a value cannot be; a line for each, then `more`.
    """
    errors: list[str] = []
    made = resolve(cls, values, "", errors)
    if errors:
        raise UserError(*(f"{where}: {error}" for error in errors), *more)
    return made


def rendered(spec: Any, doc: Doc) -> Any:
    """What a doc_to_... says of a line, as the harness has it: a key's value, or a Jinja template filled in.

    Raises:
      UserError: it cannot be; names the line.
    """
    try:
        if callable(spec):
            return spec(doc.values)
        if not isinstance(spec, str):
            return list(spec.values()) if isinstance(spec, dict) else spec
        is_key = spec in doc.values or spec.isidentifier()
        return doc.values[spec] if is_key else JINJA.from_string(spec).render(**doc.values)
    except KeyError as error:
        raise UserError(f"{doc.where}: lacks {error}; it has {', '.join(doc.values) or 'nothing'}") from error
    except jinja2.TemplateError as error:
        raise UserError(f"{doc.where}: {spec!r}: {error}; it has {', '.join(doc.values)}") from error


def read_example(config: TaskConfig, doc: Doc) -> Example:
    """The example that a task makes of a line.

    Raises:
      UserError: a key is missing, or is not what the task needs; names the line.
    """
    prompt, answer = rendered(config.doc_to_text, doc), rendered(config.doc_to_target, doc)
    if not isinstance(prompt, str) or (prompt.isdigit() and isinstance(config.doc_to_text, str)):
        raise UserError(
            f"{doc.where}: the prompt is {prompt!r}, expected text (several inputs are not read here)"
        )
    if config.output_type == "loglikelihood":
        if not isinstance(answer, str) or not answer.strip():
            raise UserError(
                f"{doc.where}: the answer is {answer!r}, expected the text that continues the prompt"
            )
        return Example(doc, prompt, (answer,), 0)
    choices = rendered(config.doc_to_choice, doc)
    if isinstance(choices, str):
        with contextlib.suppress(SyntaxError, ValueError):
            choices = ast.literal_eval(choices)
    if not isinstance(choices, list) or any(not isinstance(c, str) or not c.strip() for c in choices):
        raise UserError(f"{doc.where}: choices are {choices!r}, expected a list of texts")
    if len(choices) < 2:
        raise UserError(f"{doc.where}: expected at least 2 choices, there are {len(choices)}")
    if isinstance(answer, str):
        named, number = answer in choices, answer.isdigit()
        answer = choices.index(answer) if named else int(answer) if number else answer
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise UserError(
            f"{doc.where}: the answer is {answer!r}, expected a number from 0 to {len(choices) - 1}, or a choice"
        )
    return Example(doc, prompt, tuple(choices), answer)
