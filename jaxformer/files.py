"""Writing files so that nothing is ever half-written."""

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from jaxformer.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name beside `path`, then renames it into place."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; see `to_json` for numbers that are not finite."""
    write_atomically(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def to_json(value: Any) -> Any:
    """What JSON can hold: NaN and infinities become "NaN", "Infinity" and "-Infinity", which `float` reads back.

    (So has it protobuf's JSON. The rest of a tree of dicts, lists and tuples stays as it is.)
    """
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_json(path: Path, needs: tuple[str, ...]) -> dict[str, Any] | None:
    """A JSON object with the keys `needs`; None if there is no such file.

    Raises:
      UserError: it is no JSON object, or lacks a key.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); restore it, or delete it to go without"
        ) from error
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; restore it, or delete it to go without")
    return content
