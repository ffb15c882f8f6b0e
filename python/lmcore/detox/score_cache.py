"""Scores that are kept on disk, by scorer and text: no text is scored twice.

A file of SQLite, which is whole after a kill at any moment and takes several processes at once.
Texts themselves do not stand in it, only their digests.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmcore.detox.scorers import Explainer, Scorer, WordWeight, check_scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# "lmsc": what tells such a file from other files of SQLite.
_APPLICATION = 0x6C6D7363
_WAIT_SECONDS = 60.0
# SQLite takes at least as many values in one statement.
_PART = 500
_ASKED = 256


class CachedScorer:
    """A scorer that asks another one for those texts alone that are not in a file.

    Args:
        scorer: what is asked.
        path: the file, made if it is not there.
        key: of the scorer; its own `key` if None.
        batch_size: texts that are asked for, and kept, at once; the scorer's own `batch_size` if
            None, or 256.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the scorer has no key, or the file is not of this kind.

    Example:
        >>> import tempfile
        >>> asked = []
        >>> def scorer(texts):
        ...     asked.extend(texts)
        ...     return [0.5] * len(texts)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cached = CachedScorer(scorer, f"{folder}/scores", key="half")
        ...     _ = cached(["a", "b", "a"]), cached(["b", "c"])
        >>> asked
        ['a', 'b', 'c']
    """

    def __init__(
        self,
        scorer: Scorer,
        path: str | os.PathLike[str],
        *,
        key: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        own = getattr(scorer, "key", None) if key is None else key
        if not isinstance(own, str) or not own:
            raise ValueError("a scorer whose scores are kept needs a key")
        self.key = own
        self.scorer = scorer
        self._path = Path(path)
        own_size = getattr(scorer, "batch_size", _ASKED)
        self._batch_size = own_size if batch_size is None else batch_size
        with self._open() as file:
            _prepare(file, self._path)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns the scores, and keeps those that are new.

        Args:
            texts: N texts.

        Raises:
            OSError: the file cannot be read or written.
            ValueError: the scorer returned something else than numbers from 0 to 1, or the file
                is broken.
        """
        import numpy as np

        digests = {text: self._digest(text) for text in texts}
        with self._open() as file:
            known = self._find(file, [*digests.values()])
        missing = [text for text, digest in digests.items() if digest not in known]
        for start in range(0, len(missing), self._batch_size):
            # Asked with the file closed: a scorer may take hours, and others write meanwhile.
            part = missing[start : start + self._batch_size]
            scores = check_scores(self.scorer(part), part).tolist()
            new = {digests[text]: score for text, score in zip(part, scores, strict=True)}
            with self._open() as file:
                _write(file, new)
            known |= new
        return np.array([known[digests[text]] for text in texts], np.float64)

    def explain(self, text: str) -> list[WordWeight]:
        """Returns what the scorer says of a text's words, which is not kept.

        Args:
            text: any text.

        Raises:
            ValueError: the scorer does not say it.
        """
        if not isinstance(self.scorer, Explainer):
            raise ValueError("the scorer does not say which words made a score")
        return self.scorer.explain(text)

    def _digest(self, text: str) -> bytes:
        content = text.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(self.key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        return hashlib.blake2b(content, digest_size=20, key=key).digest()

    def _find(self, file: sqlite3.Connection, digests: list[bytes]) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        for start in range(0, len(digests), _PART):
            part = digests[start : start + _PART]
            marks = ",".join("?" * len(part))
            query = f"SELECT digest, score FROM scores WHERE digest IN ({marks})"
            found.update(file.execute(query, part).fetchall())
        if not all(isinstance(score, float) and 0 <= score <= 1 for score in found.values()):
            raise ValueError(f"{self._path}: holds a score that is no number from 0 to 1")
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, opened anew: a connection goes through no fork and no thread."""
        try:
            with closing(
                sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
            ) as file:
                yield file
        except sqlite3.OperationalError as error:
            raise _name_error(error, self._path) from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self._path}: not a file of scores: {error}") from None


def _prepare(file: sqlite3.Connection, path: Path) -> None:
    """Makes the table, or refuses a file of something else."""
    file.execute("BEGIN IMMEDIATE")
    try:
        application = file.execute("PRAGMA application_id").fetchone()[0]
        tables = file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != _APPLICATION and (application or tables):
            raise ValueError(f"{path}: not a file of scores: another application wrote it")
        file.execute(
            "CREATE TABLE IF NOT EXISTS scores "
            "(digest BLOB PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID"
        )
        file.execute(f"PRAGMA application_id = {_APPLICATION}")
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def _write(file: sqlite3.Connection, scores: dict[bytes, float]) -> None:
    file.execute("BEGIN IMMEDIATE")
    # Another process may have scored the same text meanwhile: the first one stays.
    file.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", scores.items())
    file.execute("COMMIT")


def _name_error(error: sqlite3.OperationalError, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    numbers = {
        sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS,
        sqlite3.SQLITE_CANTOPEN: errno.ENOENT, sqlite3.SQLITE_BUSY: errno.EBUSY,
        sqlite3.SQLITE_IOERR: errno.EIO, sqlite3.SQLITE_LOCKED: errno.EBUSY,
        sqlite3.SQLITE_PERM: errno.EACCES,
    }  # fmt: skip
    if code == sqlite3.SQLITE_CANTOPEN and path.is_dir():
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if code in numbers:
        return OSError(numbers[code], os.strerror(numbers[code]), os.fspath(path))
    return ValueError(f"{path}: not a file of scores: {error}")
