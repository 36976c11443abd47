"""The code that is launched: the checkout in the working directory."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkout:
    """A git checkout, and in which state it is."""

    top: str
    """Its folder."""
    revision: str
    """The commit, with "+changes-" and a hash of the difference if tracked files were changed since."""
    unknown: tuple[str, ...] = ()
    """Files that git neither knows nor ignores: they stay behind when the code is copied."""

    @property
    def is_changed(self) -> bool:
        """Whether tracked files were changed since the commit."""
        return "+changes-" in self.revision


def checkout(folder: Path) -> Checkout | None:
    """The checkout that a folder is in; None if it is in none, or there is no git."""

    def git(*words: str) -> bytes:
        return subprocess.check_output(["git", "-C", str(folder), *words], stderr=subprocess.DEVNULL)

    try:
        top = git("rev-parse", "--show-toplevel").decode().strip()
        revision = git("rev-parse", "HEAD").decode().strip()
        if changes := git("diff", "--binary", "HEAD"):
            revision += f"+changes-{hashlib.sha256(changes).hexdigest()[:12]}"
        unknown = git("ls-files", "--others", "--exclude-standard", "-z").decode().split("\0")
    except (OSError, subprocess.SubprocessError):
        return None
    return Checkout(top, revision, tuple(filter(None, unknown)))
