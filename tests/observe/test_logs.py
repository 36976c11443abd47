"""The logger: who speaks, and that nothing stays behind."""

import io
import logging

from rich.console import Console

from jaxformer.observe.logs import speak_as, terminal_logging

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


def test_other_processes_tell_errors_alone_with_their_number(capsys):
    with terminal_logging():
        speak_as(3)
        logger.info("training begins")
        logger.error("out of memory")
    err = capsys.readouterr().err
    assert "training begins" not in err
    assert "process 3: out of memory" in err


def test_on_a_terminal_brackets_are_not_markup():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with terminal_logging(console):
        logger.info("shape [3, 4] [bold]x[/bold]")
    assert "shape [3, 4] [bold]x[/bold]" in console.file.getvalue()
