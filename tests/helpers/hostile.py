"""Files that somebody damaged, or made to do harm: valid ones, changed by a few edits that hypothesis chooses.

An edit is (operation, place, other, value): the numbers choose where, `value` what is put there. Random bytes alone
would be refused at the first check; most of a changed file stays valid, and reaches what lies behind the checks.
"""

import json
import re
from typing import Any, Literal

from hypothesis import strategies as st

NUMBERS = [
    "0",
    "-1",
    "1e999",
    "-1e308",
    "99999999999999999999",
    "0.5",
    "1_000",
    "NaN",
    "Infinity",
    "0x10",
    "١",
    "1e-400",
]
NAMES = [
    "",
    " ",
    "train",
    "../../etc/passwd",
    "/dev/zero",
    ".",
    "..",
    "a" * 5000,
    "null",
    "true",
    "no",
    "C:\\x",
    "~",
]
SIGNS = [
    "\x00",
    "\x1b[31m",
    "\u202e",
    "\u2028",
    "\ufeff",
    "\x85",
    "\r",
    "\t",
    "\n\n",
    '"',
    "'",
    ",",
    ";",
    "\\",
    "{",
    "[",
    "<",
    "&x;",
]
MARKUP = [
    "[/red]",
    "{{7*7}}",
    "%s%n",
    "=1+1",
    "!!python/object:os.system",
    "&a [*a]",
    "<!ENTITY a 'b'>",
    "é",
    "e\u0301",
    "日本",
    "👩\u200d💻",
]
TEXTS = [text.encode() for text in [*NUMBERS, *NAMES, *SIGNS, *MARKUP]]
TEXTS += [
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc3",
    b"[" * 20_000,
    b"(" * 300,
    b'{"a":' * 5000,
    b"-" * 3000,
    b"9" * 5000,
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    -(2**63),
    10**30,
    0.5,
    -0.0,
    1e300,
    float("nan"),
    float("inf"),
]
VALUES += [
    "",
    " ",
    "x",
    "0",
    "1",
    "NaN",
    "no",
    "\x00",
    "\ud800",
    "\x1b[31m\u202e",
    "a\nb",
    "e\u0301",
    "../x",
    "/dev/zero",
    "a" * 5000,
]
VALUES += [
    [],
    {},
    [[]],
    [None],
    {"": {}},
    [0, 0, 0, 0],
    [1e300] * 4,
    ["a", 1],
    {"a": [1, {"b": None}]},
    [[0.1] * 3] * 2,
]
ENCODINGS = ["utf-16", "utf-16-be", "utf-32", "latin-1", "utf-8-sig", "cp037"]
TOKEN = re.compile(rb"[\w.+-]+")

BYTES = ["flip", "cut", "drop", "repeat", "insert", "replace"]
LINES = ["token", "swap", "line", "join", "encode"]
OF_JSON = ["value", "delete", "nest", "double"]
OPERATIONS = {"bytes": BYTES, "text": BYTES + 2 * LINES, "json": BYTES + LINES + 6 * OF_JSON}
Kind = Literal["bytes", "text", "json"]


def edits(kind: Kind) -> st.SearchStrategy[list[tuple[str, int, int, int]]]:
    """One to four edits of a file of this kind."""
    known = OPERATIONS[kind]
    places = st.integers(0, 2**20)
    return st.lists(st.tuples(st.sampled_from(known), places, places, places), min_size=1, max_size=4)


def changed(content: bytes, steps: list[tuple[str, int, int, int]]) -> bytes:
    """The content after the edits; one that has no place in it (JSON's, where it is none any more) is passed over."""
    for operation, place, other, value in steps:
        if operation in OF_JSON:
            try:
                content = in_json(content, operation, place, value)
            except (ValueError, RecursionError):
                continue
        elif operation in LINES:
            content = in_text(content, operation, place, other, value)
        else:
            content = in_bytes(content, operation, place, other, value)
    return content


def in_bytes(content: bytes, operation: str, place: int, other: int, value: int) -> bytes:
    """The content after an edit that knows nothing of its form."""
    at = place % (len(content) + 1)
    length = 1 + other % max(1, min(64, len(content)))
    span = content[at : at + length]
    text = TEXTS[value % len(TEXTS)]
    match operation:
        case "flip":
            return content[:at] + bytes([byte ^ (1 << value % 8) for byte in span[:1]]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "drop":
            return content[:at] + content[at + length :]
        case "repeat":
            return content[:at] + span * (1 + value % 50) + content[at:]
        case "insert":
            return content[:at] + text + content[at:]
        case _:
            return content[:at] + text + content[at + length :]


def in_text(content: bytes, operation: str, place: int, other: int, value: int) -> bytes:
    """The content after an edit of its words or lines."""
    if operation == "encode":
        return content.decode("utf-8", "replace").encode(ENCODINGS[value % len(ENCODINGS)], "replace")
    if operation in ("line", "join"):
        lines = content.split(b"\n")
        one, two = place % len(lines), other % len(lines)
        if operation == "join":
            return b"\n".join([*lines[:one], b"".join(lines[one : one + 2]), *lines[one + 2 :]])
        return b"\n".join([*lines[:one], lines[two], *lines[one:]])
    tokens = list(TOKEN.finditer(content))
    if not tokens:
        return content
    one, two = sorted(
        (tokens[place % len(tokens)], tokens[other % len(tokens)]), key=lambda token: token.start()
    )
    if operation == "token":
        return content[: one.start()] + TEXTS[value % len(TEXTS)] + content[one.end() :]
    if one is two:
        return content
    between = content[one.end() : two.start()]
    return content[: one.start()] + two[0] + between + one[0] + content[two.end() :]


def in_json(content: bytes, operation: str, place: int, value: int) -> bytes:
    """JSON after an edit of one of its values; of JSON lines, one line is edited."""
    lines = content.strip().split(b"\n")
    if len(lines) > 1 and lines[0][:1] == b"{" == lines[1][:1]:
        line = place % len(lines)
        lines[line] = in_json(lines[line], operation, place // len(lines), value)
        return b"\n".join(lines) + b"\n"
    root = [json.loads(content)]
    nodes = list(walk(root))
    holder, key = nodes[place % len(nodes)]
    match operation:
        case "value":
            holder[key] = VALUES[value % len(VALUES)]
        case "delete" if holder is not root:
            del holder[key]
        case "double" if isinstance(holder, list):
            holder.append(holder[key])
        case "double":
            holder[f"{key}\u200b"] = holder[key]
        case _:
            holder[key] = [holder[key]] if value % 2 else {"a": holder[key]}
    return b"".join(json.dumps(part).encode() for part in root)


def walk(value: Any) -> Any:
    """Yields (holder, key) of every value inside."""
    for key, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from walk(inner)
