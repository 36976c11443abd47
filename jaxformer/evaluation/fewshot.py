"""Few-shot evaluation of language models: demonstrations in the prompt, no gradient (Brown et al. 2020, section 2.4).

Tasks are files in the format of lm-evaluation-harness, see `fewshot_task.py`.
"""

import json
import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot_task import Example, FewShotTask, read_task
from jaxformer.files import to_json, write_atomically

if TYPE_CHECKING:
    from jaxformer.data.text.tokenizers import Tokenizer

logger = logging.getLogger("jaxformer")

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
class Prompt:
    """What a model is asked about an example."""

    context: str
    """The text before the answer: instruction, demonstrations and prompt."""
    shots: int
    """How many demonstrations are in it."""
    requests: list[tuple[np.ndarray, np.ndarray]]
    """Token ids, int32, (context, continuation) for each choice."""
    unconditional: list[tuple[np.ndarray, np.ndarray]]
    """The same after the task's `answer_context`; empty without one."""

    @property
    def longest(self) -> int:
        """The tokens that the longest request takes of the model's context: all but its last."""
        return max(len(before) + len(after) - 1 for before, after in self.requests + self.unconditional)


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
    if shots < 0:
        raise UserError(f"shots={shots}: expected 0 or more")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: expected at least 1, or none at all")
    tests = task.tests[:limit]
    prompts = [
        make_prompt(task, example, task.demonstrations(index, shots, seed), model)
        for index, example in enumerate(tests)
    ]
    dropped = [shots - prompt.shots for prompt in prompts]
    if any(dropped):
        logger.warning(
            "%s: %d of %d prompts are too long for %d tokens and lost demonstrations, %d in all",
            task.where, np.count_nonzero(dropped), len(tests), model.context_length, sum(dropped),
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
    task: FewShotTask, example: Example, demonstrations: list[Example], model: LanguageModel
) -> Prompt:
    """The prompt with as many of the demonstrations, the last ones, as fit.

    Raises:
      UserError: it does not fit even without any, or has a character that the tokenizer lacks; names the line.
    """
    where = example.doc.where

    def encode(context: str) -> list[tuple[np.ndarray, np.ndarray]]:
        try:
            pairs = [encode_pair(model.tokenizer, context, task.scored(context, c)) for c in example.choices]
        except UserError as error:
            task.name_culprit([example, *demonstrations], model.tokenizer)
            raise UserError(f"{where}: {error.lines[0]}", *error.lines[1:]) from error
        if not all(continuation for _, continuation in pairs):
            raise UserError(f"{where}: the tokenizer makes no token of an answer; change it")
        return [(np.array(before, np.int32), np.array(after, np.int32)) for before, after in pairs]

    answer_context = task.config.answer_context
    unconditional = [] if answer_context is None else encode(answer_context)

    def without(dropped: int) -> Prompt:
        context = task.context(demonstrations[dropped:], example.prompt)
        return Prompt(context, len(demonstrations) - dropped, encode(context), unconditional)

    def fits(dropped: int) -> bool:
        return without(dropped).longest <= model.context_length

    fewest = 0 if fits(0) else bisect_left(range(len(demonstrations) + 1), True, lo=1, key=fits)
    if fewest > len(demonstrations):
        raise UserError(
            f"{where}: even without demonstrations the example takes {without(len(demonstrations)).longest} tokens, "
            f"and the model sees {model.context_length}; shorten it or leave it out"
        )
    return without(fewest)


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
    answers = iter(zip(requests, model.log_likelihoods(requests), strict=True))
    for example, prompt in zip(examples, prompts):
        given = [next(answers)[1] for _ in prompt.requests]
        likelihoods = np.array([likelihood for likelihood, _ in given])
        prior = np.array([next(answers)[1][0] for _ in prompt.unconditional])
        if np.isnan(likelihoods).any() or np.isnan(prior).any():
            raise UserError(f"{example.doc.where}: the log-likelihood is NaN; try another checkpoint")
        row = {"line": example.doc.line, "context": prompt.context, "shots": prompt.shots}
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
        # An impossible choice stays so, however unlikely it is in general.
        with np.errstate(invalid="ignore"):
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
