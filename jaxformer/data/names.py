"""Names of classes: the one rule by which they are compared and kept."""

import json
import re
import unicodedata
from typing import Any

FORMAT = "Cf"  # Unicode's category of zero-width characters, marks of direction and soft hyphens
# Others that nobody sees: those of Unicode's Default_Ignorable_Code_Point, such as variation selectors and fillers.
IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
BLANKS = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")  # of the category Zs
NO_LINE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, ends of lines and paragraphs


def class_key(name: str) -> str:
    """What a class's name is compared by and kept as: names with the same key are one class.

    It is in normal form C (Unicode's annex 15), without characters that nobody sees and white space around it, and with
    one blank for white space in it.
    """
    if not name.isascii():
        name = IGNORABLE.sub("", "".join(each for each in name if unicodedata.category(each) != FORMAT))
    return BLANKS.sub(" ", unicodedata.normalize("NFC", name).strip())


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
