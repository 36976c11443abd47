"""Few-shot evaluation of language models: demonstrations in the prompt, no gradient (Brown et al. 2020, section 2.4).

Tasks are files in the format of lm-evaluation-harness, see `fewshot_task.py`.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot_task import Example, FewShotTask, read_task
from jaxformer.evaluation.likelihood import CHUNK, LanguageModel, encode_pair
from jaxformer.files import json_line, write_atomically

logger = logging.getLogger("jaxformer")


@dataclass(frozen=True)
class Prompt:
    """What a model is asked about an example."""

    context: str
    """The text before the answer: instruction, demonstrations and prompt."""
    shots: int
    """How many demonstrations are in it."""
    pairs: list[tuple[np.ndarray, np.ndarray]]
    """Token ids, int32, (context, continuation) for each choice; with an `answer_context` in the task, all again after
    that one."""

    @property
    def longest(self) -> int:
        """The tokens that the longest pair takes of the model's context: all but its last."""
        return max(len(before) + len(after) - 1 for before, after in self.pairs)


def evaluate_fewshot(
    model: LanguageModel,
    task_file: str | Path,
    shots: int | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> dict[str, Any]:
    """Evaluates a model on a task file with `shots` demonstrations in each prompt.

    Where a prompt is longer than the model's context, demonstrations are left out, the first ones first. Nothing is
    asked of the model before every example is known to fit.

    Args:
      shots: demonstrations in a prompt; None takes what the file says, or none.
      limit: only the first examples that are tests, so many.

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
    task = read_task(Path(task_file))
    shots = task.config.num_fewshot or 0 if shots is None else shots
    check_numbers(shots, limit)
    tests = task.tests[:limit]
    drawn = (task.demonstrations(index, shots, seed) for index in range(len(tests)))
    prompts = [make_prompt(task, example, solved, model) for example, solved in zip(tests, drawn)]
    dropped = [shots - prompt.shots for prompt in prompts]
    if any(dropped):
        message = "%s: %d of %d prompts are too long for %d tokens and lost demonstrations, %d in all"
        shortened, length = np.count_nonzero(dropped), model.context_length
        logger.warning(message, task.where, shortened, len(tests), length, sum(dropped))
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
    write_atomically(path, "".join(map(json_line, rows)))


def check_numbers(shots: int | None, limit: int | None) -> None:
    """Refuses numbers of demonstrations and of examples that are out of range."""
    if shots is not None and shots < 0:
        raise UserError(f"shots={shots}: expected 0 or more, or none to leave it to the task")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: expected at least 1, or none at all")


def make_prompt(
    task: FewShotTask, example: Example, demonstrations: list[Example], model: LanguageModel
) -> Prompt:
    """The prompt with as many of the demonstrations, the last ones, as fit.

    Raises:
      UserError: it does not fit even without any, or has a character that the tokenizer lacks; names the line.
    """
    where, answer_context = example.doc.where, task.config.answer_context

    def encode(context: str) -> list[tuple[np.ndarray, np.ndarray]]:
        try:
            pairs = [encode_pair(model.tokenizer, context, task.scored(context, c)) for c in example.choices]
        except UserError as error:
            culprit = task.culprit([example, *demonstrations], model.tokenizer)
            raise UserError(f"{culprit}: {error.lines[0]}", *error.lines[1:]) from error
        if not all(continuation for _, continuation in pairs):
            raise UserError(f"{where}: the tokenizer makes no token of an answer; change it")
        return [(np.array(before, np.int32), np.array(after, np.int32)) for before, after in pairs]

    unconditional = [] if answer_context is None else encode(answer_context)

    def without(dropped: int) -> Prompt:
        context = task.context(demonstrations[dropped:], example.prompt)
        return Prompt(context, len(demonstrations) - dropped, encode(context) + unconditional)

    def fits(dropped: int) -> bool:
        return without(dropped).longest <= model.context_length

    prompt = without(0 if fits(0) else bisect_left(range(len(demonstrations)), True, key=fits))
    if prompt.longest > model.context_length:
        longest = f"{prompt.longest} tokens, and the model sees {model.context_length}"
        raise UserError(f"{where}: even without demonstrations it takes {longest}; shorten or remove it")
    return prompt


def ask(
    model: LanguageModel, task: FewShotTask, examples: Sequence[Example], prompts: Sequence[Prompt]
) -> Iterator[dict[str, Any]]:
    """Asks the model about some examples, and yields a row for each."""
    pairs = [(before.tolist(), after.tolist()) for prompt in prompts for before, after in prompt.pairs]
    answers = iter(model.log_likelihoods(pairs))
    for example, prompt in zip(examples, prompts):
        given, count = [next(answers) for _ in prompt.pairs], len(example.choices)
        values = np.array([likelihood for likelihood, _ in given])
        if np.isnan(values).any():
            raise UserError(f"{example.doc.where}: the log-likelihood is NaN; try another checkpoint")
        likelihoods, prior = values[:count], values[count:]
        row = {"line": example.doc.line, "context": prompt.context, "shots": prompt.shots}
        if task.metric == "cloze":
            measured = {"accuracy": float(given[0][1]), "log_likelihood": float(likelihoods[0])}
            yield {**row, "answer": example.choices[0], "metrics": measured}
            continue
        lengths = [len(continuation) for _, continuation in prompt.pairs[:count]]
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
        # An impossible choice stays so, however unlikely it is in general.
        with np.errstate(invalid="ignore"):
            ratio = likelihoods - prior
        scores["accuracy_over_answer_context"] = np.where(np.isneginf(likelihoods), -np.inf, ratio)
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
