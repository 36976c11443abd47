"""EleutherAI's lm-evaluation-harness drives our language models (Gao et al. 2024; lm_eval 0.4.13).

`pip install "jaxformer[eval]"` installs it. A task is one of the harness's own, whose data come from the
Hugging Face hub, or a YAML file of yours, with data in files of yours, for which no network is needed:

    task: capitals
    dataset_path: json
    dataset_kwargs: {data_files: {test: capitals.jsonl}}     # relative to where the program runs
    output_type: multiple_choice
    test_split: test
    doc_to_text: "Q: {{question}}\\nA:"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{answer}}"
"""

import difflib
import importlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import LanguageModel, Pair, encode_pair, start_ids
from jaxformer.evaluation.perplexity import log_likelihood, with_start

logger = logging.getLogger("jaxformer")

MAX_NEW_TOKENS = 256  # of a generation whose task names no number: the harness's default


def run_harness(
    model: LanguageModel,
    tasks: Sequence[str],
    shots: int | None = None,
    limit: int | None = None,
    seed: int = 1234,
) -> dict[str, Any]:
    """Evaluates a model with the harness.

    Args:
      tasks: names of the harness's tasks, groups and tags, or paths of YAML files.
      shots: demonstrations in a prompt; None leaves that to each task. A task whose own file says 0 keeps it.
      limit: only the first examples of each task, so many.
      seed: of the demonstrations; the harness's own default is 1234.

    Returns:
      What the harness's `simple_evaluate` does: "results" by task and metric ("acc,none", "acc_stderr,none", ...),
      "samples" by task, "versions", "n-shot", "config", ...

    Raises:
      UserError: the harness is not installed; a task is unknown, or its data are not there; a task wants sampling;
        or `shots` or `limit` is out of range.
    """
    if shots is not None and shots < 0:
        raise UserError(f"shots={shots}: expected 0 or more, or none to leave it to the tasks")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: expected at least 1, or none at all")
    if not tasks:
        raise UserError("no tasks for lm-evaluation-harness; name some, or YAML files")
    adapter = harness_model(model)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    named = [task for task in tasks if not is_file_name(task)]
    manager = TaskManager(include_defaults=bool(named))
    for task in named:
        if task not in manager.all_tasks:
            near = difflib.get_close_matches(task, manager.all_tasks, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "`lm_eval ls tasks` lists them"
            raise UserError(f"{task}: lm-evaluation-harness has no such task; {remedy}")
    for task in tasks:
        if is_file_name(task):
            try_task_file(task, manager)
    try:
        return simple_evaluate(
            model=adapter,
            tasks=list(tasks),
            num_fewshot=shots,
            limit=limit,
            task_manager=manager,
            fewshot_random_seed=seed,
        )
    except (FileNotFoundError, ConnectionError) as error:
        raise UserError(
            f"lm-evaluation-harness: a task's data are not there ({error}); use a task file"
        ) from error


def is_file_name(task: str) -> bool:
    """Whether a task is given as a YAML file."""
    return task.endswith((".yaml", ".yml"))


def try_task_file(path: str, manager: Any) -> None:
    """Has the harness load a YAML file and its data.

    Raises:
      UserError: it cannot. (It raises what YAML, Jinja, the datasets library and its own constructors raise.)
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such task file")
    try:
        manager.load(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: its data are not there ({error}); paths are relative to the folder that the program runs in"
        ) from error
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path}: lm-evaluation-harness cannot load this task ({what}); mend the file"
        ) from error


def harness_model(model: LanguageModel) -> Any:
    """The model as an instance of `lm_eval.api.model.LM`, to be given to `lm_eval.simple_evaluate`.

    Raises:
      UserError: lm_eval is not installed.
    """
    try:
        base = importlib.import_module("lm_eval.api.model").LM
    except ModuleNotFoundError as error:
        raise UserError(
            f'lm-evaluation-harness cannot be imported ({error}); pip install "jaxformer[eval]"'
        ) from error
    return type("JaxformerLM", (Requests, base), {})(model)


class Requests:
    """Answers the harness's requests, objects with `args`, by asking a `LanguageModel`.

    What does not fit the model's context loses its beginning, as with the harness's own models; how many did is logged.
    """

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """For args (context, continuation): the continuation's log-likelihood, and whether it is greedy decoding's."""
        pairs = [encode_pair(self.model.tokenizer, *request.args) for request in requests]
        asked = [self.shorten(pair) for pair in pairs if pair[1]]
        self.warn("requests", [pair[0] for pair in pairs if pair[1]], [context for context, _ in asked])
        answers = iter(self.model.log_likelihoods(asked))
        return [next(answers) if continuation else (0.0, True) for _, continuation in pairs]

    def shorten(self, pair: Pair) -> Pair:
        """The pair without what does not fit of its context's beginning.

        Raises:
          UserError: the continuation alone does not fit.
        """
        context, continuation = pair
        room = self.model.context_length + 1 - len(continuation)
        if room < 1:
            raise UserError(
                f"lm-evaluation-harness asks for a continuation of {len(continuation)} tokens, "
                f"and the model sees {self.model.context_length}; take another task"
            )
        return context[-room:], continuation

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """For args (text,): the log-likelihood of the whole text, in windows that do not overlap in what they score."""
        encode, stride = self.model.tokenizer.encode, self.model.context_length
        texts = [encode(request.args[0], special=False) for request in requests]
        return [log_likelihood(self.model, with_start(self.model, text), stride) for text in texts]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """For args (prompt, {"until": [...], "max_gen_toks": N, ...}): what greedy decoding gives before a stop."""
        groups: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[generation(request.args[1])].append(index)
        results = [""] * len(requests)
        for (stops, wanted), indices in groups.items():
            length = self.model.context_length
            new_tokens = wanted if wanted < length else length // 2
            if new_tokens < wanted:
                logger.warning(
                    "generations end after %d tokens, not %d: the model sees %d", new_tokens, wanted, length
                )
            whole = [self.prompt_ids(requests[index].args[0]) for index in indices]
            prompts = [prompt[new_tokens - length :] for prompt in whole]
            self.warn("prompts", whole, prompts)
            for index, text in zip(
                indices, self.model.generate_until(prompts, stops, new_tokens), strict=True
            ):
                results[index] = text
        return results

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of a prompt, never empty."""
        tokens = self.model.tokenizer.encode(text, special=False)
        prompt = start_ids(self.model.tokenizer, alone=not tokens) + tokens
        if not prompt:
            raise UserError(
                "lm-evaluation-harness gives an empty prompt, and the tokenizer has no bos or eos token"
            )
        return prompt

    def warn(self, what: str, whole: Sequence[list[int]], kept: Sequence[list[int]]) -> None:
        """Logs how many of the contexts `whole` are shorter in `kept`."""
        shortened = sum(len(before) > len(after) for before, after in zip(whole, kept, strict=True))
        if shortened:
            length = self.model.context_length
            message = "%d of %d %s lost their beginning: the model sees %d tokens"
            logger.warning(message, shortened, len(whole), what, length)


def generation(settings: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """The stops, and the most new tokens, of a task's generation_kwargs.

    Raises:
      UserError: they ask for something else than greedy decoding.
    """
    sampled = settings.get("do_sample", False) and settings.get("temperature", 1.0) > 0
    if sampled or settings.get("num_beams", 1) > 1:
        raise UserError(
            f"generation_kwargs {settings}: only greedy decoding is evaluated; set do_sample: false"
        )
    until = settings.get("until") or []
    stops = (until,) if isinstance(until, str) else tuple(until)
    return stops, int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
