"""Names of classes: the one rule by which they are compared and kept."""

import json
import unicodedata
from typing import Any

UNSEEN = "Cf"  # Unicode's category of zero-width characters, marks of direction and soft hyphens
NO_LINE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, ends of lines and paragraphs


def class_key(name: str) -> str:
    """What a class's name is compared by and kept as: names with the same key are one class.

    It is in normal form C (Unicode's annex 15), without characters that nobody sees, and without white space around it.
    """
    if not name.isascii():
        name = "".join(character for character in name if unicodedata.category(character) != UNSEEN)
    return unicodedata.normalize("NFC", name).strip()


def class_name(value: Any, where: str = "") -> str:
    """The key of a name that a file or an option holds: of a text, or of JSON's whole numbers, true and false.

    Raises:
      ValueError: it cannot name a class; says why, and before that `where`.
    """
    key = class_key(value if isinstance(value, str) else json.dumps(value) if isinstance(value, int) else "")
    if not key or any(unicodedata.category(character) in NO_LINE for character in key):
        expected = "expected one line of text without control characters"
        raise ValueError(f"{where}{value!r} is no name of a class; {expected}")
    return key
