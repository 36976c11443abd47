"""Evaluating a run's checkpoint: on a split, or a language model on tasks in prompts and on a text."""

import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.verbs.common import Overrides, print_json, use_compilation_cache, writing_to

if TYPE_CHECKING:
    from jaxformer.inference.language import CausalModel

# What is evaluated besides a split -> the options that belong to it.
OPTIONS = {
    "fewshot": ("shots", "seed", "limit", "output"),
    "perplexity": ("stride",),
    "harness": ("shots", "seed", "limit", "output"),
}
HARNESS_SEED = 1234  # lm-evaluation-harness's own
HARNESS_KEPT = ("results", "n-shot", "versions")


def evaluate(arguments: Namespace, overrides: Overrides) -> int:
    """Evaluates a checkpoint; prints the metrics as JSON."""
    kind = next((kind for kind in OPTIONS if getattr(arguments, kind) is not None), None)
    check_options(arguments, kind)
    use_compilation_cache()
    from jaxformer.observe.logs import make_console, terminal_logging

    evaluators = {"fewshot": on_fewshot, "perplexity": on_text, "harness": on_harness}
    with terminal_logging(make_console()):
        print_json((on_split if kind is None else evaluators[kind])(arguments))
    return 0


def check_options(arguments: Namespace, kind: str | None) -> None:
    """Raises UserError for an option of another kind of evaluation."""
    for name in ("shots", "seed", "limit", "stride", "output"):
        if getattr(arguments, name) is not None and name not in OPTIONS.get(kind or "", ()):
            kinds = " and ".join(f"--{other}" for other, names in OPTIONS.items() if name in names)
            raise UserError(f"--{name}: is for {kinds}; leave it out")
    if arguments.tta is not None and kind is not None:
        raise UserError(f"--tta: is for pictures of a split, not for --{kind}; leave it out")


def on_split(arguments: Namespace) -> dict[str, Any]:
    """The metrics of a split; those of the config's own are written into the run's folder, with their tables.

    With test-time augmentation nothing is written: the report shows what training saw.
    """
    from jaxformer.evaluation.evaluator import evaluate as measure
    from jaxformer.evaluation.views import many_views
    from jaxformer.files import write_json
    from jaxformer.inference.restore import Trained
    from jaxformer.step import make_eval_step

    trained, tta = Trained(arguments.run, arguments.checkpoint, split=arguments.split), arguments.tta
    if trained.missing is not None:
        raise trained.missing
    assembly, layout = trained.assembly, trained.assembly.layout
    model: Any = assembly.model if tta is None else many_views(assembly.model, assembly.task, tta)
    eval_step = layout.eval_step(make_eval_step(model, assembly.task, axis=layout.axis))
    evaluation = measure(eval_step, trained.variables, assembly.task, assembly.eval_batches, layout)
    written = {"step": trained.step, "metrics": evaluation.metrics, **evaluation.tables}
    if arguments.split is None and tta is None:
        write_json(trained.run.evaluation, written)
    views = {} if tta is None else {"tta": tta}
    return {"step": trained.step, "split": assembly.experiment.eval.split, **views, **evaluation.metrics}


def language_model(arguments: Namespace) -> "tuple[CausalModel, int]":
    """The run's language model, and the step of its checkpoint.

    Raises:
      UserError: the run's model is another one.
    """
    from jaxformer.inference.language import CausalModel
    from jaxformer.inference.restore import TrainedText

    trained = TrainedText(arguments.run, arguments.checkpoint)
    if trained.model.kind != "decoder":
        raise UserError(
            f"{arguments.run}: holds a model ({type(trained.model).__name__}) that does not go from token to token",
            "--fewshot, --perplexity and --harness are for language models; leave them out to evaluate on a split",
        )
    return CausalModel(trained.model, trained.variables, trained.tokenizer), trained.step


def on_fewshot(arguments: Namespace) -> dict[str, Any]:
    """The metrics of a task file; its rows go to RUN/fewshot/NAME-SHOTS.jsonl."""
    from jaxformer.evaluation.fewshot import evaluate_fewshot, write_rows
    from jaxformer.evaluation.fewshot_task import read_task

    read_task(arguments.fewshot)  # what is wrong with it is said before anything is loaded
    model, step = language_model(arguments)
    shots = arguments.shots or 0
    found = evaluate_fewshot(model, arguments.fewshot, shots, arguments.seed or 0, arguments.limit)
    rows = found.pop("rows")
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in found["task"])
    output = arguments.output or arguments.run / "fewshot" / f"{name}-{shots}.jsonl"
    with writing_to(output):
        write_rows(output, rows)
    return {"step": step, **found, "rows": str(output)}


def on_text(arguments: Namespace) -> dict[str, Any]:
    """Perplexity and bits per byte of a text file.

    Raises:
      UserError: it is empty, or has a character that is no token; or as of `perplexity`.
    """
    from jaxformer.evaluation.perplexity import encode, perplexity
    from jaxformer.inference.given import read_text

    flag = f"--perplexity {arguments.perplexity}"
    text = read_text(arguments.perplexity)
    if not text:
        raise UserError(f"{flag}: is empty; name a file with text in it")
    model, step = language_model(arguments)
    tokens = encode(model.tokenizer, text, flag)
    found = perplexity(model, tokens, arguments.stride, len(text.encode()))
    return {"step": step, "file": arguments.perplexity, **found}


def on_harness(arguments: Namespace) -> dict[str, Any]:
    """What lm-evaluation-harness finds; its samples go to --output, a line each, if that is given."""
    from jaxformer.evaluation.harness import run_harness
    from jaxformer.files import write_atomically

    model, step = language_model(arguments)
    seed = HARNESS_SEED if arguments.seed is None else arguments.seed
    found = run_harness(model, arguments.harness, arguments.shots, arguments.limit, seed)
    if arguments.output is not None:
        samples = [{"task": task, **sample} for task, rows in found["samples"].items() for sample in rows]
        lines = (json.dumps(sample, ensure_ascii=False, default=str) + "\n" for sample in samples)
        with writing_to(arguments.output):
            write_atomically(arguments.output, "".join(lines))
    kept = {name: found[name] for name in HARNESS_KEPT if name in found}
    return {"step": step, **json.loads(json.dumps(kept, default=str))}
