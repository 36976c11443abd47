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

The harness does not do this itself because it is an extra that most installations lack, and because its
demonstrations depend on the examples before. What it does to a file of the keys of `TaskConfig` is done here too, with
the same figures; `harness.py` hands it everything else. `from_json_lines` reads the files that there were before YAML.
"""

import ast
import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import jinja2
import numpy as np
import yaml
from jinja2.sandbox import SandboxedEnvironment

from jaxformer.config.fields import Constraint, NonNegativeInt
from jaxformer.config.schema import resolve
from jaxformer.errors import UserError
from jaxformer.reading import numbered_objects, read_text

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

T = TypeVar("T")
MOST_ALIASES = 30  # of a YAML file
JINJA = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
# A template for str.format that has nothing but names in its braces.
PLAIN = re.compile(r"([^{}]|\{\{|\}\}|\{[^\W\d]\w*\})*")
NAMES = Constraint("plain names in braces, as {question}; {{ is a brace", lambda x: bool(PLAIN.fullmatch(x)))


@dataclass(frozen=True)
class DatasetKwargs:
    """Where the questions are."""

    data_files: Mapping[str, str | tuple[str, ...]]
    """Split -> a file of JSON lines, or a list of them; relative to the folder that the program runs in."""


@dataclass(frozen=True)
class TaskConfig:
    """The keys of a YAML file that are read, with the harness's defaults; see its docs/new_task_guide.md."""

    output_type: Literal["multiple_choice", "loglikelihood"]
    doc_to_text: Any = None
    doc_to_target: Any = None
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

    def problems(self) -> Iterator[str]:
        """Yields a line for every key that is missing."""
        needed = {"doc_to_text": "Q: {{question}}\\nA:", "doc_to_target": "{{answer}}"}
        if self.output_type == "multiple_choice":
            needed["doc_to_choice"] = "{{choices}}"
        for key, such in needed.items():
            if getattr(self, key) is None:
                yield f'{key}: missing; say what it is of each question, such as "{such}"'


@dataclass(frozen=True)
class Header:
    """The first line of a task of JSON lines."""

    task: str
    metric: Literal["multiple_choice", "cloze"] | None = None
    instruction: str = ""
    template: Annotated[str, NAMES] = "{prompt}"
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

    def mistake(self, what: str, value: Any, expected: str) -> UserError:
        """The error that says that `what` this line says is not as expected."""
        return UserError(f"{self.where}: {what} {value!r}, expected {expected}")

    def rendered(self, spec: Any) -> Any:
        """What a doc_to_... says of this line, as the harness has it: a key's value, or a Jinja template filled in.

        Raises:
          UserError: it cannot be; names the line.
        """
        there = ", ".join(self.values) or "nothing"
        try:
            if callable(spec):
                return spec(self.values)
            if not isinstance(spec, str):
                return list(spec.values()) if isinstance(spec, dict) else spec
            is_key = spec in self.values or spec.isidentifier()
            return self.values[spec] if is_key else JINJA.from_string(spec).render(**self.values)
        except KeyError as error:
            raise UserError(f"{self.where}: lacks {error}; it has {there}") from error
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{self.where}: {spec!r}: {error}; it has {there}") from error


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
    tests: tuple[Example, ...]
    """The examples that are asked."""
    demos: tuple[Example, ...]
    """The examples that demonstrations come from; if there are none, they come from `tests`."""
    always_delimited: bool = True
    """Whether the delimiter also stands where there is white space already, as the harness has it."""

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
            others = "among the demonstrations" if self.demos else "besides the one that is asked"
            need = f"{shots} shots need as many examples {others}"
            raise UserError(f"{self.where}: {need}; there are {available}")
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
        bare = self.always_delimited and self.metric == "cloze"
        return answer if bare else self.continuation(context, answer)

    def context(self, demonstrations: Sequence[Example], prompt: str) -> str:
        """The text before the answer: description, demonstrations and prompt."""
        solved = [d.prompt + self.continuation(d.prompt, d.choices[d.answer]) for d in demonstrations]
        return self.config.description + self.config.fewshot_delimiter.join([*solved, prompt])

    def culprit(self, examples: Sequence[Example], tokenizer: "Tokenizer") -> str:
        """Where a text stands that the tokenizer cannot encode: in the task's own, or in which of the examples."""
        config = self.config
        texts = {self.where: [config.description, config.target_delimiter, config.answer_context or ""]}
        for where, parts in (texts | {e.doc.where: [e.prompt, *e.choices] for e in examples}).items():
            try:
                tokenizer.encode_batch(parts, special=False)
            except UserError:
                return where
        return examples[0].doc.where


def read_task(path: Path) -> FewShotTask:
    """Reads a task file.

    Raises:
      UserError: it cannot be read, or something in it is wrong; names the line.
    """
    return from_yaml(path) if path.suffix in (".yaml", ".yml") else from_json_lines(path)


class FewAliases(yaml.SafeLoader):
    """YAML with at most MOST_ALIASES aliases: nested in each other, 30 stand for 3**10 values at most."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the tree."""
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > MOST_ALIASES:
            raise yaml.composer.ComposerError(None, None, "too many aliases", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def from_yaml(path: Path) -> FewShotTask:
    """The task of a YAML file.

    Raises:
      UserError: it cannot be read, or asks for what only the harness can do.
    """
    try:
        loaded = yaml.load(read_text(path), FewAliases)
        json.dumps(loaded, default=str, skipkeys=True)  # refuses what stands in itself
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:  # PyYAML's own
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: expected the keys of a task, such as doc_to_text")
    remedy = "what is not read here, lm-evaluation-harness may evaluate"
    config, files = parsed(TaskConfig, loaded, str(path), remedy), {}
    tests = config.test_split or config.validation_split
    demos = config.fewshot_split or config.training_split or config.validation_split or tests
    for split in {tests: None, demos: None}:
        names = config.dataset_kwargs.data_files.get(split or "")
        if names is None:
            known = ", ".join(config.dataset_kwargs.data_files)
            raise UserError(f"{path}: split {split!r} is not in data_files; there are {known}")
        places = [Path(name) for name in ([names] if isinstance(names, str) else names)]
        files[split] = [Doc(place, *line) for place in places for line in numbered_objects(place)]
        if not files[split]:
            raise UserError(f"{path}: split {split!r} holds no examples")
    others = [] if demos == tests else files[demos]
    found = examples(config, files[tests]), examples(config, others)
    return FewShotTask(str(path), config.task or path.stem, config, *found)


def from_json_lines(path: Path) -> FewShotTask:
    """The task of a file of JSON lines, as they were before there was YAML.

    The first line may be a `Header`; the others have "answer", "choices" unless it is a cloze, what the template asks
    for ("prompt" without one), and "split": "demo" if they are demonstrations.
    """
    docs = [Doc(path, number, line) for number, line in numbered_objects(path)]
    where, header = docs[0].where if docs else str(path), Header(path.stem)
    if docs and "task" in docs[0].values and "answer" not in docs[0].values:
        header = parsed(Header, docs.pop(0).values, where)
    if not docs:
        raise UserError(f"{path}: holds no examples, or only a header; expected a JSON object a line")
    splits: dict[str, list[Doc]] = {"test": [], "demo": []}
    for doc in docs:
        split = doc.values.get("split", "test")
        if split not in splits:
            raise doc.mistake("split is", split, '"test" or "demo"')
        splits[split].append(doc)
        for key in re.findall(r"\{(\w+)\}", header.template.replace("{{", "")):
            if not isinstance(doc.values.get(key, ""), (str, int, float)):
                raise doc.mistake(f"{key!r} is", doc.values[key], "text")
    if not splits["test"]:
        raise UserError(f'{path}: all lines are of split "demo"; leave "split" out where examples test')
    metric = header.metric or ("multiple_choice" if "choices" in docs[0].values else "cloze")
    config = TaskConfig(
        "loglikelihood" if metric == "cloze" else "multiple_choice",
        doc_to_text=header.template.format_map,
        doc_to_target="answer",
        doc_to_choice="choices",
        description=f"{header.instruction}\n\n" if header.instruction else "",
        target_delimiter=header.delimiter,
        answer_context=header.answer_context,
    )
    found = examples(config, splits["test"]), examples(config, splits["demo"])
    return FewShotTask(where, header.task, config, *found, always_delimited=False)


def parsed(cls: type[T], values: Mapping[str, Any], where: str, *more: str) -> T:
    """An instance of a dataclass from what a file says.

    Raises:
      UserError: a key is unknown, or a value cannot be; a line for each, then `more`.
    """
    errors: list[str] = []
    made = resolve(cls, values, "", errors)
    if errors:
        words = {"dict(...)": "keys with values", f"{cls.__name__} has no field": "there is no key"}
        lines = [
            re.sub("|".join(map(re.escape, words)), lambda said: words[said[0]], line) for line in errors
        ]
        raise UserError(*(f"{where}: {line}" for line in lines), *more)
    return made


def examples(config: TaskConfig, docs: Sequence[Doc]) -> tuple[Example, ...]:
    """The examples that a task makes of lines."""
    return tuple(read_example(config, doc) for doc in docs)


def read_example(config: TaskConfig, doc: Doc) -> Example:
    """The example that a task makes of a line.

    Raises:
      UserError: a key is missing, or is not what the task needs; names the line.
    """
    prompt, answer = doc.rendered(config.doc_to_text), doc.rendered(config.doc_to_target)
    if not isinstance(prompt, str) or (prompt.isdigit() and isinstance(config.doc_to_text, str)):
        raise doc.mistake("the prompt is", prompt, "text (several inputs are not read here)")
    if config.output_type == "loglikelihood":
        if not isinstance(answer, str) or not answer.strip():
            raise doc.mistake("the answer is", answer, "the text that continues the prompt")
        return Example(doc, prompt, (answer,), 0)
    choices = doc.rendered(config.doc_to_choice)
    if isinstance(choices, str):
        with contextlib.suppress(SyntaxError, ValueError):
            choices = ast.literal_eval(choices)
    if not isinstance(choices, list) or any(not isinstance(c, str) or not c.strip() for c in choices):
        raise doc.mistake("choices are", choices, "a list of texts")
    if len(choices) < 2:
        raise doc.mistake("choices are", choices, "at least 2")
    if answer in choices:
        answer = choices.index(answer)
    elif isinstance(answer, str) and answer.isdigit():
        answer = int(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        raise doc.mistake("the answer is", answer, f"a number from 0 to {len(choices) - 1}, or a choice")
    return Example(doc, prompt, tuple(choices), answer)
