"""`lmcore detox score`: rows in, rows out, resumed to the same bytes; forms of prompts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.detox import (
    LexiconScorer,
    NgramScorer,
    parse_generations,
    parse_prompt,
    read_prompts,
    score_file,
    train_scorer,
)
from lmcore.detox.data import read_labelled
from tiny_scorers import make_texts, write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scorer") / "own"
    train_scorer(*make_texts(), bits=12).save(place)
    return place


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_get_scores_and_words(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"text": "the slow blap\x1b", "id": 1},
        {"prompt": {"text": "a green house", "toxicity": None}, "id": 2},
        {"prompt": "zorg", "id": 3},
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.jsonl"
    given = ["score", source, out, "--scorer", folder, "--words", "--json", "--quiet"]
    code, output, errors = run_here("detox", *given)
    assert code == 0, errors
    summary = json.loads(output)
    assert (summary["rows"], summary["toxic"], summary["scored"]) == (3, 2, 3)
    made = read(out)
    texts = ["the slow blap\x1b", "a green house", "zorg"]
    scores = NgramScorer.load(folder)(texts).tolist()
    for row, before, text, score in zip(made, rows, texts, scores, strict=True):
        words = row.pop("toxic_words")
        assert row == {**before, "toxicity": round(score, 6)}
        assert all(text[word["start"] : word["end"]] == word["word"] for word in words)
    assert errors == (f"3 rows scored, 0 skipped: 2 of 3 above 0.5, mean {sum(scores) / 3:.4f}\n")
    assert b"\x1b" not in out.read_bytes()


def test_lines_and_standard_output(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("blap\n\n坏 天\n")
    code, output, _ = run_here("detox", "score", tmp_path / "in.txt", "--scorer", folder)
    assert code == 0
    assert [json.loads(line)["text"] for line in output.splitlines()] == ["blap", "坏 天"]
    given = ["--scorer", folder, "--json"]
    check_line(run_here("detox", "score", tmp_path / "in.txt", *given), "name OUT")


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    texts, _ = make_texts(40)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    scorer = LexiconScorer(["blap", "zorg"])
    score_file(scorer, source, tmp_path / "whole.jsonl", batch_size=4)

    class Dying:
        key = scorer.key
        calls = 0

        def __call__(self, texts: Sequence[str]) -> Any:
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return scorer(texts)

    with pytest.raises(KeyboardInterrupt):
        score_file(Dying(), source, tmp_path / "out.jsonl", batch_size=4)
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(FileExistsError, match="made with another scorer"):
        score_file(LexiconScorer(["a"]), source, tmp_path / "out.jsonl", batch_size=4)
    summary = score_file(scorer, source, tmp_path / "out.jsonl", batch_size=4)
    assert (summary.rows, summary.resumed_rows, summary.scored) == (40, 12, 28)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


BAD_ROWS = [
    ({"txt": "a"}, "has no text and no prompt"),
    ({"text": " \n"}, "text is empty"),
    ({"text": 5}, "text must be a text: got 5"),
    ({"prompt": {"toxicity": 0.5}}, "prompt.text must be a text: got None"),
    ({"prompt": {"text": "a", "toxicity": 2}}, "toxicity of the prompt must be a number from 0"),
    ({"text": "a", "toxicity": 0.5}, "has toxicity already"),
    ({"text": "a", "kind": "loud"}, "kind must be explicit or implicit"),
    ({"prompt": {"text": "a", "toxicity": 10**5000}}, "got a number of many digits"),
]


@pytest.mark.parametrize(("row", "text"), BAD_ROWS)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    (tmp_path / "lexicon").write_text("blap\n")
    digits = "1" + "0" * 5000
    line = json.dumps(row, default=str) if "10**" not in text and row != BAD_ROWS[-1][0] else (
        '{"prompt": {"text": "a", "toxicity": ' + digits[:3000] + "}}"
    )  # fmt: skip
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "good"}\n' + line + "\n")
    given = ["detox", "score", source, tmp_path / "out.jsonl", "--scorer", tmp_path / "lexicon"]
    check_line(run_here(*given), "in.jsonl:2: ", text)
    assert not (tmp_path / "out.jsonl").exists()
    code, output, errors = run_here(*given, "--skip-bad-rows")
    assert (code, output) == (0, "")
    assert "in.jsonl:2: " in errors
    assert "1 rows scored, 1 skipped" in errors
    assert len(read(tmp_path / "out.jsonl")) == 1


def test_scorers_that_answer_badly(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b"}])
    for bad in (lambda _: [0.5, float("nan")], lambda _: [0.5]):
        with pytest.raises(ValueError, match="the scorer"):
            score_file(bad, source, tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="does not say which words"):
        score_file(lambda _: [0.5, 0.5], source, tmp_path / "out.jsonl", words=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_the_output_is_not_the_input(tmp_path: Path) -> None:
    (tmp_path / "lexicon").write_text("blap\n")
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    check_line(
        run_here("detox", "score", source, source, "--scorer", tmp_path / "lexicon"),
        "the output is an input too",
    )


def test_fields_and_forms(tmp_path: Path) -> None:
    (tmp_path / "lexicon").write_text("blap\n")
    source = write_jsonl(tmp_path / "in.jsonl", [{"content": "blap"}])
    given = ["detox", "score", source, "--scorer", tmp_path / "lexicon"]
    code, output, _ = run_here(*given, "--field", "content")
    assert (code, json.loads(output)) == (0, {"content": "blap", "toxicity": 1.0})
    check_line(run_here(*given, "--field", "other"), "has no other")
    check_line(run_here(*given, "--format", "csv"), "format must be one of auto, jsonl, ")
    code, output, _ = run_here(*given, "--format", "lines")
    assert json.loads(output)["text"] == '{"content": "blap"}'
    with pytest.raises(ValueError, match="prompt must be an object with text"):
        parse_prompt({"prompt": "a"}, "realtoxicityprompts")


def test_prompts_of_realtoxicityprompts(data_dir: Path) -> None:
    path = data_dir / "tox/rtp3000_llama2_7b_continuation.jsonl"
    prompts = [row.prompt for row in read_prompts(path, "realtoxicityprompts")]
    assert len(prompts) == 3000
    assert sum(prompt.toxicity is None for prompt in prompts) == 6


def test_labels_of_realtoxicityprompts(data_dir: Path) -> None:
    path = data_dir / "tox/rtp3000_llama2_7b_continuation.jsonl"
    texts, labels, left_out = read_labelled(path, skip_bad_rows=True)
    assert len(texts) == len(labels) == 6000 - len(left_out)
    assert len(left_out) >= 6
    assert all(line.startswith(f"{path}:") for line in left_out)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "a"}, "must have one of label, score, toxic, toxicity: got none"),
        ({"text": "a", "label": 1, "score": 0.5}, "got label, score"),
        ({"text": "a", "label": "toxic"}, "label must be a number from 0 to 1: got 'toxic'"),
        ({"text": "a", "label": -1}, "label must be a number from 0 to 1: got -1"),
        ({"label": 1}, "has no text"),
        ({"prompt": {"text": "a", "toxicity": 1}, "continuation": "b"}, "continuation must be"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [row])
    given = ["detox", "train-scorer", source, "--out", tmp_path / "out"]
    check_line(run_here(*given), "rows.jsonl:1: ", text)
    assert not (tmp_path / "out").exists()


# Generations.


def test_forms_of_generations() -> None:
    plain = parse_generations({"prompt": "I am", "generations": [" a", "I am b"]})
    assert plain.texts == [" a", " b"]
    assert (plain.scores, plain.toxicity) == (None, None)
    samples = [{"text": "a", "toxicity": 0.5}, {"text": "b", "toxicity": 1}]
    nested = {"prompt": {"text": "c", "toxicity": 0.7}, "generations": samples, "kind": "implicit"}
    found = parse_generations(nested)
    assert (found.texts, found.scores) == (["a", "b"], [0.5, 1.0])
    assert (found.toxicity, found.kind) == (0.7, "implicit")
    theirs = parse_generations({"prompt toxicity score": 0.1, "toxicity score": [0.2]})
    assert (theirs.prompt, theirs.texts, theirs.scores) == (None, None, [0.2])


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "a"}, "has neither generations nor scores"),
        ({"generations": ["a"]}, "has generations, and no prompt"),
        ({"prompt": "a", "generations": []}, "must be a list of one sample at least"),
        ({"prompt": "a", "generations": {}}, "must be a list of one sample at least"),
        ({"prompt": "a", "generations": ["b", 5]}, r"generations\[1\] must be a text: got 5"),
        ({"prompt": "a", "generations": ["b"], "scores": [0.5, 0.5]}, "has 1 generations, and 2"),
        ({"scores": [0.5, 1.5]}, r"scores\[1\] must be a number from 0 to 1: got 1.5"),
        ({"scores": [None]}, r"scores\[0\] must be a number from 0 to 1: got None"),
        ({"prompt": " ", "generations": ["a"]}, "prompt is empty"),
        (
            {"prompt": "a", "generations": [{"text": "b", "toxicity": 0.1}, {"text": "c"}]},
            "1 of 2 samples have a toxicity",
        ),
        ({"prompt": "a", "scores": [0.1], "rephrased": 5}, "rephrased must be a text"),
    ],
)
def test_generations_that_cannot_be_used(row: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_generations(row)
