"""Few-shot evaluation of language models: demonstrations in the prompt, no gradient (Brown et al. 2020, section 2.4).

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
import logging
import string
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxformer.errors import UserError
from jaxformer.files import to_json, write_atomically
from jaxformer.schema import did_you_mean

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

logger = logging.getLogger("jaxformer")

METRICS = ("multiple_choice", "cloze")
HEADER = {"task", "metric", "instruction", "template", "delimiter", "answer_context"}
BLANK_LINE = "\n\n"
CHUNK = 256  # examples whose requests a model gets at a time

Pair = tuple[list[int], list[int]]


class LanguageModel(Protocol):
    """What evaluation needs of a causal language model.

    A context is never empty; together with its continuation it has at most `context_length` + 1 tokens, since the last
    one is predicted but not seen. The answers come in the order of the requests; a model batches them as it likes.
    """

    @property
    def context_length(self) -> int:
        """How many tokens the model sees at once."""

    @property
    def tokenizer(self) -> "Tokenizer":
        """Turns text into the model's token ids."""

    def log_likelihoods(self, requests: Sequence[Pair]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log p(continuation | context) in nats, and whether it is the greedy one."""

    def token_log_likelihoods(self, windows: Sequence[Pair]) -> list[np.ndarray]:
        """For each (context, continuation): log p of each of the continuation's tokens, float [len(continuation)]."""

    def generate_until(
        self, prompts: Sequence[list[int]], stops: Sequence[str], max_new_tokens: int
    ) -> list[str]:
        """The text that greedy decoding gives after each prompt, before the first of `stops` or the end of text.

        A prompt and its `max_new_tokens` have at most `context_length` tokens.
        """


@dataclass(frozen=True)
class Example:
    """A line of a task file.

    Attributes:
      line: its number, from 1.
      prompt: the template, filled in.
      choices: the answers to choose from; in a cloze task, the only one.
      answer: which of them is right.
    """

    line: int
    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class FewShotTask:
    """A task file; see this module's docstring.

    Attributes:
      path: the file.
      name: what its header calls it; else the file's stem.
      metric: one of METRICS.
      instruction: stands before the demonstrations; may be empty.
      delimiter: stands between a prompt and its answer.
      answer_context: what choices are normalised by, or None.
      tests: the examples of split "test".
      demos: the examples of split "demo"; if there are none, demonstrations come from `tests`.
    """

    path: Path
    name: str
    metric: str
    instruction: str
    delimiter: str
    answer_context: str | None
    tests: tuple[Example, ...]
    demos: tuple[Example, ...]

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


@dataclass(frozen=True)
class Prompt:
    """What a model is asked about an example.

    Attributes:
      context: the text before the answer: instruction, demonstrations and prompt.
      shots: how many demonstrations are in it.
      requests: token ids, int32, (context, continuation) for each choice.
      unconditional: the same after the task's `answer_context`; empty without one.
    """

    context: str
    shots: int
    requests: list[tuple[np.ndarray, np.ndarray]]
    unconditional: list[tuple[np.ndarray, np.ndarray]]

    @property
    def longest(self) -> int:
        """The tokens that the longest request takes of the model's context: all but its last."""
        return max(len(before) + len(after) - 1 for before, after in self.requests + self.unconditional)


def evaluate_fewshot(
    model: LanguageModel, task_file: str | Path, shots: int, seed: int, limit: int | None = None
) -> dict[str, Any]:
    """Evaluates a model on a task file with `shots` demonstrations in each prompt.

    Where a prompt is longer than the model's context, demonstrations are left out, the first ones first. Nothing is
    asked of the model before every example is known to fit.

    Args:
      limit: evaluate only the first examples of split "test", so many.

    Returns:
      task, metric, shots, seed, examples (how many), dropped_demonstrations (over all examples),
      shortened_examples (how many lost some), metrics (each with NAME_stderr, the standard error of the mean, NaN for
      one example) and rows, one dict an example (see `write_rows`). Metrics of a multiple choice are accuracies, by
      what the choice is taken that has the highest:
        accuracy: log-likelihood; accuracy_per_token, _per_character, _per_byte: the same over the choice's length (the
        last two are lm-evaluation-harness's acc_norm and acc_bytes: without the delimiter);
        accuracy_over_answer_context: p(choice | context) / p(choice | answer_context), if the task has one.
      Of a cloze: accuracy (greedy decoding gives the answer) and log_likelihood (of the answer, in nats).

    Raises:
      UserError: the file or an argument is wrong, an example does not fit even alone, or a log-likelihood is NaN.
    """
    if shots < 0:
        raise UserError(f"shots {shots}: expected 0 or more")
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit}: expected at least 1, or none at all")
    task = read_task(Path(task_file))
    tests = task.tests[:limit]
    prompts = [
        make_prompt(task, example, task.demonstrations(index, shots, seed), model)
        for index, example in enumerate(tests)
    ]
    dropped = [shots - prompt.shots for prompt in prompts]
    if any(dropped):
        logger.warning(
            "%s: %d of %d prompts are too long for %d tokens and lost demonstrations, %d in all",
            task.path, np.count_nonzero(dropped), len(tests), model.context_length, sum(dropped),
        )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for first in range(0, len(tests), CHUNK):
        rows += ask(model, task, tests[first : first + CHUNK], prompts[first : first + CHUNK])
    return {
        "task": task.name,
        "metric": task.metric,
        "shots": shots,
        "seed": seed,
        "examples": len(tests),
        "dropped_demonstrations": sum(dropped),
        "shortened_examples": int(np.count_nonzero(dropped)),
        "metrics": summarize(rows),
        "rows": rows,
    }


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows as JSON lines, atomically."""
    lines = (json.dumps(to_json(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomically(path, "".join(lines))


# Prompts.


def make_prompt(
    task: FewShotTask, example: Example, demonstrations: Sequence[Example], model: LanguageModel
) -> Prompt:
    """The prompt with as many of the demonstrations, the last ones, as fit.

    Raises:
      UserError: it does not fit even without any.
    """
    tokenizer, available = model.tokenizer, len(demonstrations)
    where = f"{task.path}, line {example.line}"

    def encode(context: str) -> list[tuple[np.ndarray, np.ndarray]]:
        pairs = [encode_pair(tokenizer, context, task.continuation(context, c)) for c in example.choices]
        if not all(continuation for _, continuation in pairs):
            raise UserError(f"{where}: the tokenizer makes no token of an answer; change it")
        return [(np.array(before, np.int32), np.array(after, np.int32)) for before, after in pairs]

    unconditional = [] if task.answer_context is None else encode(task.answer_context)

    def without(dropped: int) -> Prompt:
        solved = [task.solved(demonstration) for demonstration in demonstrations[dropped:]]
        context = BLANK_LINE.join([*filter(None, [task.instruction]), *solved, example.prompt])
        return Prompt(context, available - dropped, encode(context), unconditional)

    def fits(dropped: int) -> bool:
        return without(dropped).longest <= model.context_length

    dropped = 0 if fits(0) else bisect_left(range(available + 1), True, lo=1, key=fits)
    if dropped > available:
        raise UserError(
            f"{where}: even without demonstrations the example takes {without(available).longest} tokens, "
            f"and the model sees {model.context_length}; shorten it or leave it out"
        )
    return without(dropped)


def encode_pair(tokenizer: "Tokenizer", context: str, continuation: str) -> Pair:
    """Token ids of a context, never empty, and of what follows it, as one text is tokenised.

    They are encoded together and then parted, so that tokens are those the model would see in running text; white
    space at the context's end goes to the continuation, since tokenizers join it to the next word. (So does
    lm-evaluation-harness.) A token across the border belongs to the continuation.

    Raises:
      UserError: there is nothing to condition on: no context, and no token that begins a text.
    """
    bare = context.rstrip()
    whole = tokenizer.encode(context + continuation, special=False)
    head = tokenizer.encode(bare, special=False) if bare else []
    shared = next((i for i, (a, b) in enumerate(zip(head, whole)) if a != b), min(len(head), len(whole)))
    front = start_ids(tokenizer, alone=shared == 0)
    if not front and shared == 0:
        raise UserError("a first token cannot be scored: the tokenizer has no bos or eos; give a context")
    return front + whole[:shared], whole[shared:]


def start_ids(tokenizer: "Tokenizer", alone: bool) -> list[int]:
    """What stands before a text: bos, if the tokenizer has one apart from eos; else eos, but only if it stands `alone`.

    (GPT-2's <|endoftext|> parts documents, and prompts are given without it; Llama's <s> begins every text.)
    """
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    if bos is not None and (bos != eos or alone):
        return [bos]
    return [eos] if alone and eos is not None else []


# Scores.


def ask(
    model: LanguageModel, task: FewShotTask, examples: Sequence[Example], prompts: Sequence[Prompt]
) -> Iterator[dict[str, Any]]:
    """Asks the model about some examples, and yields a row for each."""
    arrays = [pair for prompt in prompts for pair in prompt.requests + prompt.unconditional]
    requests = [(context.tolist(), continuation.tolist()) for context, continuation in arrays]
    answers = model.log_likelihoods(requests)
    if len(answers) != len(requests):
        raise ValueError(f"the model gave {len(answers)} answers to {len(requests)} requests")
    remaining = iter(answers)
    for example, prompt in zip(examples, prompts):
        given = [next(remaining) for _ in prompt.requests]
        prior = np.array([next(remaining)[0] for _ in prompt.unconditional])
        likelihoods = np.array([likelihood for likelihood, _ in given])
        if np.isnan(likelihoods).any() or np.isnan(prior).any():
            raise UserError(
                f"{task.path}, line {example.line}: the log-likelihood is NaN; try another checkpoint"
            )
        row = {"line": example.line, "context": prompt.context, "shots": prompt.shots}
        if task.metric == "cloze":
            measured = {"accuracy": float(given[0][1]), "log_likelihood": float(likelihoods[0])}
            yield {**row, "answer": example.choices[0], "metrics": measured}
            continue
        lengths = [len(continuation) for _, continuation in prompt.requests]
        scores = choice_scores(likelihoods, lengths, example.choices, prior)
        predictions = {name: int(np.argmax(score)) for name, score in scores.items()}
        yield {
            **row,
            "choices": list(example.choices),
            "answer": example.answer,
            "log_likelihoods": likelihoods.tolist(),
            "predictions": predictions,
            "metrics": {name: float(choice == example.answer) for name, choice in predictions.items()},
        }


def choice_scores(
    likelihoods: np.ndarray, tokens: Sequence[int], choices: Sequence[str], prior: np.ndarray
) -> dict[str, np.ndarray]:
    """What choices are compared by: float [choices] for each accuracy.

    Args:
      likelihoods: log p(choice | context), float [choices].
      tokens: the choices' lengths in tokens.
      prior: log p(choice | answer_context), float [choices]; empty if there is no such context.
    """
    scores = {
        "accuracy": likelihoods,
        "accuracy_per_token": likelihoods / np.array(tokens),
        "accuracy_per_character": likelihoods / np.array([len(choice) for choice in choices]),
        "accuracy_per_byte": likelihoods / np.array([len(choice.encode()) for choice in choices]),
    }
    if len(prior):
        with np.errstate(
            invalid="ignore"
        ):  # an impossible choice stays so, however unlikely it is in general
            ratio = np.where(np.isneginf(likelihoods), -np.inf, likelihoods - prior)
        scores["accuracy_over_answer_context"] = ratio
    return scores


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Each metric's mean over the rows, and the standard error of that mean (from the sample variance)."""
    summary = {}
    for name in rows[0]["metrics"]:
        values = np.array([row["metrics"][name] for row in rows], np.float64)
        enough = len(values) > 1 and bool(np.isfinite(values).all())
        summary[name] = float(values.mean())
        summary[f"{name}_stderr"] = float(values.std(ddof=1) / np.sqrt(len(values))) if enough else np.nan
    return summary


# Task files.


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
