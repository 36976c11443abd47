"""Guards: how much code there is, how long files and functions are, what training loads, who knows flags."""

import ast
import io
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "jaxformer"
FILES = {file.relative_to(PACKAGE).as_posix(): file for file in sorted(PACKAGE.rglob("*.py"))}

CODE_LINES = 36_000  # of the package at most
FILE_LINES = 400
FUNCTION_LINES = 80  # without the docstring
LONGER = {"step.py make_train_step": 100}
PROBES = 9
LOADED_BY_TRAIN = 60  # modules of the package

# Files that may ask whether an object of a library, or Python itself, has something: how often.
OF_LIBRARIES = {
    "checkpoint_items.py": 1,  # a leaf that is not a jax.Array has no sharding
    "config/files.py": 1,  # nodes of Python's syntax tree
    "config/reference.py": 1,
    "config/schema.py": 3,  # types without a name, classes without problems(), a user's own class and its contract
    "data/kinds/detection.py": 2,  # TFDS's box formats
    "data/text/tokenizer_templates.py": 1,  # Hugging Face's pre-tokenizers
    "models/attention.py": 1,  # JAX's devices
    "observe/device.py": 1,  # os, which is another one on each system
    "paths.py": 3,  # JAX's kinds of keys
}

# Strings with "--" that are no flags of ours.
NOT_OUR_FLAGS = {
    ("data/catalog.py", "tfds build"),
    ("data/records.py", "tfds build"),
    ("data/records.py", "--file_format=array_record"),
    ("launching/base.py", '"--'),  # makes flags of other programs
    ("launching/checkout.py", '"--'),  # git's
    ("launching/__init__.py", "--rehearse"),  # the supervisor's word to the command that it starts
    ("observe/plots.py", '"--"'),  # matplotlib's dashed line
    ("runs.py", "--error-unmatch"),  # git's
    ("runs.py", "--porcelain"),
}

LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each file."""
    return {name: ast.parse(file.read_text()) for name, file in FILES.items()}


def code_tokens(text: str) -> list[tokenize.TokenInfo]:
    """The tokens of a file without comments, blank lines, and strings that are statements (documentation)."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    found, start = [], True
    for token, following in zip(tokens, [*tokens[1:], None]):
        if token.type in LAYOUT:
            start = start or token.type == tokenize.NEWLINE
            continue
        documents = (
            start and token.type == tokenize.STRING and following and following.type == tokenize.NEWLINE
        )
        start = False
        if not documents:
            found.append(token)
    return found


def code_lines(text: str) -> int:
    return len({line for t in code_tokens(text) for line in range(t.start[0], t.end[0] + 1)})


def test_lines_of_code_are_counted_without_documentation():
    text = '"""A module."""\n\nx = 1  # one\n"""The one."""\n\n\ndef f(\n    a,\n):\n    """F."""\n'
    text += '    return """\nb"""\n'
    assert code_lines(text) == 1 + 3 + 2


def test_the_package_does_not_grow():
    assert sum(code_lines(file.read_text()) for file in FILES.values()) <= CODE_LINES


def test_no_file_is_long():
    lines = {name: len(file.read_text().splitlines()) for name, file in FILES.items()}
    assert {name: count for name, count in lines.items() if count > FILE_LINES} == {}


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = function.body[0].end_lineno - function.body[0].lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_no_function_is_long():
    lengths = {
        f"{name} {node.name}": length(node)
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {k: lines for k, lines in lengths.items() if lines > LONGER.get(k, FUNCTION_LINES)} == {}


def probes(tree: ast.AST) -> list[str]:
    """The questions whether an object has something: hasattr(x, ...), and getattr(x, ..., default)."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    return [
        ast.unparse(call)
        for call in calls
        if call.func.id == "hasattr" or (call.func.id == "getattr" and len(call.args) == 3)
    ]


def test_parts_rely_on_contracts_and_do_not_probe_each_other():
    found = {name: calls for name, tree in trees().items() if (calls := probes(tree))}
    asked = {name: calls for name, calls in found.items() if len(calls) > OF_LIBRARIES.get(name, 0)}
    assert sum(len(calls) - OF_LIBRARIES.get(name, 0) for name, calls in asked.items()) <= PROBES, asked


def loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_training_loads_little():
    modules = loaded("import jaxformer.train")
    ours = {name for name in modules if name.split(".")[0] == "jaxformer"}
    assert len(ours) <= LOADED_BY_TRAIN, sorted(ours)
    assert not modules & {"matplotlib", "sentencepiece"}


def naming_flags(name: str) -> list[str]:
    """The strings of a file that have "--" in them, without documentation and flags of others."""
    others = [start for file, start in NOT_OUR_FLAGS if file == name]
    strings = (t.string for t in code_tokens(FILES[name].read_text()) if t.type == tokenize.STRING)
    return [s for s in strings if "--" in s and not any(other in s for other in others)]


# What writes to the terminal: verbs/common.py escapes what it writes; the log and its progress bar do (errors.py).
WRITING = {
    "__main__.py": 6,  # has streams, and says how they escape
    "cli.py": 1,  # flushes stdout
    "launching/local.py": 1,  # flushes what was said before the training writes
    "launching/supervisor.py": 2,  # passes on what a training writes, which has escaped it
    "launching/watchdog.py": 4,  # the stacks of threads, when nothing else may work
    "observe/terminal.py": 2,  # the console and the log's handler
    "observe/text.py": 2,  # draws a table into a string
    "preemption.py": 4,  # says what ended the process, in its last moment
    "verbs/common.py": 9,
    "verbs/predict.py": 1,  # where lines of JSON go
}


def writing(tree: ast.AST) -> list[str]:
    """What writes to the terminal past everything: print(...), Console(...), warnings, a stream's methods, a stream."""
    names = {"Console", "print", "pprint", "warn"}
    calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    streams = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    found = [call for call in calls if call.split(".")[-1] in names or call == "os.write"]
    return found + [
        s for s in streams if s in ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
    ]


def test_what_people_see_is_written_in_one_place():
    found = {name: calls for name, tree in trees().items() if (calls := writing(tree))}
    assert {name: calls for name, calls in found.items() if len(calls) > WRITING.get(name, 0)} == {}


def test_only_the_command_line_knows_flags():
    below = [name for name in FILES if name != "cli.py" and not name.startswith("verbs/")]
    found = {name: strings for name in below if (strings := naming_flags(name))}
    assert found == {}
