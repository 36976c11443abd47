"""The logger: who speaks, and that nothing stays behind."""

import io
import logging

import pytest
from rich.console import Console

from jaxformer.observe.terminal import terminal_logging

logger = logging.getLogger("jaxformer")


def test_messages_go_to_stderr_and_libraries_are_quiet(capsys):
    with terminal_logging():
        logger.info("training begins")
        logging.getLogger("absl").warning("Sharding info not provided")
        logging.getLogger("orbax").info("saving")
    out, err = capsys.readouterr()
    assert "training begins" in err
    assert "Sharding" not in err
    assert "saving" not in err
    assert out == ""


def test_everything_is_put_back(capsys):
    absl = logging.getLogger("absl")
    before = logger.handlers[:], logger.level, logger.propagate, absl.level
    with terminal_logging():
        assert logger.handlers != before[0]
    assert (logger.handlers, logger.level, logger.propagate, absl.level) == before


def test_on_a_terminal_brackets_are_not_markup():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with terminal_logging(console):
        logger.info("shape [3, 4] [bold]x[/bold]")
    assert "shape [3, 4] [bold]x[/bold]" in console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_control_characters_of_names_do_not_reach_the_terminal(terminal, capsys):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with terminal_logging(console):
        logger.info("class %s", "\x1b[31mcat\x07 [red]\u009b2J")
    shown = console.file.getvalue() if terminal else capsys.readouterr().err
    assert r"class \u001b[31mcat\u0007 [red]\u009b2J" in shown
    assert not {"\x1b", "\x07", "\u009b"} & set(shown)
