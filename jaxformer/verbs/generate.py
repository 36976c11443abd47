"""Continuing texts, translating them, and writing about pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from jaxformer.config.fields import Beams, NewTokens, NonNegativeInt, at_least, at_most, not_empty
from jaxformer.errors import UserError, counted
from jaxformer.verbs.common import note_of_prompts, print_json, print_note, print_text, working
from jaxformer.verbs.options import Named, OfRun, argument, flag

if TYPE_CHECKING:
    from jaxformer.inference.writing import Generation

TEMPERATURE, LENGTH_PENALTY = 0.8, 0.6
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
DRAWING = ("temperature", "top_k", "top_p", "min_p", "samples", "seed")
STOP = not_empty("a text, or every text would end before its first token")
NOT_SEARCHING = ("greedy", "repetition_penalty", *DRAWING)


@dataclass(frozen=True, kw_only=True)
class Generate(OfRun):
    """Go on with a text, translate it, or write about a picture, with a run's model."""

    run: Path = argument("RUN", "--workdir")
    """A run's folder."""
    prompt: tuple[str, ...] = flag((), "TEXT")
    """A text; give it again for more."""
    image: tuple[Path, ...] = flag((), "PICTURE")
    """A picture to write about, after a prompt if there is one; give it again for more."""
    prompts: Named | None = flag(None, "FILE")
    """A file of prompts, one a line; - is stdin."""
    max_new_tokens: NewTokens = 256
    """Tokens to write at most."""
    temperature: float | None = None
    """0 is greedy (default: 0.8; about pictures 0, where nothing else of drawing is given)."""
    greedy: bool = False
    """Always take the likeliest token."""
    top_k: int | None = flag(None, "K")
    """Draw from the K likeliest tokens."""
    top_p: float | None = flag(None, "P")
    """Draw from the likeliest tokens that make up the probability P together."""
    min_p: float | None = flag(None, "P")
    """Draw from the tokens that are at least P times as likely as the first."""
    repetition_penalty: float | None = None
    """1 is none, 1.2 is usual (default: 1)."""
    stop: tuple[Annotated[str, STOP], ...] = flag((), "TEXT")
    """End before this string; give it again for more."""
    beams: Beams = flag(1, "K")
    """Beam search with so many beams instead of drawing."""
    length_penalty: Annotated[float, at_least(0, "0 (none) or more, as in 0.6")] | None = flag(None, "A")
    """The length penalty of beam search (default: 0.6)."""
    samples: Annotated[int, at_most(100_000)] | None = None
    """Texts for each prompt (default: 1)."""
    seed: NonNegativeInt | None = None
    """The seed of what is drawn (default: 0)."""
    json: bool = False
    """Print a JSON line for each text, as for several prompts."""

    def problems(self) -> Iterator[str]:
        """Yields the flags that would have no effect beside others."""
        without = dict.fromkeys(DRAWING if self.greedy else (), "--greedy")
        without |= dict.fromkeys(NOT_SEARCHING if self.beams > 1 else (), "--beams")
        for name, other in without.items():
            if getattr(self, name) is not None and getattr(self, name) is not False:
                yield f"{name}: has no effect with {other}; leave one of them out"
        if self.length_penalty is not None and self.beams == 1:
            yield "length_penalty: has no effect without --beams; give that, or leave this one out"

    def __call__(self) -> None:
        from jaxformer.inference.writing import generation

        given = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        if self.beams == 1:
            draws = not self.image or any(getattr(self, name) is not None for name in DRAWING)
            given = {"temperature": TEMPERATURE if draws and not self.greedy else 0.0} | given
        penalty = LENGTH_PENALTY if self.length_penalty is None else self.length_penalty
        how = generation(self.max_new_tokens, self.stop, self.seed or 0, self.beams, penalty, **given)
        prompts = self.read_prompts()
        with working():
            self.write(prompts, how)

    def write(self, prompts: list[tuple[str, str]], how: "Generation") -> None:
        """Prints a JSON line for each text; or the only one as it is made.

        Raises:
          UserError: the run's model writes no texts, or not about pictures, or does not take a prompt; a picture
            cannot be read.
        """
        from jaxformer.decoding.loop import StopStrings

        trained = self.load()
        note_of_prompts(trained.config.data.examples, self.prompt or self.prompts)
        about = [({"image": str(image)}, trained.about(image)) for image in self.image]
        for asked, writer in about or [({}, trained.writer)]:
            ids = writer.encoded(prompts)
            begin = prompts[0][0] if writer.goes_on else ""
            if len(prompts) > 1 or len(about) > 1 or self.json:
                for (prompt, _), found in zip(prompts, writer.generate(ids, how)):
                    print_json({**asked, "prompt": prompt, **vars(found)})
            elif how.beams > 1:  # a search has no text before its end
                for found in writer.generate(ids, how):
                    print_text(f"{begin}{found.text}\n")
            else:
                stops = StopStrings(how.stops, writer.tokenizer.decode)
                stream_text(writer.stream(ids, how, stops), stops, begin)
                writer.warn_of_special(stops.ids)

    def read_prompts(self) -> list[tuple[str, str]]:
        """The prompts of --prompt and the lines of --prompts with their places, each as often as --samples says.

        Raises:
          UserError: there is none, or the file cannot be read.
        """
        from jaxformer.inference.texts import read_lines

        prompts = [(prompt, f"--prompt {number}") for number, prompt in enumerate(self.prompt, 1)]
        if self.prompts is not None:
            prompts += read_lines(self.prompts)
        if self.image and not prompts:
            prompts = [("", "")]
        if not prompts:
            raise UserError('generate: give --prompt "TEXT", --prompts FILE or --image PICTURE')
        return [prompt for prompt in prompts for _ in range(self.samples or 1)]


def stream_text(tokens: Iterator[Any], stops: Any, begin: str) -> None:
    """Prints a text as it is made."""
    shown = 0
    for _ in tokens:
        text = begin + stops.settled(0)
        print_text(text, after=shown)
        shown = max(shown, len(text))
    print_text(begin + stops.texts[0] + "\n", after=shown)
    if stops.stops and stops.found[0] is None:
        print_note(f"jaxformer: none of the stop strings came in {counted(len(stops.ids[0]), 'token')}")
