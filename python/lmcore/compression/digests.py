"""Digests of files and folders that are trusted later: what has changed since is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lmcore._files import write_text
from lmcore._json import read_json


class Digests:
    """Digests in a file, of what stands beside it.

    Args:
        file: which need not exist.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_text("x")
        ...     digests = Digests(Path(folder, "digests.json"))
        ...     before = digests.check("a")
        ...     digests.note("a")
        ...     before, Digests(Path(folder, "digests.json")).check("a")
        (False, True)
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, dict[str, str]] = {}
        if file.is_file():
            self._known = _read(file)

    def check(self, name: str) -> bool:
        """Returns whether something is there and noted.

        Args:
            name: of a file or a folder.

        Raises:
            OSError: a file cannot be read.
            ValueError: it has changed since it was noted; the text names the file.
        """
        place, known = self.file.parent / name, self._known.get(name)
        if known is None or not place.exists():
            return False
        found = _hash(place)
        for inner in sorted({*known, *found}):
            if inner not in found:
                raise ValueError(f"{place / inner}: is missing")
            if inner not in known:
                raise ValueError(f"{place / inner}: was not written with the others")
            if known[inner] != found[inner]:
                raise ValueError(f"{place / inner}: has changed since it was written")
        return True

    def note(self, name: str) -> None:
        """Notes what something is now.

        Args:
            name: of a file or a folder, which is whole.

        Raises:
            OSError: a file cannot be read or written.
        """
        self._known[name] = _hash(self.file.parent / name)
        known = {name: self._known[name] for name in sorted(self._known)}
        content = {"digest": _digest(known), "files": known}
        write_text(self.file, json.dumps(content, indent=1) + "\n")

    def check_or_note(self, name: str) -> None:
        """Checks what is noted, and notes what is not.

        A start that was killed between the two leaves something whole that is not noted.

        Args:
            name: of a file or a folder, which is whole.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: it has changed since it was noted; the text names the file.
        """
        if not self.check(name):
            self.note(name)


def _read(file: Path) -> dict[str, dict[str, str]]:
    content = read_json(file, "digests")
    known = content.get("files") if isinstance(content, dict) else None
    if not isinstance(known, dict) or not all(isinstance(one, dict) for one in known.values()):
        raise ValueError(f"{file}: not digests: it must hold files")
    if content.get("digest") != _digest(known):
        raise ValueError(f"{file}: has changed since it was written")
    return known


def _hash(place: Path) -> dict[str, str]:
    """Of each file by its name in a folder; of a file itself by no name."""
    files = [place] if place.is_file() else [one for one in place.rglob("*") if not one.is_dir()]
    found = {}
    for file in sorted(files):
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16))
        found["" if file == place else file.relative_to(place).as_posix()] = digest.hexdigest()
    return found


def _digest(known: dict[str, Any]) -> str:
    text = json.dumps(known, sort_keys=True).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


__all__ = ["Digests"]
