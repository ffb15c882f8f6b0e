"""What the tests of `ops.predictions` share: rows scored by the op and by its definition."""

import json
import os
import random
import re
from pathlib import Path
from typing import Any

from lmcore.ops.predictions import Evaluation, score_examples, score_files
from lmcore.reference import predictions as reference
from prediction_rows import VALID, make_rows, write_json, write_rows

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = {"score": 1 << 18, "align": 1 << 19}  # rust/predictions/{score,align}.rs
VALID_LINE = json.dumps(VALID).encode()
_SYNTAX = re.compile(r"(?:[a-z_.]+: )?not valid JSON: .*", re.DOTALL)

# Data sets in their order, the number of bad rows, and their problems.
Sums = tuple[list[tuple[str, Any]], int, tuple[str, ...]]


def in_order(sums: Evaluation) -> Sums:
    """The sums with the order of their data sets, which equal dicts need not share."""
    return list(sums.datasets.items()), sums.bad_rows, sums.listed_bad_rows


def without_places(sums: Sums) -> Sums:
    """The sums without where the first empty prediction stood."""
    datasets, bad_rows, listed = sums
    without = [(name, counts._replace(first_empty=None)) for name, counts in datasets]
    return without, bad_rows, listed


def drop_details(text: str) -> str:
    """A problem without what a JSON reader says about syntax."""
    return _SYNTAX.sub("not valid JSON", text)


def score_by_definition(path: Path, content: bytes, scheme: str = "gner", **options: Any) -> Sums:
    return _score(reference.score_files, path, content, scheme, **options)


def score_content(path: Path, content: bytes, scheme: str = "gner", **options: Any) -> Sums:
    return _score(score_files, path, content, scheme, **options)


def _score(score: Any, path: Path, content: bytes, scheme: str, **options: Any) -> Sums:
    path.write_bytes(content)
    try:
        datasets, bad_rows, listed = in_order(score([path], scheme, **options))
    except (TypeError, ValueError) as error:
        raise type(error)(drop_details(str(error))) from None
    return datasets, bad_rows, tuple(map(drop_details, listed))


def score_list(made: list[dict[str, Any]], scheme: str = "gner", **options: Any) -> Sums:
    return in_order(score_examples(made, scheme, **options))


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in VALID.items() if key not in keys}


def dump(row: Any) -> bytes:
    return write_json(row, random.Random(0), plain=True).encode()


def write_many_rows(folder: Path) -> Path:
    """A file of several blocks, with three data sets in turn."""
    path = write_rows(folder / "many.jsonl", make_rows(6000, datasets=["one", "two", "北"]))
    assert path.stat().st_size > 6 * BLOCK_BYTES["score"] > 2 * BLOCK_BYTES["align"]
    return path


def check_file_error(error: OSError, path: Path) -> None:
    """As the errors of `open`."""
    assert error.filename == str(path)
    assert error.errno is not None
    assert error.strerror == os.strerror(error.errno)
