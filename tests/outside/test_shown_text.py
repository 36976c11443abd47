"""Text from outside, wherever people see it: no terminal obeys it, no line is forged, no page runs it."""

import io
import json
import logging
import subprocess
import sys
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from jaxformer import cli
from jaxformer.drawing import SIZE, annotate, draw_boxes, font
from jaxformer.errors import UserError, printable
from jaxformer.files import json_line
from jaxformer.importing import import_dataset
from jaxformer.inference.predict import predict_files
from jaxformer.observe import plots
from jaxformer.observe.comparison import markdown_table
from jaxformer.observe.pages import render, uri
from jaxformer.observe.terminal import Progress, terminal_logging
from jaxformer.observe.text import table
from jaxformer.verbs.common import print_json, print_line, print_note, print_text
from jaxformer.verbs.generate import stream_text

# What stands for it, by hand: JSON's escapes (RFC 8259, section 7).
ESCAPES = {
    "\x00": r"\u0000",
    "\x07": r"\u0007",
    "\x08": r"\b",
    "\r": r"\r",
    "\x1b": r"\u001b",
    "\x7f": r"\u007f",
    "\x85": r"\u0085",
    "\x9b": r"\u009b",
    "\xad": r"\u00ad",
    "\u061c": r"\u061c",
    "\u180e": r"\u180e",
    "\u200b": r"\u200b",
    "\u200e": r"\u200e",
    "\u2028": r"\u2028",
    "\u2029": r"\u2029",
    "\u202a": r"\u202a",
    "\u202e": r"\u202e",
    "\u2066": r"\u2066",
    "\u2069": r"\u2069",
    "\ufeff": r"\ufeff",
    "\udcff": r"\udcff",
    "\U000e0041": r"\udb40\udc41",
}
NASTY = "a" + "b".join(ESCAPES) + "[red]z[/]"
SHOWN = "a" + "b".join(ESCAPES.values()) + "[red]z[/]"


def obeyed(shown: str) -> set[str]:
    """The characters of a text that are not seen, or do something, but for ends of lines and tabs.

    Joiners behind what is seen do something there: a script's letters or the parts of an emoji.
    """
    kinds = [unicodedata.category(c) for c in shown]
    seen_before = [False, *(not kind.startswith("C") for kind in kinds)]
    return {
        c
        for c, kind, seen in zip(shown, kinds, seen_before)
        if kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t" and not (c in "\u200c\u200d" and seen)
    }


@pytest.mark.parametrize("character", ESCAPES, ids=ascii)
def test_a_character_that_is_not_seen_is_escaped(character):
    assert printable(f"x{character}y") == f"x{ESCAPES[character]}y"


@pytest.mark.parametrize(
    "text",
    [
        "café",
        "cafe\u0301",
        "日本\u3000語",
        "1\xa0000 €",
        "👩\u200d💻 ❤\ufe0f\u200d🔥",
        "می\u200cخواهم",
        "क्\u200dष",
    ],
)
def test_what_people_write_stays(text):
    assert printable(text) == text


def test_a_joiner_between_other_letters_is_escaped():
    assert printable("ca\u200dt") == r"ca\u200dt"
    assert printable("👩\u200d\u200d") == "👩\u200d" + r"\u200d"


def test_ends_of_lines_and_tabs_stay_in_texts_and_not_in_lines():
    assert printable("a\n\tb") == "a\n\tb"
    assert printable("a\n\tb", keep="") == r"a\n\tb"


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
@example("\u0600\u200c")
@example("\u0628\u200c")
def test_a_line_of_json_is_printable_and_has_its_value(text):
    line = json_line({"text": text, text: 1})
    assert not obeyed(line)
    assert line.count("\n") == 1
    assert json.loads(line) == json.loads(json.dumps({"text": text, text: 1}))
    line.encode()


@given(st.lists(st.text() | st.sampled_from(["👩", "\u200d", "💻", *ESCAPES])))
def test_a_text_shown_in_parts_is_the_text_shown_at_once(parts):
    whole, output = "".join(parts), io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        for count, part in enumerate(parts):
            before = "".join(parts[:count])
            print_text(before + part, after=len(before))
    assert output.getvalue() == printable(whole)


def test_errors_are_one_line_for_each_of_their_lines():
    error = UserError(f"{NASTY}\nforged: all is well", "do")
    assert error.lines == (rf"{SHOWN}\nforged: all is well", "do")
    assert str(error) == "\n".join(error.lines)


def test_a_refused_word_of_the_command_line_is_escaped(capsys):
    assert cli.main(["data", NASTY]) == 2
    assert cli.main(["describe", "--fields", NASTY]) == 2
    assert cli.main(["report", NASTY.replace("\x00", "")]) == 2
    shown = capsys.readouterr().err
    assert not obeyed(shown)
    assert "[red]z[/]" in shown


def test_what_the_log_says_is_escaped_for_every_handler():
    output, logger = io.StringIO(), logging.getLogger("jaxformer")
    handler = logging.StreamHandler(output)
    logger.addHandler(handler)
    try:
        logger.warning("skipped %s", f"{NASTY}\n12:00 INFO forged")
        logger.warning("%s", f"a\n{NASTY}")
    finally:
        logger.removeHandler(handler)
    assert output.getvalue() == rf"skipped {SHOWN}\n12:00 INFO forged" + f"\na\n{SHOWN}\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_line_is_one_line(terminal, capsys):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=2000, color_system=None)
    with (
        terminal_logging(console),
        Progress(2, console=console, enabled=True, memory=lambda: None) as progress,
    ):
        progress.show(2, {NASTY: 1.0})
        progress.evaluated(2, {f"{NASTY}\n": 1.0})
    shown = console.file.getvalue() if terminal else capsys.readouterr().err
    for code in ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r"):  # rich's own
        shown = shown.replace(code, "")
    assert not obeyed(shown)
    assert SHOWN in shown
    assert rf"{SHOWN}\n 1" in shown


def test_tables_keep_their_rows():
    head, _, row = table(("name",), [[f"{NASTY}\nforged"]]).splitlines()
    assert (head, row) == ("name", rf"{SHOWN}\nforged")
    *_, row = markdown_table([{"run": "a|b\n| forged", "best": NASTY}]).splitlines()
    assert row == rf"| a\|b\n\| forged | {SHOWN} |"


def test_lines_and_notes_are_escaped(capsys):
    print_line(f"{NASTY}\nx")
    print_note(f"{NASTY}\nx")
    print_json({"text": NASTY})
    out, err = capsys.readouterr()
    assert err == rf"{SHOWN}\nx" + "\n"
    line, last = out.splitlines()
    assert line == rf"{SHOWN}\nx"
    assert json.loads(last) == {"text": NASTY}
    assert not obeyed(last)


def test_a_text_that_a_model_writes_is_escaped_while_it_is_written(capsys):
    written = [NASTY[:count] for count in range(len(NASTY) + 1)]
    stops = SimpleNamespace(stops=(), texts=[NASTY], settled=lambda row: written.pop(0))
    stream_text(iter(range(len(NASTY))), stops, "It was ")
    assert capsys.readouterr().out == f"It was {SHOWN}\n"


@pytest.fixture
def a_dataset_of_texts(tmp_path):
    """A CSV whose names of columns and classes, and whose texts, hold what a terminal would obey."""
    shown = "\x1b]0;t\x07\u202eevil\u2028\u009b2J"
    rows = [f'"{shown} {n}\nx",{"good" if n % 2 else "bad"}' for n in range(10)]
    file = tmp_path / "a\u202e.csv"
    file.write_text("\n".join(["te\u200bxt\x1b,label", *rows]))
    return file


def test_import_list_and_show_escape_texts_columns_and_classes(a_dataset_of_texts, tmp_path, capsys):
    data = ["--data-dir", str(tmp_path / "data")]
    assert (
        cli.main(
            ["data", "import", "csv", str(a_dataset_of_texts), "--name", "mine", "--label", "label", *data]
        )
        == 0
    )
    assert cli.main(["data", "list", *data]) == 0
    assert cli.main(["data", "show", "mine", *data]) == 0
    assert cli.main(["data", "show", "mine", "--split", "tr\x1bain", *data]) == 2
    out, err = capsys.readouterr()
    assert not obeyed(out + err)
    assert r"\u001b]0;t\u0007\u202eevil\u2028\u009b2J" in out
    assert r"te\u200bxt\u001b" in out


def test_an_import_without_broken_files_escapes_their_names(tmp_path, capsys):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), hash(name) % 256, np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "b" / "\x1b[31m\nforged: x.png").write_bytes(b"no image")
    argv = [
        "data",
        "import",
        "images",
        str(tmp_path / "images"),
        "--name",
        "mine",
        "--data-dir",
        str(tmp_path),
    ]
    assert cli.main(argv) == 2
    assert cli.main([*argv, "--skip-broken"]) == 0
    out, err = capsys.readouterr()
    assert not obeyed(out + err)
    assert r"b/\u001b[31m\nforged: x.png" in out


def test_a_tokenizers_pieces_are_escaped(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("a\x1b\u202e\x07b\n" * 3)
    file = str(tmp_path / "tokenizer.json")
    assert (
        cli.main(
            [
                "data",
                "tokenizer",
                "train",
                str(tmp_path / "texts.txt"),
                "--kind",
                "characters",
                "--output",
                file,
            ]
        )
        == 0
    )
    assert cli.main(["data", "tokenizer", "show", file, "--text", "a\x1b\u202e\x07b\nb"]) == 0
    shown = capsys.readouterr().out
    assert not obeyed(shown)
    assert "\na\\u001b\\u202e\\u0007b\nb\n" in shown


def test_predictions_of_files_that_are_not_named_in_utf8_are_written(tmp_path):
    from inference.test_predict import a_run

    path = tmp_path / b"\xff\x1b.png".decode(errors="surrogateescape")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    stream = io.StringIO()
    (found,) = predict_files(
        a_run(names=[f"{NASTY}\n{n}" for n in range(10)]), [path], tmp_path / "out", lines=stream
    )
    assert not obeyed(stream.getvalue())
    assert json.loads((tmp_path / "out" / "predictions.jsonl").read_text()) == found
    assert found["file"] == str(path)


def test_names_on_images_are_on_one_line():
    image = np.zeros((8, 8, 3), np.uint8)
    names = [f"{NASTY}\nx", "\n", "\r\n\t"]
    annotate(image, [(name, 0.5) for name in names])
    draw_boxes(image, [{"label": name, "index": 0, "box": (0, 0, 4, 4)} for name in names], 64, font(SIZE))


# Pages

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=http://x.example onerror=x> {{ 7*7 }} $\\frac$ \x1b\u202e\udcff"
)


def test_pages_escape_what_they_show():
    curve = {HOSTILE: (np.arange(3), np.arange(3.0)), "_b": (np.arange(3), np.arange(3.0))}
    svgs = [plots.curves(HOSTILE, curve), plots.class_bars([HOSTILE, "b"], [0.1, 0.2], HOSTILE)]
    svgs.append(plots.confusion_matrix([[1, 2], [3, 4]], [HOSTILE, "b"]))
    parts = {"title": HOSTILE, "names": [(HOSTILE, "#123456")], "columns": [HOSTILE], "curves": svgs}
    parts |= {"rows": [(HOSTILE, "#123456", [HOSTILE])], "differences": {HOSTILE: [HOSTILE]}}
    page = render("comparison.html.j2", **parts)
    assert "alert(1)</script>" not in page
    assert "<img" not in page
    assert "49" not in page.replace("{{ 7*7 }}", "")[page.index("<main>") : page.index("<svg")]
    assert not obeyed(page)
    page.encode()


def test_a_page_takes_images_from_its_own_folder_alone(tmp_path):
    (tmp_path / "samples").mkdir()
    Image.new("L", (1, 1)).save(tmp_path / "secret.png")
    assert uri("../secret.png", tmp_path / "samples") == ""
    assert uri(str(tmp_path / "secret.png"), tmp_path / "samples") == ""
    assert uri("secret.png", tmp_path).startswith("data:image/png;base64,")


# The process


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_another_encoding_gets_escapes(encoding):
    command = [sys.executable, "-m", "jaxformer", "data", "é😀\udcff"]
    done = subprocess.run(
        command,
        capture_output=True,
        env={"PYTHONIOENCODING": encoding, "PATH": ""},
        cwd=cli.__file__.rsplit("/", 2)[0],
    )
    assert done.returncode == 2, done.stderr
    shown = {"ascii": r"\u00e9\ud83d\ude00", "latin-1": "é\\ud83d\\ude00", "utf-8": "é😀"}[encoding]
    assert f"data {shown}\\udcff: there is no such verb" in done.stderr.decode(encoding)


def test_an_image_in_a_dataset_is_named_in_one_line(tmp_path):
    with pytest.raises(UserError) as error:
        import_dataset("text", tmp_path / "no\nsuch\x1bfile", "mine", str(tmp_path))
    assert error.value.lines == (rf"{tmp_path}/no\nsuch\u001bfile: there is no such folder or file",)
