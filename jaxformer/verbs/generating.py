"""Going on with texts, and translating them."""

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from jaxformer.errors import UserError
from jaxformer.verbs.common import Overrides, in_flags, print_json, use_compilation_cache

if TYPE_CHECKING:
    from jaxformer.inference.writing import Generation

TEMPERATURE = 0.8
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
DRAWING = ("temperature", "top_k", "top_p", "min_p", "samples", "seed")


def generate(arguments: Namespace, overrides: Overrides) -> int:
    """Goes on with prompts, or translates them: text to the terminal as it is made, or a JSON line a prompt."""
    check_flags(arguments)
    use_compilation_cache()
    from jaxformer.decoding.loop import StopStrings
    from jaxformer.inference.given import naming
    from jaxformer.inference.language import CausalModel, load
    from jaxformer.inference.translate import TextToText
    from jaxformer.observe.logs import make_console, terminal_logging

    how = generation(arguments)
    given = read_prompts(arguments)
    prompts = [prompt for prompt, _ in given]
    with terminal_logging(make_console()):
        model, variables, tokenizer = load(arguments.workdir, arguments.checkpoint)
        writer = (TextToText if model.kind == "encoder-decoder" else CausalModel)(model, variables, tokenizer)
        ids = []
        for prompt, place in given:
            with naming(place):
                ids.append(writer.encode(prompt))
                writer.check_prompts(ids[-1:])
        begin = "" if isinstance(writer, TextToText) else prompts[0]
        if len(prompts) > 1 or arguments.json:
            for prompt, found in zip(prompts, writer.generate(ids, how)):
                line = {"prompt": prompt, "text": found.text, "tokens": found.tokens, "ended": found.ended}
                print_json(line)
            return 0
        if how.beams > 1:  # a search has no text before its end
            (found,) = writer.generate(ids, how)
            sys.stdout.write(f"{begin}{found.text}\n")
            return 0
        stops = StopStrings(how.stops, tokenizer.decode)
        shown = 0
        for _ in writer.stream(ids, how, stops):
            text = begin + stops.settled(0)
            sys.stdout.write(text[shown:])
            sys.stdout.flush()
            shown = max(shown, len(text))
        sys.stdout.write((begin + stops.text(0))[shown:] + "\n")
        if how.stops and stops.found[0] is None:
            sys.stderr.write(f"jaxformer: none of the stop strings came in {stops.length(0)} tokens\n")
    return 0


def check_flags(arguments: Namespace) -> None:
    """Raises UserError for flags of which one leaves the other nothing to do, and for values that cannot be."""
    given = {name for name, value in vars(arguments).items() if value is not None}
    searching = arguments.beams > 1
    for flag, is_there, others in (
        ("--beams", searching, ("greedy", "repetition_penalty", *DRAWING)),
        ("--greedy", arguments.greedy, DRAWING),
    ):
        for other in others:
            if is_there and other in given:
                raise UserError(f"{in_flags(other)}: has no effect with {flag}; leave one of them out")
    if "length_penalty" in given and not searching:
        raise UserError("--length-penalty: has no effect without --beams; give that, or leave this one out")
    for name in ("max_new_tokens", "beams", "samples"):
        if name in given and getattr(arguments, name) < 1:
            raise UserError(f"{in_flags(name)} {getattr(arguments, name)}: expected at least 1")
    if "length_penalty" in given and not arguments.length_penalty >= 0:
        raise UserError(f"--length-penalty {arguments.length_penalty}: expected 0 (none) or more, as in 0.6")
    if not all(arguments.stop):
        raise UserError("--stop: is empty, every text would end before its first token; leave it out")


def generation(arguments: Namespace) -> "Generation":
    """How texts are gone on with.

    Raises:
      UserError: a value cannot be.
    """
    from jaxformer.decoding.sampling import Sampling
    from jaxformer.inference.writing import Generation

    def given(*names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(arguments, name)) is not None}

    sampling = Sampling(**{"temperature": 0.0 if arguments.greedy else TEMPERATURE, **given(*SAMPLING)})
    if problems := list(sampling.problems()):
        raise UserError(*map(in_flags, problems))
    return Generation(
        arguments.max_new_tokens,
        sampling,
        tuple(arguments.stop),
        beams=arguments.beams,
        **given("seed", "length_penalty"),
    )


def read_prompts(arguments: Namespace) -> list[tuple[str, str]]:
    """The prompts of --prompt and the lines of --prompts with their places, each as often as --samples says.

    Raises:
      UserError: there is none, or the file cannot be read.
    """
    from jaxformer.inference.given import read_lines

    prompts = [(prompt, f"--prompt {number}") for number, prompt in enumerate(arguments.prompt or [], 1)]
    if arguments.prompts is not None:
        prompts += read_lines(arguments.prompts)
    if not prompts:
        raise UserError('generate: give --prompt "TEXT" or --prompts FILE')
    return [prompt for prompt in prompts for _ in range(arguments.samples or 1)]
