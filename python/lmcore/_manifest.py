"""Digests that stand beside the files of states and models: what changed since is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from lmcore._files import write_text
from lmcore._json import read_json

#: Names of the folders of states and models.
STEP_NAME = re.compile(r"step-(0|[1-9][0-9]{0,12})")

_MANIFEST = "manifest.json"


def write_manifest(folder: Path, fingerprint: str, step: int, **more: Any) -> None:
    """Writes the digests of a folder's files beside them.

    Args:
        folder: of a state or a model.
        fingerprint: of the recipe.
        step: after how many steps it was written.
        more: what else is known.

    Raises:
        OSError: a file cannot be read or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     write_manifest(Path(path), "0" * 32, 3)
        ...     check_manifest(Path(path))["step"]
        3
    """
    files = {name: _hash_file(folder / name) for name in _list_files(folder)}
    content = {"fingerprint": fingerprint, "step": step, **more, "files": files}
    content["digest"] = _digest(content)
    write_text(folder / _MANIFEST, json.dumps(content, indent=2) + "\n")


def check_manifest(folder: Path, fingerprint: str | None = None) -> dict[str, Any]:
    """Returns the manifest of a state or a model whose files are those that were written.

    Args:
        folder: with a `manifest.json`.
        fingerprint: of the recipe that it must be of; None: of any.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is missing, has changed, or is of another run; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     _ = Path(path, "a").write_text("x")
        ...     write_manifest(Path(path), "0" * 32, 3)
        ...     _ = Path(path, "a").write_text("y")
        ...     try:
        ...         check_manifest(Path(path))
        ...     except ValueError as error:
        ...         print(str(error).rpartition("/")[2])
        a: has changed since it was written
    """
    file = folder / _MANIFEST
    if not file.is_file():
        raise ValueError(f"{file}: is missing")
    content = read_json(file, "a manifest")
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise ValueError(f"{file}: not a manifest: it must hold files")
    if content.pop("digest", None) != _digest(content):
        raise ValueError(f"{file}: has changed since it was written")
    if fingerprint is not None and content.get("fingerprint") != fingerprint:
        raise ValueError(f"{file}: of another run: its fingerprint is another than recipe.json's")
    if type(content.get("step")) is not int:
        raise ValueError(f"{file}: not a manifest: it must hold a step")
    named = STEP_NAME.fullmatch(folder.name)
    if named and int(named[1]) != content["step"]:
        raise ValueError(f"{file}: of step {content['step']}: it does not belong here")
    found = _list_files(folder)
    for name in sorted({*content["files"], *found}):
        path = folder / name
        if name not in found:
            raise ValueError(f"{path}: is missing")
        if name not in content["files"]:
            raise ValueError(f"{path}: was not written by the run")
        if content["files"][name] != _hash_file(path):
            raise ValueError(f"{path}: has changed since it was written")
    return content


def find_model(path: str | os.PathLike[str]) -> Path:
    """Returns the folder of a run's best model, once its digests are checked, or any other path.

    Args:
        path: the folder of a run, the folder of a model, or something else.

    Raises:
        OSError: a file cannot be read.
        ValueError: the model is not the one that the run wrote.

    Example:
        >>> find_model("somewhere")
        PosixPath('somewhere')
    """
    source = Path(path)
    best = source / "best"
    fingerprint = None
    if (source / "recipe.json").is_file() and os.path.lexists(best):
        recipe = read_recipe(source / "recipe.json")
        fingerprint = recipe["fingerprint"]
        if best.is_symlink():
            target = os.readlink(best)  # noqa: PTH115 - a text that is looked at
            parent, _, name = target.rpartition("/")
            if parent != "models" or not STEP_NAME.fullmatch(name):
                raise ValueError(f"{best}: must be a link to models/step-N: got {target!r:.100}")
            best = source / target
        source = best
    if fingerprint is not None or (source / _MANIFEST).is_file():
        check_manifest(source, fingerprint)
    return source


def read_recipe(file: Path) -> dict[str, Any]:
    """Returns what the `recipe.json` of a run holds.

    Args:
        file: its path.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     file = Path(path, "recipe.json")
        ...     _ = file.write_text('{"fingerprint": "00", "config": {"lr": 1}}')
        ...     read_recipe(file)["config"]
        {'lr': 1}
    """
    content = read_json(file, "a recipe")
    if not isinstance(content, dict) or not {"fingerprint", "config"} <= set(content):
        raise ValueError(f"{file}: not a recipe: it must hold fingerprint and config")
    return content


def _list_files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in paths if path.as_posix() != _MANIFEST)


def _hash_file(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return {"bytes": file.tell(), "blake2b": digest.hexdigest()}


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
