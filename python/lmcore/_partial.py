"""An output that is made over several starts: its rows so far, and where they come from."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from lmcore._files import naming_errors, rename_over
from lmcore._json import read_json
from lmcore._streams import READ_BYTES, compress


@dataclass(slots=True)
class State:
    """Where a stream is."""

    recipe: Any
    line: int = 0
    """Last line of the input that is done."""
    input_digest: str = ""
    """Of the input up to that line."""
    output_bytes: int = 0
    output_digest: str = ""
    rows: int = 0
    bad_rows: int = 0
    listed_bad_rows: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    """What else the stream knows, as JSON; checked by who put it there."""


class Partial:
    """The rows of an output that is not whole yet, and their state.

    Args:
        name: of the output, for errors.
        target: where it goes.
    """

    def __init__(self, name: str, target: Path) -> None:
        self.name = name
        self.target = target
        # The name itself would be too long for some, and another name's for others.
        digest = hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
        self.rows, self.state, self.new_state, self.compressed = (
            target.with_name(f".{digest}.lmcore-{part}")
            for part in ("rows", "state", "new-state", "gz")
        )
        self.file: IO[bytes] = io.BytesIO()

    def __enter__(self) -> Self:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            with naming_errors(self.name, self.rows):
                descriptor = os.open(self.rows, flags, 0o600)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise self._broken(f"{self.rows.name} is no regular file")
            self.file = open(descriptor, "r+b")
            try:
                self._lock()
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.rows.stat()):
                        # What a killed write left; with the lock held, none is going on.
                        self.new_state.unlink(missing_ok=True)
                        self.compressed.unlink(missing_ok=True)
                        return self
                self.file.close()  # it was finished between the two, and is the output now
            except BaseException:
                self.file.close()
                raise

    def __exit__(self, *_: object) -> None:
        with (
            naming_errors(self.name, self.rows),
            suppress(ValueError),
        ):  # closed after it was removed
            self.file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"{self.name}: another process is writing it") from None
        except OSError as error:  # some network file systems have no locks
            reason = f"{self.name}: cannot be locked ({error.strerror}): write it once at a time"
            warnings.warn(reason, RuntimeWarning, stacklevel=3)

    def load(self, recipe: Any) -> State | None:
        """The state that an earlier start left, if it did."""
        if not self.state.exists():
            return None
        content = read_json(self.state, "the state of an output")
        kinds: dict[str, type] = {
            "line": int, "input_digest": str, "output_bytes": int, "output_digest": str,
            "rows": int, "bad_rows": int, "listed_bad_rows": list, "more": dict,
        }  # fmt: skip
        if not isinstance(content, dict) or set(content) != {"recipe", *kinds}:
            raise self._broken("its state has other keys")
        for key, kind in kinds.items():
            value: Any = content[key]
            if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 1 << 63):
                raise self._broken(f"{key} is {value!r:.100}")
        if not all(isinstance(row, str) for row in content["listed_bad_rows"]):
            raise self._broken("listed_bad_rows holds no texts")
        if content["recipe"] != recipe:
            keys = [*content["recipe"], *recipe] if isinstance(content["recipe"], dict) else []
            key = next((k for k in keys if content["recipe"].get(k) != recipe.get(k)), "recipe")
            raise FileExistsError(
                f"{self.name}: {content['rows']} rows of it are there, made with another {key}; "
                "start anew without resume"
            )
        # A kill between the last two renamings left a state behind without rows.
        is_gone = content["output_bytes"] > 0 and not os.fstat(self.file.fileno()).st_size
        return None if is_gone else State(**content)

    def cut(self, state: State) -> Any:
        """Drops what stands behind the state, and returns the digest of the rest."""
        digest = hashlib.blake2b(digest_size=16)
        if not state.line:
            self.state.unlink(missing_ok=True)
        with naming_errors(self.name, self.rows):
            left = state.output_bytes
            while left:
                part = self.file.read(min(left, READ_BYTES))
                if not part:
                    raise self._broken(f"{left} bytes are missing")
                digest.update(part)
                left -= len(part)
            if state.line and digest.hexdigest() != state.output_digest:
                raise self._broken("its rows are not those that were written")
            self.file.seek(state.output_bytes)
            self.file.truncate()
        return digest

    def save(self, state: State) -> None:
        """Writes the state, after the rows that it speaks of."""
        with naming_errors(self.name, self.rows):
            self.file.flush()
        content = asdict(state)
        self.new_state.unlink(missing_ok=True)
        with naming_errors(self.name, self.new_state):
            with open(self.new_state, "x", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
            self.new_state.replace(self.state)

    def finish(self, *, is_gzip: bool) -> None:
        """Gives the rows the output's name."""
        with naming_errors(self.name, self.rows):
            self.file.flush()
            if is_gzip:
                self._write_compressed()
                rename_over(self.compressed, self.target)
                self.rows.unlink()
            else:
                rename_over(self.rows, self.target)
            self.state.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes rows and state: nothing is done yet."""
        for file in (self.state, self.new_state, self.compressed, self.rows):
            file.unlink(missing_ok=True)

    def _write_compressed(self) -> None:
        self.file.seek(0)
        try:
            with naming_errors(self.name, self.compressed), open(self.compressed, "xb") as file:
                self.compressed.chmod(0o600)
                with compress(file) as compressed:
                    shutil.copyfileobj(self.file, compressed, READ_BYTES)
        except BaseException:
            self.compressed.unlink(missing_ok=True)
            raise

    def _broken(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.name}: the rows of it that are there cannot be gone on with: {reason}; start "
            "anew without resume"
        )
