"""`ops.predictions` against the authors' scores, the laws of streaming, and its definition."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.ops.entities import SCHEMES, compute_quality
from lmcore.ops.predictions import align_file, align_row, score_examples, score_files
from lmcore.reference.entities import classify_errors, count_entities, decode_spans
from lmcore.reference.matching import match_labels
from lmcore.reference.predictions import Row, RowCounts, read_row, score_lines
from lmcore.reference.words import locate_words, split_words
from parity import agree
from prediction_rows import (
    UNREAD,
    VALID,
    Raw,
    bad_lines,
    interrupt_reader,
    lines,
    make_rows,
    rows,
    write_json,
    write_rows,
)
from strategies import PECULIAR_WORDS, TYPES, generations, label_lists, sentences, texts

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = {"score": 1 << 18, "align": 1 << 19}  # rust/predictions/{score,align}.rs
THREADS = [1, 2, 3, 8]
VALID_LINE = json.dumps(VALID).encode()
_SYNTAX = re.compile(r"(?:[a-z_.]+: )?not valid JSON: .*", re.DOTALL)
_few = settings(max_examples=max(4, settings().max_examples // 8))  # large inputs

Sums = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the examples of a property share."""
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def many_rows(folder: Path) -> Path:
    """A file of several blocks, with three data sets in turn."""
    path = write_rows(folder / "many.jsonl", make_rows(6000, datasets=["one", "two", "北"]))
    assert path.stat().st_size > 6 * BLOCK_BYTES["score"] > 2 * BLOCK_BYTES["align"]
    return path


def plain_sums(result: dict[str, Any]) -> list[tuple[str, RowCounts]]:
    """The part of the result that the definition has, in order."""
    return [
        (name, RowCounts(**{field: _as_tuple(sums[field]) for field in RowCounts._fields}))
        for name, sums in result["datasets"].items()
    ]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def drop_details(error: Exception) -> Exception:
    """An error without what a JSON reader says about syntax."""
    return type(error)(_SYNTAX.sub("not valid JSON", str(error)))


def score_by_definition(
    path: Path, content: bytes, scheme: str = "gner"
) -> list[tuple[str, RowCounts]]:
    number = 0

    def count_lines() -> Iterator[bytes]:
        nonlocal number
        for number, line in enumerate(content.removeprefix(BOM).split(b"\n"), start=1):  # noqa: B007
            yield line

    try:
        sums = score_lines(count_lines(), path.stem, scheme)
    except (TypeError, ValueError) as error:
        raise drop_details(type(error)(f"{path}:{number}: {error}")) from None
    if not sums:
        raise ValueError(f"{path}: the file holds no rows")
    return list(sums.items())


def score_content(
    path: Path, content: bytes, scheme: str = "gner", threads: int | None = None
) -> list[tuple[str, RowCounts]]:
    path.write_bytes(content)
    try:
        return plain_sums(score_files([path], scheme, threads=threads))
    except (TypeError, ValueError) as error:
        raise drop_details(error) from None


def score_list(made: list[dict[str, Any]], scheme: str = "gner") -> list[tuple[str, RowCounts]]:
    return plain_sums(score_examples(made, scheme))


# Golden: the authors' evaluator on real and on damaged predictions.


def check_authors_scores(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sorted(result["datasets"]) == sorted(expected)
    for name, scores in expected.items():
        sums = result["datasets"][name]
        quality = compute_quality(sums["entities"], "gner")._asdict()
        assert quality == pytest.approx({key: scores[key] for key in quality}, rel=0, abs=1e-9)
        if "conditions" in scores:
            assert tuple(sums["conditions"]) == tuple(scores["conditions"].values())
            assert list(scores["conditions"]) == ["exact", "subsequence", "lcs"]
            assert sums["rows"] == scores["rows"]


def unpack(golden_dir: Path, names: Sequence[str], folder: Path) -> list[Path]:
    files = []
    for name in names:
        files.append(folder / f"{Path(name).name}.jsonl")
        files[-1].write_bytes(gzip.decompress((golden_dir / f"gner/{name}.jsonl.gz").read_bytes()))
    return files


GOLDEN = {
    "scores": ["GNER-IT-vllm/ADG", "GNER-IT-vllm/FIC", "GNER-IT-vllm/WN"],
    "corrupted_scores": ["corrupted"],
}


@pytest.mark.parametrize("scores", GOLDEN)
def test_authors_scores(golden_dir: Path, tmp_path: Path, scores: str) -> None:
    expected = json.loads((golden_dir / f"gner/{scores}.json").read_text(encoding="utf-8"))
    files = unpack(golden_dir, GOLDEN[scores], tmp_path)
    for threads in (1, 2):
        check_authors_scores(score_files(files, threads=threads), expected)


def test_authors_scores_of_real_files(data_dir: Path, golden_dir: Path) -> None:
    files = sorted((data_dir / "ner/gner_predictions/GNER-IT-vllm").glob("*.jsonl"))
    expected = json.loads((golden_dir / "gner/scores.json").read_text(encoding="utf-8"))
    assert [file.stem for file in files] == sorted(expected)
    check_authors_scores(score_files(files), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_damaged_rows_agree_with_definition(golden_dir: Path, tmp_path: Path, scheme: str) -> None:
    (file,) = unpack(golden_dir, ["corrupted"], tmp_path)
    made = [json.loads(line) for line in file.read_bytes().splitlines()]
    sums = agree(score_by_definition, score_content, file, file.read_bytes(), scheme)
    assert score_list(made, scheme) == sums


# Laws: the form of the input does not matter.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rows_count_the_same_in_every_form(tmp_path: Path, scheme: str) -> None:
    made = make_rows(300, datasets=["one", "two"])
    sums = score_list(made, scheme)
    assert sum(counts.rows for _, counts in sums) == 300
    assert all(all(counts.conditions) and all(counts.differences) for _, counts in sums)
    assert all(all(counts.entities) and all(counts.errors) for _, counts in sums)

    def nest(row: dict[str, Any], *keys: str) -> dict[str, Any]:
        outer = {key: value for key, value in row.items() if key not in keys}
        return {**outer, "instance": {"id": "0", **{key: row[key] for key in keys}}}

    forms = [
        made,
        [nest(row, "words", "labels") for row in made],
        [nest(row, "words") for row in made],
        [nest(row, "labels") for row in made],
        [nest(row) for row in made],
    ]
    for number, form in enumerate(forms):
        file = write_rows(tmp_path / f"{number}.jsonl", form)
        assert plain_sums(score_files([file], scheme)) == sums
        assert score_list(form, scheme) == sums
    sequences = [
        {**row, "words": tuple(row["words"]), "labels": tuple(row["labels"])} for row in made
    ]
    assert score_list(sequences, scheme) == sums
    assert plain_sums(score_examples(iter(made), scheme)) == sums


def test_rows_of_a_data_set_may_stand_in_several_files(tmp_path: Path) -> None:
    made = make_rows(120, datasets=["one", "two", "three"])
    files = [write_rows(tmp_path / f"{k}.jsonl", made[k : k + 40]) for k in (0, 40, 80)]
    assert plain_sums(score_files(files)) == score_list(made)


def test_rows_without_data_set(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "the.stem.jsonl", [VALID, {**VALID, "dataset": "named"}, VALID])
    sums = score_files([str(file)])["datasets"]
    assert [(name, part["rows"]) for name, part in sums.items()] == [("the.stem", 2), ("named", 1)]
    assert list(score_examples([VALID])["datasets"]) == ["examples"]


@pytest.mark.parametrize("threads", [1, 2])
def test_frame_of_the_file(tmp_path: Path, threads: int) -> None:
    made = [VALID_LINE, json.dumps(VALID | {"prediction": ""}).encode(), VALID_LINE]
    file = tmp_path / "a.jsonl"
    expected = score_content(file, b"\n".join(made) + b"\n", "gner", threads)
    assert [counts.rows for _, counts in expected] == [3]
    for content in (
        b"\n".join(made),
        b"\r\n".join(made) + b"\r\n",
        BOM + b"\n".join(made),
        b"\n\n  \n\t\r\n" + b"\n \n\n".join(made) + b"\n\n",
        b"\n".join(b" \t" + line + b" \t\r" for line in made),
        BOM + b"\r\n" + b"\r\n".join(made),
    ):
        assert score_content(file, content, "gner", threads) == expected


def test_empty_prediction_is_a_row() -> None:
    (sums,) = score_examples([VALID | {"prediction": ""}])["datasets"].values()
    assert sums["empty_predictions"] == 1
    assert tuple(sums["conditions"]) == (0, 1, 0)
    assert sums["differences"] == (3, 0, 0)
    assert sums["entities"] == (1, 0, 0)


def test_label_list_is_what_rows_allow(many_rows: Path) -> None:
    """A worker remembers few lists; rows in turn must not mix them up."""
    pool = [[f"{k}-{i}" for i in range(3)] for k in range(20)]
    made = [
        {**VALID, "dataset": f"d{k % 3}", "label_list": ["x", *pool[k % len(pool)]]}
        for k in range(600)
    ]
    for name, sums in score_examples(made)["datasets"].items():
        allowed = {label for row in made if row["dataset"] == name for label in row["label_list"]}
        assert sums["label_list"] == sorted(allowed)
        assert sums["invalid_labels"] == 0
    for sums in score_files([many_rows])["datasets"].values():
        assert sums["label_list"] == ["unused", "x", "y"]


# Laws: blocks and threads do not matter.


def test_number_of_threads_changes_nothing(folder: Path, many_rows: Path) -> None:
    made: list[Any] = many_rows.read_bytes().splitlines()
    source = random.Random(1)
    for number in range(50):
        made.insert(source.randrange(len(made)), b'{"bad": %d}' % number)
    file = write_rows(folder / "threads.jsonl", made)
    results = [
        json.dumps(score_files([file, many_rows], threads=t, worst=7, skip_bad_rows=True))
        for t in THREADS
    ]
    assert len(set(results)) == 1
    result = json.loads(results[0])
    assert result["bad_rows"] == len(result["listed_bad_rows"]) == 50
    first = next(number for number, line in enumerate(made, start=1) if b"bad" in line)
    assert result["listed_bad_rows"][0] == f"{file}:{first}: label_list: this key is missing"
    assert list(result["datasets"]) == list(
        dict.fromkeys(json.loads(line)["dataset"] for line in made if b"bad" not in line)
    )

    examples = [json.loads(line) for line in made]
    lists = [
        json.dumps(score_examples(examples, threads=t, worst=7, skip_bad_rows=True))
        for t in THREADS
    ]
    assert len(set(lists)) == 1
    once = score_files([file], worst=7, skip_bad_rows=True)
    from_list = json.loads(lists[0])
    assert from_list["bad_rows"] == 50
    for name, sums in once["datasets"].items():
        other = from_list["datasets"][name]
        for sentence, same in zip(sums.pop("worst"), other.pop("worst"), strict=True):
            assert (sentence.pop("path"), same.pop("path")) == (str(file), "")
            assert (sentence.pop("row") - 1, sentence) == (same.pop("row"), same)
        assert json.loads(json.dumps(sums)) == other


def test_number_of_threads_changes_no_aligned_row(folder: Path, many_rows: Path) -> None:
    written = []
    for threads in THREADS:
        target = folder / f"aligned-{threads}.jsonl"
        assert align_file(many_rows, target, threads=threads) == (6000, 0, [])
        written.append(target.read_bytes())
    assert len(set(written)) == 1
    assert written[0].count(b"\n") == 6000


@pytest.mark.parametrize("command", ["score", "align"])
@pytest.mark.parametrize("size", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_lines_that_end_near_the_end_of_a_block(
    tmp_path: Path, command: str, size: int, threads: int
) -> None:
    block = BLOCK_BYTES[command]
    frame = len(json.dumps({**VALID, "unread": ""}))

    def fill(length: int) -> bytes:
        """A row of this length with its line feed."""
        line = json.dumps({**VALID, "unread": "-" * (length - frame - 1)}).encode()
        assert len(line) + 1 == length
        return line

    made = [fill(block + size), fill(block - size), fill(3 * block + size), VALID_LINE]
    made += [fill(1000)] * 300 + [fill(5 * block)]
    file = write_rows(tmp_path / "a.jsonl", made)
    if command == "score":
        (sums,) = score_files([file], threads=threads)["datasets"].values()
        assert (sums["rows"], sums["entities"]) == (305, (305, 305, 305))
    else:
        assert align_file(file, tmp_path / "b.jsonl", threads=threads) == (305, 0, [])
        (line,) = set((tmp_path / "b.jsonl").read_bytes().splitlines())
        assert json.loads(line)["labels"] == VALID["labels"]


def test_very_long_rows(tmp_path: Path) -> None:
    count = 200_000
    words, labels = [f"w{k % 97}" for k in range(count)], ["B-x", *["I-x"] * 9] * (count // 10)
    prediction = " ".join(f"{w}({la})" for w, la in zip(words, labels, strict=True))
    row = {"label_list": ["x"], "words": words, "labels": labels, "prediction": prediction}
    file = write_rows(tmp_path / "a.jsonl", [row, VALID, row])
    assert file.stat().st_size > 30 * BLOCK_BYTES["score"]
    ((_, counts),) = plain_sums(score_files([file], "strict", threads=2))
    assert (counts.rows, counts.words) == (3, 2 * count + 3)
    assert counts.entities == (count // 5 + 1,) * 3
    assert counts.conditions == (3, 0, 0)


def test_worst_sentences(folder: Path, many_rows: Path) -> None:
    made = [json.loads(line) for line in many_rows.read_bytes().splitlines()]
    wrong: dict[str, list[tuple[int, int]]] = {}
    predicted = []
    for number, row in enumerate(made, start=1):
        match = match_labels(row["words"], row["prediction"], row["label_list"])
        counts = count_entities(row["words"], row["labels"], match.labels, "strict")
        total = counts.gold + counts.predicted - 2 * counts.correct
        wrong.setdefault(row["dataset"], []).append((-total, number))
        predicted.append(match)
    for worst in (0, 1, 3, 50, 10**6, 2**62):
        result = score_files([many_rows], "strict", worst=worst, threads=3)
        for name, sums in result["datasets"].items():
            expected = [pair for pair in sorted(wrong[name])[:worst] if pair[0]]
            assert [(-row["wrong"], row["row"]) for row in sums["worst"]] == expected
    row = score_files([many_rows], "strict", worst=1)["datasets"]["two"]["worst"][0]
    given_row, match = made[row["row"] - 1], predicted[row["row"] - 1]
    assert row == {
        "wrong": -sorted(wrong["two"])[0][0],
        "path": str(many_rows),
        "row": row["row"],
        "words": given_row["words"],
        "labels": given_row["labels"],
        "predicted": match.labels,
        "prediction": given_row["prediction"],
        "matching": match.matching,
        "alignment": match.alignment,
    }


# Parity: reference and Rust on the same bytes.


@given(st.data())
def test_usable_rows(folder: Path, data: st.DataObject) -> None:
    frame = data.draw(st.sampled_from([b"", BOM]))
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n\t\n"]))
    made = data.draw(st.lists(lines(), min_size=1, max_size=4))
    content = frame + line_end.join(made) + data.draw(st.sampled_from([b"", line_end]))
    scheme = data.draw(st.sampled_from(SCHEMES))
    threads = data.draw(st.sampled_from([None, 1, 2]))
    path = folder / "usable.jsonl"
    sums = agree(
        score_by_definition, partial(score_content, threads=threads), path, content, scheme
    )
    assert not isinstance(sums, Exception)


@given(st.data())
def test_bad_rows_among_others(folder: Path, data: st.DataObject) -> None:
    made = data.draw(st.lists(st.one_of(lines(), bad_lines(), st.just(b"")), max_size=4))
    path = folder / "bad.jsonl"
    scheme = data.draw(st.sampled_from(SCHEMES))
    agree(score_by_definition, score_content, path, b"\n".join(made), scheme)

    # Skipped, they are exactly those that the definition refuses one by one.
    kept, listed = [], []
    for number, line in enumerate(made, start=1):
        try:
            if line.strip():
                read_row(line)
        except (TypeError, ValueError) as error:
            listed.append(str(drop_details(type(error)(f"{path}:{number}: {error}"))))
        else:
            kept.append(line)
    if any(line.strip() for line in made):
        result = score_files([path], scheme, skip_bad_rows=True)
        assert plain_sums(result) == list(score_lines(kept, "bad", scheme).items())
        assert result["bad_rows"] == len(listed)
        found = [str(drop_details(ValueError(text))) for text in result["listed_bad_rows"]]
        assert found == listed


@given(rows(), st.sampled_from(UNREAD), st.sampled_from(SCHEMES))
def test_lists_of_rows(row: dict[str, Any], unread: str, scheme: str) -> None:
    line = write_json({**row, "unread": Raw(unread)}, random.Random(0), plain=True).encode()
    examples = [{**row, "unread": object()}]
    assert score_list(examples, scheme) == list(score_lines([line], "examples", scheme).items())


@_few
@given(st.data())
def test_more_rows_than_a_block(folder: Path, data: st.DataObject) -> None:
    made = data.draw(st.lists(lines(), min_size=1, max_size=6))
    content = b"\n".join(made) + b"\n"
    times = 3 * BLOCK_BYTES["score"] // len(content) + 1
    path = folder / "blocks.jsonl"

    def multiply(value: Any) -> Any:
        return tuple(map(multiply, value)) if isinstance(value, tuple) else value * times

    expected = [(name, multiply(counts)) for name, counts in score_by_definition(path, content)]
    for threads in (1, 2, 3):
        assert score_content(path, content * times, "gner", threads) == expected


@pytest.mark.parametrize("byte", [bytes([code]) for code in [*range(33), 0x7F]] + [b"\xc2\x85"])
def test_control_characters_around_rows(tmp_path: Path, byte: bytes) -> None:
    for content in (byte, byte + VALID_LINE, VALID_LINE + byte, byte + b"\n" + VALID_LINE):
        agree(score_by_definition, score_content, tmp_path / "a.jsonl", content)


@pytest.mark.parametrize("code", [*range(32), 0x7F, 0x85, 0x200B, 0x2028, 0xFEFF, 0x1F600])
def test_characters_in_words(tmp_path: Path, code: int) -> None:
    word = f"a{chr(code)}b"
    row = {**VALID, "words": [word, "New", "York"], "prediction": f"{word}(O) New(B-x) York(I-x)"}
    escaped = "".join(rf"\u{unit:04x}" for unit in _units(code))
    for text in (
        json.dumps(row),
        json.dumps(row, ensure_ascii=False),
        json.dumps(row, ensure_ascii=False).replace(chr(code), escaped),
        json.dumps({**row, "words": None, "prediction": None})
        .replace("null", json.dumps([f"a{chr(code)}b", "New", "York"]), 1)
        .replace("null", f'"{word}(O) New(B-x) York(I-x)"', 1),
    ):
        agree(score_by_definition, score_content, tmp_path / "a.jsonl", text.encode())


def _units(code: int) -> list[int]:
    units = chr(code).encode("utf-16-be")
    return [int.from_bytes(units[k : k + 2]) for k in range(0, len(units), 2)]


# Bad rows.


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in VALID.items() if key not in keys}


def dump(row: Any) -> bytes:
    return write_json(row, random.Random(0), plain=True).encode()


NESTED = {**without("words", "labels"), "instance": {k: VALID[k] for k in ("words", "labels")}}
BAD: dict[str, tuple[bytes, type[Exception], str]] = {
    "syntax": (b'{"label_list": [,]}', ValueError, "not valid JSON"),
    "cut": (VALID_LINE[:-1], ValueError, "not valid JSON"),
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
    "empty": (b"{}", ValueError, "label_list: this key is missing"),
    **{
        f"no {key}": (dump(without(key)), ValueError, f"{key}: this key is missing")
        for key in VALID
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
            f"labels: [2] {label!r} is not in label_list",
        )
        for label in [
            *("B-z", "B-", "o", "", "x", "B-X", "B-x ", "O\n", "é"),
            *("'", "'\"", "\\", "\x1f", "\x7f"),
        ]
    },
    "unprintable label": (
        dump({**VALID, "labels": ["O", "O", "B-\u200b\xa0\u2028"]}),
        ValueError,
        "labels: [2] 'B-\\u200b\\xa0\\u2028' is not in label_list",
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
        assert str(drop_details(raised.value)).startswith(f"{file}:{first + 1}: {text}")
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
        assert plain_sums(result) == score_list(good)
        assert (result["bad_rows"], result["listed_bad_rows"]) == (1500, expected[:1000])
    result = score_examples(mixed, skip_bad_rows=True)
    assert plain_sums(result) == score_list(good)
    assert result["bad_rows"] == 1500
    assert result["listed_bad_rows"] == [
        re.sub(r"^.*?:(\d+): ", lambda m: f"examples[{int(m[1]) - 1}]: ", text)
        for text in expected[:1000]
    ]


def test_nothing_but_bad_rows(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [b"{", b"[]"])
    result = score_files([file], skip_bad_rows=True)
    assert (result["datasets"], result["bad_rows"]) == ({}, 2)


def test_lone_surrogate_in_a_key_that_nobody_reads(tmp_path: Path) -> None:
    """It does no harm; at least it must not be laid at another key's door."""
    for line in (
        rb'{"\ud800": 1, ' + VALID_LINE[1:],
        VALID_LINE[:-1] + rb', "\ud800": 1}',
        rb'{"instance": {"\udc00": 1}, ' + VALID_LINE[1:],
    ):
        agree(score_by_definition, score_content, tmp_path / "a.jsonl", line)


def test_place_of_a_byte_counts_from_the_start_of_the_line(tmp_path: Path) -> None:
    line = b'  {"z": "\xff"}'
    error = agree(score_by_definition, score_content, tmp_path / "a.jsonl", line)
    assert str(error).endswith(":1: not UTF-8 at byte 10")


@pytest.mark.parametrize(
    ("row", "kind", "text"),
    [
        ([], TypeError, "expected a dict, got list"),
        (None, TypeError, "expected a dict, got NoneType"),
        (without("label_list"), ValueError, "label_list: this key is missing"),
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
            "labels: [2] 'B-q' is not in label_list",
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
    result = score_examples(examples, skip_bad_rows=True)
    assert result["bad_rows"] == 2
    assert result["listed_bad_rows"][0] == str(raised.value)
    assert plain_sums(result) == score_list([VALID] * (before + 300))


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


def check_file_error(error: OSError, path: Path) -> None:
    """As the errors of `open`."""
    assert error.filename == str(path)
    assert error.errno is not None
    assert error.strerror == os.strerror(error.errno)


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


# Hooks: progress, tokenizer, Ctrl-C.


@pytest.mark.parametrize("threads", [1, 2])
def test_progress(many_rows: Path, tmp_path: Path, threads: int) -> None:
    size = many_rows.stat().st_size
    runs: list[Callable[..., Any]] = [
        lambda hook: score_files([many_rows], threads=threads, progress=hook),
        lambda hook: align_file(many_rows, tmp_path / "b", threads=threads, progress=hook),
    ]
    for run in runs:
        seen: list[int] = []
        run(seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == size
        assert len(set(seen)) > 2
        assert 0 <= seen[0] < size


def test_progress_of_several_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    files[0].write_bytes(BOM + VALID_LINE + b"\r\n\n\n")
    files[1].write_bytes(VALID_LINE)
    seen: list[int] = []
    score_files(files, progress=seen.append)
    sizes = [file.stat().st_size for file in files]
    assert list(dict.fromkeys(seen)) == [sizes[0], sum(sizes)]


def test_progress_of_equal_files(tmp_path: Path) -> None:
    """Two files of one size count twice: a bar over both ends at its end."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_bytes(VALID_LINE)
    seen: list[int] = []
    score_files(files, progress=seen.append)
    assert list(dict.fromkeys(seen)) == [len(VALID_LINE), 2 * len(VALID_LINE)]


class _StopError(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [_StopError, KeyboardInterrupt, ValueError, SystemExit])
def test_what_a_hook_raises_comes_out(
    many_rows: Path, tmp_path: Path, threads: int, kind: type[BaseException]
) -> None:
    raised = kind("exactly this")
    calls = 0

    def hook(_: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 or isinstance(_, list):
            raise raised
        return _

    made = [VALID] * 20_000
    runs: list[Callable[[], Any]] = [
        lambda: score_files([many_rows], threads=threads, progress=hook),
        lambda: score_files([many_rows], threads=threads, back_tokenize=hook),
        lambda: score_examples(made, threads=threads, back_tokenize=hook),
        lambda: align_file(many_rows, tmp_path / "b", threads=threads, progress=hook),
        lambda: align_file(many_rows, tmp_path / "b", threads=threads, back_tokenize=hook),
    ]
    for run in runs:
        calls = 0
        with pytest.raises(kind) as caught:
            run()
        assert caught.value is raised
        assert list(tmp_path.iterdir()) == []


def back_tokenize_word(word: str) -> str:
    """A tokenizer that does not know some characters, and writes others differently."""
    return word.replace("é", "").replace("ß", "ss").replace("北", "<unk>").replace("b", "a")


class Recorder:
    """A tokenizer that remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, words: list[str]) -> list[str]:
        self.batches.append(words)
        return [back_tokenize_word(word) for word in words]

    def check(self, made: list[dict[str, Any]]) -> None:
        asked = [word for batch in self.batches for word in batch]
        assert sorted(asked) == sorted({w.lower() for row in made for w in row["words"]})
        assert all(self.batches)


def score_back_tokenized(row: Row, scheme: str) -> tuple[Any, ...]:
    compared = [back_tokenize_word(word.lower()) for word in row.words]
    match = match_labels(row.words, row.prediction, row.label_list, compared)
    return (
        match.matching,
        count_entities(row.words, row.labels, match.labels, scheme),
        classify_errors(row.labels, match.labels, scheme),
        (len(match.omitted), len(match.added), len(match.substituted)),
        match.labels,
    )


def check_back_tokenized(made: list[dict[str, Any]], folder: Path, scheme: str) -> None:
    expected = [score_back_tokenized(read_row(dump(row)), scheme) for row in made]
    file = write_rows(folder / "back.jsonl", made)
    for threads in (1, 2):
        runs: list[Callable[..., dict[str, Any]]] = [
            partial(score_files, [file], scheme, threads=threads),
            partial(score_examples, made, scheme, threads=threads),
        ]
        for run in runs:
            recorder = Recorder()
            parts = run(back_tokenize=recorder)["datasets"].values()
            recorder.check(made)
            names = ("exact", "subsequence", "lcs")
            for key, total in {
                "conditions": tuple(sum(e[0] == name for e in expected) for name in names),
                "entities": tuple(map(sum, zip(*(e[1] for e in expected), strict=True))),
                "errors": tuple(map(sum, zip(*(e[2] for e in expected), strict=True))),
                "differences": tuple(map(sum, zip(*(e[3] for e in expected), strict=True))),
            }.items():
                assert total == tuple(map(sum, zip(*(part[key] for part in parts), strict=True)))
        recorder = Recorder()
        target = folder / "back.out.jsonl"
        align_file(file, target, scheme, threads=threads, back_tokenize=recorder)
        recorder.check(made)
        aligned = [json.loads(line) for line in target.read_bytes().splitlines()]
        assert [row["labels"] for row in aligned] == [e[4] for e in expected]
        assert [row["matching"] for row in aligned] == [e[0] for e in expected]


@given(st.lists(rows(), min_size=1, max_size=4), st.sampled_from(SCHEMES))
def test_back_tokenisation(folder: Path, made: list[dict[str, Any]], scheme: str) -> None:
    check_back_tokenized(made, folder, scheme)


def test_back_tokenisation_over_blocks(folder: Path) -> None:
    made = make_rows(9000, seed=5)
    check_back_tokenized(made, folder, "gner")
    recorder = Recorder()
    score_examples(made, back_tokenize=recorder)
    assert len(recorder.batches) <= 2, "one batch per table of 8192 rows"


def test_back_tokenisation_changes_input_words_alone(tmp_path: Path) -> None:
    row = {"label_list": ["x"], "words": ["Bé"], "labels": ["B-x"]}
    hook = Recorder()
    known = score_examples([{**row, "prediction": "A(B-x)"}], back_tokenize=hook)
    assert known["datasets"]["examples"]["entities"] == (1, 1, 1)
    assert hook.batches == [["bé"]]
    # A generated word stays as it is, and the answer replaces the word.
    unknown = score_examples([{**row, "prediction": "Bé(B-x)"}], back_tokenize=hook)
    assert unknown["datasets"]["examples"]["entities"] == (1, 0, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_tokenizer_that_answers_wrongly(tmp_path: Path, threads: int) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID])
    cases: list[tuple[Callable[[list[str]], Any], type[Exception]]] = [
        (lambda words: words[1:], ValueError),
        (lambda words: [*words, "x"], ValueError),
        (lambda words: [1 for _ in words], TypeError),
        (lambda words: None, TypeError),
        (lambda words: "abc", TypeError),
        (lambda words: ["\ud800" for _ in words], ValueError),
    ]
    for hook, kind in cases:
        for run in (
            lambda: score_examples([VALID], threads=threads, back_tokenize=hook),  # noqa: B023
            lambda: score_files([file], threads=threads, back_tokenize=hook),  # noqa: B023
            lambda: align_file(file, tmp_path / "b", threads=threads, back_tokenize=hook),  # noqa: B023
        ):
            with pytest.raises(kind):
                run()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


_INTERRUPTED = """
import signal, sys, time
from lmcore.ops.predictions import score_files, align_file

signal.signal(signal.SIGINT, signal.default_int_handler)
call, path, target = sys.argv[1:]
print("ready", flush=True)
try:
    score_files([path]) if call == "score" else align_file(path, target)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("command", ["score", "align"])
def test_ctrl_c(tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "endless.jsonl"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, command, str(pipe), str(tmp_path / "b.jsonl")],
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = interrupt_reader(process, pipe)
    assert output == "ready\ninterrupted\n"
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [pipe.name]


_MEASURED = """
import resource, sys
from pathlib import Path
from lmcore.ops.predictions import align_file, score_files

command, path, threads, *target = sys.argv[1:]
if command == "score":
    rows = sum(d["rows"] for d in score_files([path], threads=int(threads))["datasets"].values())
else:
    rows, *_ = align_file(path, *target, threads=int(threads))
status = Path("/proc/self/status")
if status.exists():  # what getrusage says of a child can be its parent's
    (peak,) = (line.split()[1] for line in status.open() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak //= 1024 if sys.platform == "darwin" else 1
print(rows, int(peak) // 1024)
"""


@pytest.mark.parametrize("command", ["score", "align"])
def test_memory_does_not_grow_with_the_file(folder: Path, many_rows: Path, command: str) -> None:
    content = many_rows.read_bytes()
    times = 200_000_000 // len(content) + 1
    if command == "align":
        times //= 4
    file = folder / "large.jsonl"
    try:
        with file.open("wb") as large:
            for _ in range(times):
                large.write(content)
        target = [] if command == "score" else [os.devnull]
        output = subprocess.run(
            [sys.executable, "-c", _MEASURED, command, str(file), "2", *target],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout
    finally:
        file.unlink()
    rows_done, peak_mebibytes = map(int, output.split())
    assert rows_done == 6000 * times
    assert peak_mebibytes < 200


# Aligned rows.


def align_by_definition(row: dict[str, Any], scheme: str) -> dict[str, Any]:
    """What an aligned row means, for rows with words."""
    words, text = row["words"], row.get("text", " ".join(row["words"]))
    if "text" in row:
        places = locate_words(text, words)
    else:
        ends = [sum(map(len, words[: k + 1])) + k for k in range(len(words))]
        places = [(end - len(word), end) for word, end in zip(words, ends, strict=True)]
    match = match_labels(words, row["prediction"], row["label_list"])
    parsed = match.parsed

    def generated(index: int) -> dict[str, Any]:
        return {"index": index, "word": parsed.words[index], "label": parsed.labels[index]}

    entities = []
    for span in decode_spans(match.labels, scheme):
        start, end = places[span.start][0], places[span.end - 1][1]
        entities.append({"start": start, "end": end, "type": span.type, "text": text[start:end]})
    return {
        "labels": match.labels,
        "entities": entities,
        "matching": match.matching,
        "omitted": [{"index": i, "word": words[i]} for i in match.omitted],
        "added": [generated(k) for k in match.added],
        "substituted": [
            {"index": i, "word": words[i], "generated": generated(k)} for i, k in match.substituted
        ],
        "invalid_labels": [generated(k) for k in match.invalid_labels],
        "dropped_labels": parsed.dropped_labels,
        "trailing_text": parsed.trailing_text,
    }


@st.composite
def rows_to_align(draw: st.DrawFn) -> dict[str, Any]:
    words, types = draw(sentences()), draw(label_lists)
    row: dict[str, Any] = {"words": words, "label_list": types}
    row["prediction"] = draw(generations(words, types))
    if draw(st.booleans()):
        between = st.sampled_from(["", " ", "  ", "\n", "北", "👍🏽", "e\u0301"])
        row["text"] = "".join(draw(between) + word for word in words) + draw(between)
    if draw(st.booleans()):
        row["instance"] = {"words": row.pop("words")}
    return row


def flatten(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "words": row.get("instance", row)["words"]}


@given(rows_to_align(), st.sampled_from(SCHEMES))
def test_aligned_row(row: dict[str, Any], scheme: str) -> None:
    agree(lambda r, s: align_by_definition(flatten(r), s), align_row, row, scheme)


@given(texts, label_lists, st.sampled_from(SCHEMES), st.data())
def test_aligned_text(text: str, types: list[str], scheme: str, data: st.DataObject) -> None:
    """Without words, the text is cut; faithful generations of the pieces agree with given ones."""
    places = split_words(text)
    pieces = [text[start:end] for start, end in places]
    row = {"text": text, "label_list": types, "prediction": data.draw(generations(pieces, types))}
    aligned = align_row(row, scheme)
    assert len(aligned["labels"]) == len(places)
    for entity in aligned["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"] != ""
        assert entity["type"] in types
    spans = [
        (places[span.start][0], places[span.end - 1][1], span.type)
        for span in decode_spans(aligned["labels"], scheme)
    ]
    assert [(e["start"], e["end"], e["type"]) for e in aligned["entities"]] == spans


@given(st.lists(rows_to_align(), min_size=1, max_size=4), st.data())
def test_aligned_file(folder: Path, made: list[dict[str, Any]], data: st.DataObject) -> None:
    scheme = data.draw(st.sampled_from(SCHEMES))
    source = random.Random(data.draw(st.integers(0, 2**32)))
    written = [write_json(row, source, data.draw(st.booleans())).encode() for row in made]
    file, target = write_rows(folder / "in.jsonl", written), folder / "out.jsonl"
    failures = [(number, str(e)) for number, row in enumerate(made, 1) if (e := _failure(row))]
    if failures:
        number, text = failures[0]
        with pytest.raises(ValueError, match="words") as raised:
            align_file(file, target, scheme)
        assert str(raised.value) == f"{file}:{number}: {text}"
        return
    assert align_file(file, target, scheme, threads=2) == (len(made), 0, [])
    content = target.read_text(encoding="utf-8")
    assert content.endswith("\n")
    aligned = [json.loads(line) for line in content[:-1].split("\n")]
    assert aligned == [align_row(row, scheme) for row in made]


def _failure(row: dict[str, Any]) -> ValueError | None:
    try:
        align_row(row)
    except ValueError as error:
        return error
    return None


def test_aligned_file_of_several_blocks(folder: Path, many_rows: Path) -> None:
    target = folder / "several.jsonl"
    align_file(many_rows, target, "strict", threads=2)
    made = [json.loads(line) for line in many_rows.read_bytes().splitlines()]
    aligned = [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(aligned) == len(made)
    for row, got in zip(made[::10], aligned[::10], strict=True):
        assert got == align_row(row, "strict") == align_by_definition(row, "strict")


def test_aligned_row_says_where_entities_stand() -> None:
    row = {"text": "👩‍👩‍👧 in 北京 e\u0301a", "label_list": ["c"], "prediction": "北京(B-c) é(O)"}
    aligned = align_row(row)
    assert aligned["entities"] == [{"start": 9, "end": 11, "type": "c", "text": "北京"}]
    assert [word["word"] for word in aligned["omitted"]] == ["👩‍👩‍👧", "in"]
    assert aligned["substituted"] == [
        {"index": 4, "word": "e\u0301a", "generated": {"index": 2, "word": "é", "label": "O"}}
    ]


@pytest.mark.parametrize(
    ("row", "kind", "text"),
    [
        (
            {"label_list": [], "prediction": ""},
            ValueError,
            "words: this key is missing, and so is text",
        ),
        ({"words": ["a"], "prediction": ""}, ValueError, "label_list: this key is missing"),
        ({"text": "a", "label_list": []}, ValueError, "prediction: this key is missing"),
        (
            {"text": 1, "label_list": [], "prediction": ""},
            TypeError,
            "text: expected a string, got a number",
        ),
        (
            {"text": "a b", "words": ["a", "c"], "label_list": [], "prediction": ""},
            ValueError,
            "words: words[1] 'c' is not in text after character 1",
        ),
        (
            {"words": "ab", "label_list": [], "prediction": ""},
            TypeError,
            "words: expected a list of strings, got a string",
        ),
        (
            {"text": "\ud800", "label_list": [], "prediction": ""},
            ValueError,
            "text: holds a lone surrogate",
        ),
        (
            {**VALID, "instance": 1},
            TypeError,
            "instance: expected an object, got a number",
        ),
        ({**VALID, "instance": None}, TypeError, "instance: expected an object, got null"),
        ({**VALID, "instance": "words"}, TypeError, "instance: expected an object, got a string"),
        ({**VALID, "instance": ["words"]}, TypeError, "instance: expected an object, got a list"),
        (
            {"label_list": [], "prediction": "", "instance": {"words": {}}},
            TypeError,
            "instance.words: expected a list of strings, got an object",
        ),
        (
            {**VALID, "instance": {"words": VALID["words"]}},
            ValueError,
            "words: this key stands at the top of the row and in its instance",
        ),
        ([], TypeError, "expected a JSON object, got a list"),
    ],
)  # fmt: skip
def test_row_that_cannot_be_aligned(
    tmp_path: Path, row: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as raised:
        align_row(row)
    assert str(raised.value) == text
    target = tmp_path / "b.jsonl"
    target.write_bytes(b"before")
    file = write_rows(tmp_path / "a.jsonl", [VALID, json.dumps(row).encode(), VALID])
    with pytest.raises(kind) as raised:
        align_file(file, target)
    assert str(raised.value) == f"{file}:2: {text}"
    assert target.read_bytes() == b"before"
    assert align_file(file, target, skip_bad_rows=True) == (2, 1, [f"{file}:2: {text}"])
    assert target.read_bytes().count(b"\n") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_unread_keys_of_a_row_may_hold_anything(value: Any) -> None:
    """As for `score_examples`: a row from a data frame carries more than is read."""
    assert align_row({**VALID, "unread": value}) == align_row(VALID)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID])
    cases: list[tuple[Path, type[OSError]]] = [
        (tmp_path / "none" / "b.jsonl", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (file / "b.jsonl", NotADirectoryError),
    ]
    for target, kind in cases:
        with pytest.raises(kind) as raised:
            align_file(file, target)
        check_file_error(raised.value, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_output_is_a_device_but_not_the_input(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID] * 3)
    before = file.read_bytes()
    (tmp_path / "soft.jsonl").symlink_to(file)
    (tmp_path / "hard.jsonl").hardlink_to(file)
    assert align_file(file, os.devnull) == (3, 0, [])
    assert Path(os.devnull).is_char_device()
    for name in ("a.jsonl", "soft.jsonl", "hard.jsonl"):
        with pytest.raises(ValueError, match=f"{name}: the output is an input too"):
            align_file(file, tmp_path / name)
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_peculiar_words_and_types_in_one_row(tmp_path: Path) -> None:
    """All words that went wrong somewhere before, in one sentence, in every scheme."""
    words = [word for word in PECULIAR_WORDS if word]
    labels = [f"{'BI'[k % 2]}-{TYPES[k // 2 % len(TYPES)]}" for k in range(len(words))]
    row = {
        "label_list": TYPES,
        "words": words,
        "labels": labels,
        "prediction": " ".join(f"{w}({la})" for w, la in zip(words, labels, strict=True)),
    }
    for scheme in SCHEMES:
        for text in (json.dumps(row), json.dumps(row, ensure_ascii=False)):
            agree(score_by_definition, score_content, tmp_path / "a.jsonl", text.encode(), scheme)


def test_equal_label_lists_leave_nothing_for_the_next_one() -> None:
    """Equal lists of a block are kept once; a later one must not inherit their labels."""
    rows = [
        {"words": ["x"], "labels": ["B-a"], "label_list": ["a"], "prediction": "x(B-a)"},
        {"words": ["x"], "labels": ["B-a"], "label_list": ["a"], "prediction": "x(B-a)"},
        {"words": ["x"], "labels": ["B-a"], "label_list": ["b"], "prediction": "x(B-b)"},
    ]
    assert rows[0]["label_list"] is not rows[1]["label_list"]
    with pytest.raises(
        ValueError, match=r"examples\[2\]: labels: \[0\] 'B-a' is not in label_list"
    ):
        score_examples(rows, threads=1)
