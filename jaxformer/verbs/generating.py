"""Going on with texts, and translating them."""

import sys
from argparse import Namespace

from jaxformer.errors import UserError
from jaxformer.verbs.common import Overrides, print_json, use_compilation_cache


def generate(arguments: Namespace, overrides: Overrides) -> int:
    """Goes on with prompts, or translates them: text to the terminal as it is made, or a JSON line a prompt."""
    use_compilation_cache()
    from jaxformer.decoding.loop import StopStrings
    from jaxformer.decoding.sampling import Sampling
    from jaxformer.inference.language import CausalModel, load
    from jaxformer.inference.translate import TextToText
    from jaxformer.inference.writing import Generation
    from jaxformer.observe.logs import make_console, terminal_logging

    prompts = read_prompts(arguments)
    sampling = Sampling(
        0.0 if arguments.greedy else arguments.temperature,
        arguments.top_k,
        arguments.top_p,
        arguments.min_p,
        arguments.repetition_penalty,
    )
    sampling.check()
    StopStrings(arguments.stop, str)  # refuses an empty one
    for name in ("max_new_tokens", "beams"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected at least 1")
    if not arguments.length_penalty >= 0:
        raise UserError(f"--length-penalty {arguments.length_penalty}: expected 0 (none) or more, as in 0.6")
    how = Generation(
        arguments.max_new_tokens,
        sampling,
        tuple(arguments.stop),
        arguments.seed,
        arguments.beams,
        arguments.length_penalty,
    )
    with terminal_logging(make_console()):
        model, variables, tokenizer = load(arguments.workdir, arguments.checkpoint)
        writer = (TextToText if hasattr(model, "encode") else CausalModel)(model, variables, tokenizer)
        ids = [writer.encode(prompt) for prompt in prompts]
        if len(prompts) > 1 or how.beams > 1 or arguments.json:
            for prompt, found in zip(prompts, writer.generate(ids, how)):
                line = {"prompt": prompt, "text": found.text, "tokens": found.tokens, "ended": found.ended}
                print_json(line)
            return 0
        writer.check_prompts(ids)
        stops = StopStrings(how.stops, tokenizer.decode)
        begin, shown = "" if isinstance(writer, TextToText) else prompts[0], 0
        for _ in writer.stream(ids, how, stops):
            text = begin + stops.settled(0)
            sys.stdout.write(text[shown:])
            sys.stdout.flush()
            shown = max(shown, len(text))
        sys.stdout.write((begin + stops.text(0))[shown:] + "\n")
        if how.stops and stops.found[0] is None:
            sys.stderr.write(f"jaxformer: none of the stop strings came in {stops.length(0)} tokens\n")
    return 0


def read_prompts(arguments: Namespace) -> list[str]:
    """The prompts of --prompt, or the lines of --prompts, each as often as --samples says."""
    from jaxformer.inference.given import read_lines

    prompts = list(arguments.prompt or [])
    if arguments.prompts is not None:
        prompts += [line for line, _ in read_lines(arguments.prompts)]
    if not prompts:
        raise UserError('generate: give --prompt "TEXT" or --prompts FILE')
    if arguments.samples < 1:
        raise UserError(f"--samples {arguments.samples}: expected at least 1")
    return [prompt for prompt in prompts for _ in range(arguments.samples)]
