"""Found spans of files against gold ones, and labelled texts of CSV."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore._rows import RowReader
from lmcore.detox import score_finder, score_span_files, score_spans
from lmcore.detox.data import read_labelled
from lmcore.detox.span_rows import read_spans
from tiny_detox import make_finder, save_segment_cnn
from tiny_scorers import make_texts, write_jsonl, write_labelled

TEXTS = ["you are bad", "a fool, so bad", "you are nice", "you are bad", "bad\nfool"]
GOLD = [[8, 9, 10], [2, 3, 4, 5, 11, 12, 13], [], [], [0, 1, 2, 4, 5, 6, 7]]
FOUND = [[[8, 11]], [[0, 6]], [], [[4, 11]], [[0, 8]]]


def write_gold(path: Path, rows: Any = None) -> Path:
    lines = [f'"{places}","{text}"\n' for places, text in rows or zip(GOLD, TEXTS, strict=True)]
    path.write_text("spans,text\n" + "".join(lines))
    return path


def write_found(path: Path) -> Path:
    rows = [{"text": text, "spans": spans} for text, spans in zip(TEXTS, FOUND, strict=True)]
    return write_jsonl(path, rows)


def test_scores_are_those_of_the_function(tmp_path: Path) -> None:
    """In another order as well; of a text that stands there twice the first is the first."""
    gold, found = write_gold(tmp_path / "gold.csv"), write_found(tmp_path / "found.jsonl")
    spans = [[(start, end) for start, end in each] for each in FOUND]
    expected = score_spans(spans, GOLD)
    done = score_span_files(gold, found)
    assert (done.rows, done.bad_rows) == (5, 0)
    assert done.scores == pytest.approx(expected)
    assert 0 < expected.f1 < 1
    lines = found.read_text().splitlines()
    found.write_text("".join(f"{lines[k]}\n" for k in (2, 0, 4, 3, 1)))
    assert score_span_files(gold, found).scores == pytest.approx(expected)
    packed = tmp_path / "gold.csv.gz"
    packed.write_bytes(gzip.compress(gold.read_bytes()))
    assert score_span_files(packed, found).scores == pytest.approx(expected)


def test_either_file_may_have_either_form(tmp_path: Path) -> None:
    gold = write_gold(tmp_path / "gold.csv")
    rows = [{"text": text, "spans": places} for text, places in zip(TEXTS, GOLD, strict=True)]
    same = write_jsonl(tmp_path / "gold.jsonl", rows)
    for pair in ((gold, same), (same, gold), (gold, gold)):
        assert score_span_files(*pair).scores == (1.0, 1.0, 1.0)


def test_many_ranges_of_the_same_characters_take_no_more_room(tmp_path: Path) -> None:
    """A line of a megabyte could name more characters than there is memory."""
    row = {"text": "a" * 1000, "spans": [[0, 1000], [500, 900]] * 50}
    found = write_jsonl(tmp_path / "found.jsonl", [row])
    (read,) = read_spans(RowReader(found))
    assert read.spans == list(range(1000))


def test_the_command(tmp_path: Path) -> None:
    gold, found = write_gold(tmp_path / "gold.csv"), write_found(tmp_path / "found.jsonl")
    code, output, errors = run_here("detox", "score-spans", gold, found, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output) == score_span_files(gold, found).to_dict()
    code, output, _ = run_here("detox", "score-spans", gold, found)
    assert output.splitlines()[0].split() == ["measure", "value"]
    # What has no counterpart is an error, or counted.
    with found.open("a") as file:
        file.write('{"text": "more", "spans": []}\n{"text": "a", "spans": [[0, 2]]}\n')
    given = ["detox", "score-spans", gold, found]
    check_line(run_here(*given), f"{found}:7: spans must be ranges from 0 to 1: got [0, 2]")
    code, output, errors = run_here(*given, "--skip-bad-rows", "--json")
    assert (code, json.loads(output)["rows"], json.loads(output)["bad_rows"]) == (0, 5, 2)
    assert f"skipped {found}:6: no row of {gold} has this text\n" in errors


def test_a_model_finds_the_spans_itself(tmp_path: Path) -> None:
    gold, model = write_gold(tmp_path / "gold.csv"), save_segment_cnn(tmp_path / "model")
    done = score_finder(make_finder(), gold)
    spans = [[(s.start, s.end) for s in one.spans] for one in make_finder().find(TEXTS)]
    assert done.scores == pytest.approx(score_spans(spans, GOLD))
    given = ["detox", "score-spans", gold, "--model", model, "--device", "cpu", "--threads", 1]
    code, output, errors = run_here(*given, "--json")
    assert code == 0, errors
    assert json.loads(output) == done.to_dict()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"text": "ab", "spans": [[0, 3]]}', ":1: spans must be ranges from 0 to 2: got [0, 3]"),
        ('{"text": "ab", "spans": [[1, 1]]}', ":1: spans must be ranges from 0 to 2: got [1, 1]"),
        ('{"text": "ab", "spans": [[0, 1099511627776]]}', ":1: spans must be ranges from 0 to 2"),
        (
            '{"text": "ab", "spans": [2]}',
            ":1: spans must be from 0 to 1, the last character: got 2",
        ),
        (
            '{"text": "ab", "spans": [[0, 1], 2]}',
            ":1: spans must be a list of ranges, or of places",
        ),
        ('{"text": "ab", "spans": [true]}', ":1: spans must be a list of ranges, or of places"),
        ('{"text": "ab"}', ":1: spans must be a list of ranges, or of places"),
        ('{"spans": []}', ":1: text is missing"),
        ('{"text": "ab\\u001b", "spans": []}', ":1: no row of "),
        ("", ": the file holds no rows"),
    ],
)
def test_rows_that_cannot_be_scored(tmp_path: Path, content: str, problem: str) -> None:
    gold, found = write_gold(tmp_path / "gold.csv", [([0], "ab")]), tmp_path / "found.jsonl"
    found.write_text(content and f'{content}\n{{"text": "ab", "spans": []}}\n')
    check_line(run_here("detox", "score-spans", gold, found), f"{found}{problem}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "PREDICTED or --model must be given"),
        (["GOLD", "--model", "nowhere"], "PREDICTED must not be given with --model"),
        (["--model", "nowhere"], "nowhere"),
        (["GOLD", "--threshold", "0.4"], "--threshold goes with --model"),
        (["GOLD", "--device", "cpu"], "--device goes with --model"),
        (["GOLD", "--threads", "1"], "--threads goes with --model"),
        (["nowhere"], "nowhere: No such file or directory"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, options: list[str], problem: str) -> None:
    gold = write_gold(tmp_path / "gold.csv")
    given = [str(gold) if option == "GOLD" else option for option in options]
    check_line(run_here("detox", "score-spans", gold, *given), problem)
    check_line(run_here("detox", "score-spans", "-", "-"), "cannot both be standard input")


def test_nothing_that_can_be_scored(tmp_path: Path) -> None:
    gold, found = write_gold(tmp_path / "gold.csv", [([0], "ab")]), write_found(tmp_path / "found")
    given = ["detox", "score-spans", gold, found, "--skip-bad-rows"]
    check_line(run_here(*given), f"{gold}: no row can be used; the first problem: {gold}:2: no row")


# Labelled texts.


def write_csv(path: Path, names: str = "id,text,label") -> Path:
    rows = zip(*make_texts(60), strict=True)
    lines = [f'{n},"{text}",{label}\n' for n, (text, label) in enumerate(rows)]
    path.write_text(f"{names}\n" + "".join(lines), encoding="utf-8-sig")
    return path


def test_a_scorer_of_csv_is_that_of_jsonl(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv")
    other = write_csv(tmp_path / "b.txt", "id,comment_text,severe")
    named = ["--format", "csv", "--field", "comment_text", "--label-field", "severe"]
    found = []
    for source, *options in (
        (write_labelled(tmp_path / "a.jsonl", 60),),
        (table,),
        (other, *named),
    ):
        out = tmp_path / f"out-{source.name}"
        given = ["detox", "train-scorer", source, "--out", out, "--bits", 8, *options, "--quiet"]
        code, _, errors = run_here(*given)
        assert code == 0, errors
        found.append((out / "config.json").read_bytes())
    assert found[0] == found[1] == found[2]


def test_keys_of_jsonl_can_be_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a", [{"body": "x", "severe": 0.5, "label": 7}])
    assert read_labelled(path, field="body", label_field="severe") == (["x"], [0.5], [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": the file holds no rows"),
        (b"text,label\n", ": the file holds no rows"),
        (b"body,label\na,1\n", ":1: expected columns text: got ['body', 'label']"),
        (b"text,text,label\na,b,1\n", ":1: expected columns text: got ['text', 'text', 'label']"),
        (b"text,label\na\n", ":2: expected 2 columns: got 1"),
        (b'text,label\n"a\nb",1\n\nc,2\n', ":5: label must be a number from 0 to 1: got 2"),
        (b"text,label\na,x\n", ":2: label must be a number from 0 to 1: got 'x'"),
        (b"text,label\na,NaN\n", ":2: label must be a number from 0 to 1: got 'NaN'"),
        (b"text,label\na,\n", ":2: label must be a number from 0 to 1: got ''"),
        (b"text,label,toxic\na,1,1\n", ":2: must have one of label, score, toxic, toxicity: got"),
        (b"text,other\na,1\n", ":2: must have one of label, score, toxic, toxicity: got none"),
        (b"text,label\n  ,1\n", ":2: text is empty"),
        (b'text,label\n"a" b,1\n', ":2: not a record of CSV"),
        (b"text,label\n\xff,1\n", "not UTF-8"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    given = ["detox", "train-scorer", tmp_path / "a.csv", "--out", tmp_path / "out"]
    check_line(run_here(*given), "a.csv", problem)
    assert not (tmp_path / "out").exists()


def test_bad_records_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,toxic\n"a\nb",1\nc\nd,true\ne,9\n')
    texts, labels, left_out = read_labelled(tmp_path / "a.csv", skip_bad_rows=True)
    assert (texts, labels) == (["a\nb", "d"], [1.0, 1.0])
    assert [line.partition(".csv:")[2].partition(":")[0] for line in left_out] == ["4", "6"]
    with pytest.raises(ValueError, match=r"^format must be one of auto, jsonl, csv: got 'x'$"):
        read_labelled(tmp_path / "a.csv", form="x")
