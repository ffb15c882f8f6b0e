"""Rows that cannot be used: which they are, what is said of them, and which comes first."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from lmcore.ops.predictions import (
    align_file,
    align_row,
    score_examples,
    score_files,
)
from lmcore.reference import predictions as reference
from parity import agree
from prediction_rows import (
    VALID,
    Raw,
    make_rows,
    write_rows,
)
from scored_rows import (
    BLOCK_BYTES,
    BOM,
    VALID_LINE,
    check_file_error,
    drop_details,
    dump,
    in_order,
    score_by_definition,
    score_content,
    score_list,
    without,
    without_places,
)

NESTED = {**without("words", "labels"), "instance": {k: VALID[k] for k in ("words", "labels")}}
BAD: dict[str, tuple[bytes, type[Exception], str]] = {
    "syntax": (b'{"label_list": [,]}', ValueError, "not valid JSON"),
    "cut": (VALID_LINE[:-1], ValueError, "not valid JSON"),
    "no types": (dump(without("label_list")), ValueError, "types: this key is missing"),
    "types under both names": (
        dump({**VALID, "types": ["x", "y"]}),
        ValueError,
        "types: label_list stands in this row, too",
    ),
    "types twice": (
        b'{"types": [], "types": []}', ValueError, "types: this key stands twice in its object",
    ),
    "types of a wrong type": (
        dump({**without("label_list"), "types": [1]}),
        TypeError,
        "types: expected a list of strings, got a number at [0]",
    ),
    "two objects": (VALID_LINE + b" " + VALID_LINE, ValueError, "not valid JSON"),
    "single quotes": (str(VALID).encode(), ValueError, "not valid JSON"),
    "constant": (b'{"z": NaN}', ValueError, "not valid JSON"),
    "line feed in text": (VALID_LINE.replace(b"New(", b"\t("), ValueError, "not valid JSON"),
    "UTF-8": (VALID_LINE[:20] + b"\xff" + VALID_LINE[20:], ValueError, "not UTF-8 at byte 21"),
    "Latin-1": ('{"z": "é"}'.encode("latin-1"), ValueError, "not UTF-8 at byte 8"),
    "UTF-8 cut": (b'{"z": "\xe5\x8c', ValueError, "not UTF-8 at byte 8"),
    "surrogate as UTF-8": (b'{"z": "\xed\xa0\x80"}', ValueError, "not UTF-8 at byte 8"),
    "UTF-16": ("{}".encode("utf-16"), ValueError, "not UTF-8 at byte 1"),
    "list": (b"[]", TypeError, "expected a JSON object, got a list"),
    "text": (b'"{}"', TypeError, "expected a JSON object, got a string"),
    "number": (b"-1.5", TypeError, "expected a JSON object, got a number"),
    "null": (b"null", TypeError, "expected a JSON object, got null"),
    "boolean": (b"true", TypeError, "expected a JSON object, got a boolean"),
    "empty": (b"{}", ValueError, "types: this key is missing"),
    **{
        f"no {key}": (dump(without(key)), ValueError, f"{key}: this key is missing")
        for key in VALID
        if key != "label_list"
    },
    "empty instance": (
        dump({**without("words"), "instance": {}}),
        ValueError,
        "words: this key is missing",
    ),
    **{
        f"instance {value}": (
            dump({**VALID, "instance": Raw(value)}),
            TypeError,
            f"instance: expected an object, got {name}",
        )
        for value, name in [("null", "null"), ("[]", "a list"), ('"a"', "a string")]
    },
    **{
        f"{key} {value}": (
            dump({**VALID, key: Raw(value)}),
            TypeError,
            f"{key}: expected a string, got {name}",
        )
        for key in ("dataset", "prediction")
        for value, name in [
            ("null", "null"),
            ("1e3", "a number"),
            ('["a"]', "a list"),
            ("{}", "an object"),
        ]
    },
    **{
        f"{key} {value}": (
            dump({**VALID, key: Raw(value)}),
            TypeError,
            f"{key}: expected a list of strings, got {name}",
        )
        for key in ("label_list", "words", "labels")
        for value, name in [
            ("null", "null"),
            ('"abc"', "a string"),
            ("{}", "an object"),
            ("[1]", "a number at [0]"),
            ('["a", "b", null, 1]', "null at [2]"),
            ('["a", ["b"]]', "a list at [1]"),
            ('["a", "b", {}]', "an object at [2]"),
            ('["O", false, "O"]', "a boolean at [1]"),
        ]
    },
    "instance.words": (
        dump({**NESTED, "instance": {**NESTED["instance"], "words": 1}}),
        TypeError,
        "instance.words: expected a list of strings, got a number",
    ),
    "instance.labels": (
        dump({**NESTED, "instance": {**NESTED["instance"], "labels": [1]}}),
        TypeError,
        "instance.labels: expected a list of strings, got a number at [0]",
    ),
    "length": (
        dump({**VALID, "labels": ["O"]}),
        ValueError,
        "labels: words and labels must have the same length: got 3 and 1",
    ),
    "nested length": (
        dump({**NESTED, "instance": {**NESTED["instance"], "labels": []}}),
        ValueError,
        "instance.labels: words and labels must have the same length: got 3 and 0",
    ),
    **{
        f"label {label!r}": (
            dump({**VALID, "labels": ["O", "O", label]}),
            ValueError,
            f"labels: [2] {label!r} is not in types",
        )
        for label in [
            *("B-z", "B-", "o", "", "x", "B-X", "B-x ", "O\n", "é"),
            *("'", "'\"", "\\", "\x1f", "\x7f"),
        ]
    },
    "unprintable label": (
        dump({**VALID, "labels": ["O", "O", "B-\u200b\xa0\u2028"]}),
        ValueError,
        "labels: [2] 'B-\\u200b\\xa0\\u2028' is not in types",
    ),
    **{
        f"surrogate {half} in {key}": (
            dump({**VALID, key: Raw(f'"a{half}"' if text else f'["a", "{half}b", "c"]')}),
            ValueError,
            f"{key}: holds a lone surrogate",
        )
        for half in (r"\ud800", r"\udc00", r"\ud83d\n", r"\ud83d\ud83d")
        for key, text in [
            ("dataset", True),
            ("label_list", False),
            ("words", False),
            ("labels", False),
            ("prediction", True),
        ]
    },
    "surrogate in instance.words": (
        dump({**NESTED, "instance": {"words": Raw(r'["\ud800"]'), "labels": ["O"]}}),
        ValueError,
        "instance.words: holds a lone surrogate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_row(tmp_path: Path, name: str) -> None:
    line, kind, text = BAD[name]
    file = tmp_path / "a.jsonl"
    error = agree(score_by_definition, score_content, file, b"\n" + line)
    assert (type(error), str(error)) == (kind, f"{file}:2: {text}")
    with pytest.raises(kind) as raised:
        score_files([write_rows(file, [VALID, line])])
    assert str(raised.value).startswith(f"{file}:2: ")
    assert "\n" not in str(raised.value)


# Far into the file, and not the only one: the first is named, whatever the others are.
@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((c, n) for c in BLOCK_BYTES for n in ("cut", "UTF-8", "list", "no words", "words [1]")),
        ("score", "length"),
        ("score", "label 'B-z'"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_first_bad_row_of_many(
    folder: Path, many_rows: Path, name: str, threads: int, command: str
) -> None:

    def run(file: Path) -> Any:
        if command == "score":
            return score_files([file], threads=threads, worst=3)
        return align_file(file, folder / "far.out.jsonl", threads=threads)

    line, kind, text = BAD[name]
    made = many_rows.read_bytes().splitlines()
    ends = [0]
    for good in made:
        ends.append(ends[-1] + len(good) + 1)
    for first in (3000, next(k for k, end in enumerate(ends) if end > 3 * BLOCK_BYTES[command])):
        content: list[bytes] = list(made)
        content[first] = line
        for later in (first + 1, first + 2, len(made) - 1):
            content[later] = BAD["empty" if name != "empty" else "list"][0]
        file = write_rows(folder / "far.jsonl", content)
        with pytest.raises(kind) as raised:
            run(file)
        assert drop_details(str(raised.value)).startswith(f"{file}:{first + 1}: {text}")
        assert not (folder / "far.out.jsonl").exists()


def test_bad_rows_are_counted_and_the_first_thousand_listed(folder: Path) -> None:
    made = make_rows(3000)
    bad = set(random.Random(2).sample(range(3000), 1500))
    mixed: list[Any] = [
        {**row, "labels": [*row["labels"], "O"]} if k in bad else row for k, row in enumerate(made)
    ]
    file = write_rows(folder / "skip.jsonl", mixed)
    good = [row for k, row in enumerate(made) if k not in bad]
    expected = [
        f"{file}:{k + 1}: labels: words and labels must have the same length: "
        f"got {len(made[k]['words'])} and {len(made[k]['words']) + 1}"
        for k in sorted(bad)
    ]
    for threads in (1, 2):
        result = score_files([file], threads=threads, skip_bad_rows=True)
        assert without_places(in_order(result))[0] == without_places(score_list(good))[0]
        assert (result.bad_rows, result.listed_bad_rows) == (1500, tuple(expected[:1000]))
    result = score_examples(mixed, skip_bad_rows=True)
    assert without_places(in_order(result))[0] == without_places(score_list(good))[0]
    assert result.bad_rows == 1500
    assert result.listed_bad_rows == tuple(
        re.sub(r"^.*?:(\d+): ", lambda m: f"examples[{int(m[1]) - 1}]: ", text)
        for text in expected[:1000]
    )


def test_nothing_but_bad_rows(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [b"{", b"[]"])
    result = score_files([file], skip_bad_rows=True)
    assert (result.datasets, result.bad_rows) == ({}, 2)


def test_lone_surrogate_in_a_key_that_nobody_reads(tmp_path: Path) -> None:
    """It does no harm; at least it must not be laid at another key's door."""
    for line in (
        rb'{"\ud800": 1, ' + VALID_LINE[1:],
        VALID_LINE[:-1] + rb', "\ud800": 1}',
        rb'{"instance": {"\udc00": 1}, ' + VALID_LINE[1:],
    ):
        agree(score_by_definition, score_content, tmp_path / "a.jsonl", line)


def test_bytes_are_counted_from_the_start_of_the_line(tmp_path: Path) -> None:
    line = b'  {"z": "\xff"}'
    error = agree(score_by_definition, score_content, tmp_path / "a.jsonl", line)
    assert str(error).endswith(":1: not UTF-8 at byte 10")


@pytest.mark.parametrize(
    ("row", "kind", "text"),
    [
        ([], TypeError, "expected a dict, got list"),
        (None, TypeError, "expected a dict, got NoneType"),
        (without("label_list"), ValueError, "types: this key is missing"),
        (without("words"), ValueError, "words: this key is missing"),
        (without("labels"), ValueError, "labels: this key is missing"),
        (without("prediction"), ValueError, "prediction: this key is missing"),
        ({**VALID, "instance": 1}, TypeError, "instance: expected a dict, got int"),
        ({**VALID, "dataset": 1}, TypeError, "dataset: must be a str: got int"),
        ({**VALID, "dataset": None}, TypeError, "dataset: must be a str: got NoneType"),
        ({**VALID, "prediction": b""}, TypeError, "prediction: must be a str: got bytes"),
        ({**VALID, "words": "abc"}, TypeError, "words: must be a sequence of str: got str"),
        ({**VALID, "words": 3}, TypeError, "words: must be a sequence of str: got int"),
        ({**VALID, "words": ["a", 1, "b"]}, TypeError, "words: [1] must be a str: got int"),
        ({**VALID, "labels": ["O", None]}, TypeError, "labels: [1] must be a str: got NoneType"),
        ({**VALID, "label_list": [1.5]}, TypeError, "label_list: [0] must be a str: got float"),
        (
            {**NESTED, "instance": {"words": ["a"], "labels": [1]}},
            TypeError,
            "instance.labels: [0] must be a str: got int",
        ),
        (
            {**VALID, "labels": []},
            ValueError,
            "labels: words and labels must have the same length: got 3 and 0",
        ),
        (
            {**VALID, "labels": ["O", "O", "B-q"]},
            ValueError,
            "labels: [2] 'B-q' is not in types",
        ),
        ({**VALID, "words": ["a", "\ud800", "b"]}, ValueError, "words: [1] holds a lone surrogate"),
        ({**VALID, "labels": ["\udfff"] * 3}, ValueError, "labels: [0] holds a lone surrogate"),
        ({**VALID, "label_list": ["\ud800"]}, ValueError, "label_list: [0] holds a lone surrogate"),
        ({**VALID, "prediction": "\ud800"}, ValueError, "prediction: holds a lone surrogate"),
        ({**VALID, "dataset": "\ud800"}, ValueError, "dataset: holds a lone surrogate"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 1, 300])
def test_bad_row_of_a_list(row: Any, kind: type[Exception], text: str, before: int) -> None:
    examples = [VALID] * before + [row] + [VALID] * 300 + [{}]
    with pytest.raises(kind) as raised:
        score_examples(examples, threads=2)
    assert str(raised.value) == f"examples[{before}]: {text}"
    agree(reference.score_examples, score_examples, examples)
    result = score_examples(examples, skip_bad_rows=True)
    assert result.bad_rows == 2
    assert result.listed_bad_rows[0] == str(raised.value)
    assert list(result.datasets.items()) == score_list([VALID] * (before + 300))[0]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\r\n\n", BOM, BOM + b"\n"])
def test_file_without_rows(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    for options in ({}, {"skip_bad_rows": True}, {"threads": 2}):
        with pytest.raises(ValueError, match=r"a\.jsonl: the file holds no rows$"):
            score_files([file], **options)
        with pytest.raises(ValueError, match=r"a\.jsonl: the file holds no rows$"):
            align_file(file, tmp_path / "b.jsonl", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    cases: list[tuple[Path, type[OSError]]] = [
        (tmp_path / "none.jsonl", FileNotFoundError),
        (tmp_path, IsADirectoryError),
    ]
    for path, kind in cases:
        with pytest.raises(kind) as raised:
            score_files([path])
        check_file_error(raised.value, path)
        with pytest.raises(kind) as raised:
            align_file(path, tmp_path / "b.jsonl")
        check_file_error(raised.value, path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_scheme(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID])
    text = r"scheme must be one of gner, universalner, strict, conll, iob2: got .other.$"
    for call in (
        lambda: score_examples([VALID], "other"),
        lambda: score_files([file], "other"),
        lambda: align_file(file, tmp_path / "b.jsonl", "other"),
        lambda: align_row(VALID, "other"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
