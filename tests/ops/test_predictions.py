"""`ops.predictions` against the authors' scores, the laws of streaming, and its definition."""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.ops.entities import SCHEMES, EntityCounts, compute_quality
from lmcore.ops.predictions import (
    AlignSummary,
    ConditionCounts,
    DifferenceCounts,
    Evaluation,
    WorstSentence,
    align_file,
    score_examples,
    score_files,
)
from lmcore.reference import predictions as reference
from lmcore.reference.entities import count_entities
from lmcore.reference.matching import match_labels
from parity import agree
from prediction_rows import (
    UNREAD,
    VALID,
    Raw,
    bad_lines,
    lines,
    make_rows,
    rows,
    write_json,
    write_rows,
)
from scored_rows import (
    BLOCK_BYTES,
    BOM,
    VALID_LINE,
    in_order,
    score_by_definition,
    score_content,
    score_list,
    without_places,
)
from strategies import PECULIAR_WORDS, TYPES

THREADS = [1, 2, 3, 8]
_few = settings(max_examples=max(4, settings().max_examples // 8))  # large inputs


# Golden: the authors' evaluator on real and on damaged predictions.


def check_authors_scores(result: Evaluation, expected: dict[str, Any]) -> None:
    assert sorted(result.datasets) == sorted(expected)
    for name, scores in expected.items():
        sums = result.datasets[name]
        quality = compute_quality(sums.entities, "gner")._asdict()
        assert quality == pytest.approx({key: scores[key] for key in quality}, rel=0, abs=1e-9)
        if "conditions" in scores:
            assert sums.conditions == tuple(scores["conditions"].values())
            assert list(scores["conditions"]) == ["exact", "subsequence", "lcs"]
            assert sums.rows == scores["rows"]


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
    assert without_places(score_list(made, scheme)) == without_places(sums)


# Laws: the form of the input does not matter.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rows_count_the_same_in_every_form(tmp_path: Path, scheme: str) -> None:
    made = make_rows(300, datasets=["one", "two"])
    sums = score_list(made, scheme)
    datasets, _, _ = sums
    assert sum(counts.rows for _, counts in datasets) == 300
    assert all(all(counts.conditions) and all(counts.differences) for _, counts in datasets)
    assert all(all(counts.entities) and all(counts.errors) for _, counts in datasets)

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
        by_file = in_order(score_files([file], scheme))
        assert without_places(by_file) == without_places(sums)
        assert score_list(form, scheme) == sums
    sequences = [
        {**row, "words": tuple(row["words"]), "labels": tuple(row["labels"])} for row in made
    ]
    assert score_list(sequences, scheme) == sums
    assert in_order(score_examples(iter(made), scheme)) == sums


def test_rows_of_a_data_set_may_stand_in_several_files(tmp_path: Path) -> None:
    made = make_rows(120, datasets=["one", "two", "three"])
    files = [write_rows(tmp_path / f"{k}.jsonl", made[k : k + 40]) for k in (0, 40, 80)]
    assert without_places(in_order(score_files(files))) == without_places(score_list(made))


def test_rows_without_data_set(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "the.stem.jsonl", [VALID, {**VALID, "dataset": "named"}, VALID])
    sums = score_files([str(file)]).datasets
    assert [(name, part.rows) for name, part in sums.items()] == [("the.stem", 2), ("named", 1)]
    assert list(score_examples([VALID]).datasets) == ["examples"]


@pytest.mark.parametrize("threads", [1, 2])
def test_frame_of_the_file(tmp_path: Path, threads: int) -> None:
    made = [VALID_LINE, json.dumps(VALID | {"prediction": ""}).encode(), VALID_LINE]
    file = tmp_path / "a.jsonl"
    expected = score_content(file, b"\n".join(made) + b"\n", threads=threads)
    assert [counts.rows for _, counts in expected[0]] == [3]
    for content in (
        b"\n".join(made),
        b"\r\n".join(made) + b"\r\n",
        BOM + b"\n".join(made),
        b"\n\n  \n\t\r\n" + b"\n \n\n".join(made) + b"\n\n",
        b"\n".join(b" \t" + line + b" \t\r" for line in made),
        BOM + b"\r\n" + b"\r\n".join(made),
    ):
        scored = score_content(file, content, threads=threads)
        assert without_places(scored) == without_places(expected)


def test_empty_prediction_is_a_row() -> None:
    (sums,) = score_examples([VALID | {"prediction": ""}]).datasets.values()
    assert sums.empty_predictions == 1
    assert sums.conditions == ConditionCounts(exact=0, subsequence=1, lcs=0)
    assert sums.differences == DifferenceCounts(omitted=3, added=0, substituted=0)
    assert sums.entities == EntityCounts(gold=1, predicted=0, correct=0)


def test_label_list_is_what_rows_allow(many_rows: Path) -> None:
    """A worker remembers few lists; rows in turn must not mix them up."""
    pool = [[f"{k}-{i}" for i in range(3)] for k in range(20)]
    made = [
        {**VALID, "dataset": f"d{k % 3}", "label_list": ["x", *pool[k % len(pool)]]}
        for k in range(600)
    ]
    for name, sums in score_examples(made).datasets.items():
        allowed = {label for row in made if row["dataset"] == name for label in row["label_list"]}
        assert sums.types == tuple(sorted(allowed))
        assert sums.invalid_labels == 0
    for sums in score_files([many_rows]).datasets.values():
        assert sums.types == ("unused", "x", "y")


# Laws: blocks and threads do not matter.


def test_number_of_threads_changes_nothing(folder: Path, many_rows: Path) -> None:
    made: list[Any] = many_rows.read_bytes().splitlines()
    source = random.Random(1)
    for number in range(50):
        made.insert(source.randrange(len(made)), b'{"bad": %d}' % number)
    file = write_rows(folder / "threads.jsonl", made)
    result, *others = [
        in_order(score_files([file, many_rows], threads=t, worst=7, skip_bad_rows=True))
        for t in THREADS
    ]
    assert all(other == result for other in others)
    datasets, bad_rows, listed = result
    assert bad_rows == len(listed) == 50
    first = next(number for number, line in enumerate(made, start=1) if b"bad" in line)
    assert listed[0] == f"{file}:{first}: types: this key is missing"
    assert [name for name, _ in datasets] == list(
        dict.fromkeys(json.loads(line)["dataset"] for line in made if b"bad" not in line)
    )

    examples = [json.loads(line) for line in made]
    from_list, *others = [
        score_list(examples, threads=t, worst=7, skip_bad_rows=True) for t in THREADS
    ]
    assert all(other == from_list for other in others)
    assert from_list[1] == 50
    once = score_files([file], worst=7, skip_bad_rows=True).datasets
    for (name, counts), (same_name, same) in zip(once.items(), from_list[0], strict=True):
        moved = [replace(sentence, path=str(file), row=sentence.row + 1) for sentence in same.worst]
        place = same.first_empty and (str(file), same.first_empty[1] + 1)
        moved_counts = same._replace(worst=tuple(moved), first_empty=place)
        assert (name, counts) == (same_name, moved_counts)


def test_number_of_threads_changes_no_aligned_row(folder: Path, many_rows: Path) -> None:
    written = []
    for threads in THREADS:
        target = folder / f"aligned-{threads}.jsonl"
        assert align_file(many_rows, target, threads=threads) == AlignSummary(6000, 0, [])
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
        (sums,) = score_files([file], threads=threads).datasets.values()
        assert (sums.rows, sums.entities) == (305, (305, 305, 305))
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
    (counts,) = score_files([file], "strict", threads=2).datasets.values()
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
        for name, sums in result.datasets.items():
            expected = [pair for pair in sorted(wrong[name])[:worst] if pair[0]]
            assert [(-row.wrong, row.row) for row in sums.worst] == expected
    (sentence,) = score_files([many_rows], "strict", worst=1).datasets["two"].worst
    given_row, match = made[sentence.row - 1], predicted[sentence.row - 1]
    assert sentence == WorstSentence(
        wrong=-sorted(wrong["two"])[0][0],
        path=str(many_rows),
        row=sentence.row,
        words=tuple(given_row["words"]),
        labels=tuple(given_row["labels"]),
        predicted=tuple(match.labels),
        prediction=given_row["prediction"],
        matching=match.matching,
        alignment=tuple(match.alignment),
    )


# Parity: reference and Rust on the same bytes.


@given(st.data())
def test_usable_rows(folder: Path, data: st.DataObject) -> None:
    frame = data.draw(st.sampled_from([b"", BOM]))
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n\t\n"]))
    made = data.draw(st.lists(lines(), min_size=1, max_size=4))
    content = frame + line_end.join(made) + data.draw(st.sampled_from([b"", line_end]))
    scheme = data.draw(st.sampled_from(SCHEMES))
    threads = data.draw(st.sampled_from([None, 1, 2]))
    sums = agree(
        partial(score_by_definition, worst=2),
        partial(score_content, worst=2, threads=threads),
        folder / "usable.jsonl",
        content,
        scheme,
    )
    assert not isinstance(sums, Exception)


@given(st.data())
def test_bad_rows_among_others(folder: Path, data: st.DataObject) -> None:
    made = data.draw(st.lists(st.one_of(lines(), bad_lines(), st.just(b"")), max_size=4))
    path = folder / "bad.jsonl"
    scheme = data.draw(st.sampled_from(SCHEMES))
    for skip in (False, True):
        content = b"\n".join(made)
        agree(score_by_definition, score_content, path, content, scheme, skip_bad_rows=skip)


@given(st.lists(rows(), max_size=3), st.sampled_from(UNREAD), st.sampled_from(SCHEMES))
def test_lists_of_rows(folder: Path, made: list[dict[str, Any]], unread: str, scheme: str) -> None:
    examples = [{**row, "unread": object()} for row in made]
    sums = agree(reference.score_examples, score_examples, examples, scheme, worst=2)
    if made:
        written = [
            write_json({**row, "unread": Raw(unread)}, random.Random(0), plain=True) for row in made
        ]
        content = "\n".join(written).encode()
        from_file = score_by_definition(folder / "examples.jsonl", content, scheme)
        expected, _, _ = without_places(from_file)
        datasets, _, _ = without_places(in_order(sums))
        assert [(name, counts._replace(worst=())) for name, counts in datasets] == expected


@_few
@given(st.data())
def test_more_rows_than_a_block(folder: Path, data: st.DataObject) -> None:
    made = data.draw(st.lists(lines(), min_size=1, max_size=6))
    content = b"\n".join(made) + b"\n"
    times = 3 * BLOCK_BYTES["score"] // len(content) + 1
    path = folder / "blocks.jsonl"

    def multiply(value: Any) -> Any:
        if hasattr(value, "_fields"):
            return type(value)(*map(multiply, value))
        if isinstance(value, dict):
            return {name: multiply(count) for name, count in value.items()}
        return value * times if isinstance(value, int) else value

    once, *rest = score_by_definition(path, content)
    expected = [(name, multiply(counts)) for name, counts in once], *rest
    for threads in (1, 2, 3):
        assert score_content(path, content * times, "gner", threads=threads) == expected


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
    with pytest.raises(ValueError, match=r"examples\[2\]: labels: \[0\] 'B-a' is not in types"):
        score_examples(rows, threads=1)


# What counts as empty, and labels outside the types.


def test_the_first_empty_prediction_is_named(tmp_path: Path) -> None:
    empty = {**VALID, "prediction": '{"x": ["York"]}'}
    made = [VALID] * 3000 + [empty] * 3000
    file = write_rows(tmp_path / "a.jsonl", made)
    for threads in (1, 2):
        sums = score_files([file], threads=threads).datasets["a"]
        assert (sums.empty_predictions, sums.first_empty) == (3000, (str(file), 3001))
        sums = score_examples(made, threads=threads).datasets["examples"]
        assert (sums.empty_predictions, sums.first_empty) == (3000, ("", 3000))
    assert score_examples([VALID]).datasets["examples"].first_empty is None


def test_invalid_labels_are_named_and_the_names_are_bounded(tmp_path: Path) -> None:
    made = [
        {**VALID, "prediction": f"in(B-q) New(B-{number % 1500}) York(I-x) York(B-{number})"}
        for number in range(4000)
    ]
    file = write_rows(tmp_path / "a.jsonl", made)
    expected = agree(reference.score_files, score_files, [file]).datasets["a"]
    for threads in (1, 2):
        sums = score_files([file], threads=threads).datasets["a"]
        assert sums == expected
        assert list(sums.named_invalid_labels) == sorted(sums.named_invalid_labels)
        assert len(sums.named_invalid_labels) == 1000
        assert sums.named_invalid_labels["B-q"] == 4000
        assert sums.invalid_labels == 12000


def test_files_are_called_as_they_are_named(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID, {**VALID, "prediction": ""}, {}])
    result = score_files([file], names=[("shown", "set")], skip_bad_rows=True)
    assert result.datasets["set"].first_empty == ("shown", 2)
    assert result.listed_bad_rows == ("shown:3: types: this key is missing",)
    with pytest.raises(ValueError, match="names: expected one for each of 1 paths: got 0"):
        score_files([file], names=[])
