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
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError
from jaxformer.evaluation.fewshot import check_numbers
from jaxformer.evaluation.likelihood import LanguageModel, encode_pair, log_likelihood, start_ids, with_start

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
    check_numbers(shots, limit)
    if not tasks:
        raise UserError("no tasks for lm-evaluation-harness; name some, or YAML files")
    adapter = harness_model(model)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    files = [task for task in tasks if task.endswith((".yaml", ".yml"))]
    named = [task for task in tasks if task not in files]
    manager = TaskManager(include_defaults=bool(named))
    for task in named:
        if task not in manager.all_tasks:
            near = difflib.get_close_matches(task, manager.all_tasks, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "`lm_eval ls tasks` lists them"
            raise UserError(f"{task}: lm-evaluation-harness has no such task; {remedy}")
    for path in files:
        try_task_file(path, manager)
    settings = {"num_fewshot": shots, "limit": limit, "fewshot_random_seed": seed}
    try:
        return simple_evaluate(model=adapter, tasks=list(tasks), task_manager=manager, **settings)
    except (FileNotFoundError, ConnectionError) as error:
        missing = f"a task's data are not there ({error})"
        raise UserError(f"lm-evaluation-harness: {missing}; use a task file") from error


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
        remedy = "paths are relative to the folder that the program runs in"
        raise UserError(f"{path}: its data are not there ({error}); {remedy}") from error
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: lm-evaluation-harness cannot load this task ({what}); mend it") from error


def harness_model(model: LanguageModel) -> Any:
    """The model as an instance of `lm_eval.api.model.LM`, to be given to `lm_eval.simple_evaluate`.

    Raises:
      UserError: lm_eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ModuleNotFoundError as error:
        remedy = 'pip install "jaxformer[eval]"'
        raise UserError(f"lm-evaluation-harness cannot be imported ({error}); {remedy}") from error
    return type("JaxformerLM", (Requests, LM), {})(model)


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
        asked, length = [pair for pair in pairs if pair[1]], self.model.context_length
        rooms = [length + 1 - len(continuation) for _, continuation in asked]
        if min(rooms, default=1) < 1:
            longest = f"a continuation of {length + 1 - min(rooms)} tokens, and the model sees {length}"
            raise UserError(f"lm-evaluation-harness asks for {longest}; take another task")
        kept = self.last([context for context, _ in asked], rooms, "requests")
        shortened = [(context, continuation) for context, (_, continuation) in zip(kept, asked)]
        answers = iter(self.model.log_likelihoods(shortened))
        return [next(answers) if continuation else (0.0, True) for _, continuation in pairs]

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
        results: dict[int, str] = {}
        length = self.model.context_length
        for (stops, wanted), indices in groups.items():
            new_tokens = wanted if wanted < length else length // 2
            if new_tokens < wanted:
                message = "generations end after %d tokens, not %d: the model sees %d"
                logger.warning(message, new_tokens, wanted, length)
            whole = [self.prompt_ids(requests[index].args[0]) for index in indices]
            prompts = self.last(whole, [length - new_tokens] * len(whole), "prompts")
            results.update(zip(indices, self.model.generate_until(prompts, stops, new_tokens)))
        return [results[index] for index in range(len(requests))]

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of a prompt, never empty."""
        tokens = self.model.tokenizer.encode(text, special=False)
        prompt = start_ids(self.model.tokenizer, alone=not tokens) + tokens
        if not prompt:
            raise UserError("lm-evaluation-harness gives an empty prompt; the tokenizer has no bos or eos")
        return prompt

    def last(self, contexts: Sequence[list[int]], rooms: Sequence[int], what: str) -> list[list[int]]:
        """The last tokens of each context, as many as it has room for; logs how many contexts lost some."""
        shortened = sum(len(context) > room for context, room in zip(contexts, rooms))
        if shortened:
            message = "%d of %d %s lost their beginning: the model sees %d tokens"
            logger.warning(message, shortened, len(contexts), what, self.model.context_length)
        return [context[-room:] for context, room in zip(contexts, rooms)]


def generation(settings: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """The stops, and the most new tokens, of a task's generation_kwargs.

    Raises:
      UserError: they ask for something else than greedy decoding.
    """
    sampled = settings.get("do_sample", False) and settings.get("temperature", 1.0) > 0
    if sampled or settings.get("num_beams", 1) > 1:
        raise UserError(f"generation_kwargs {settings}: only greedy decoding is done; set do_sample: false")
    until = settings.get("until") or []
    stops = (until,) if isinstance(until, str) else tuple(until)
    return stops, int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
