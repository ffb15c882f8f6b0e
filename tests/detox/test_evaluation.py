"""`lmcore detox evaluate`: published numbers, each measure by hand, and bad input."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import check_line, run_here
from lmcore.detox import (
    evaluate_file,
    evaluate_generations,
    ngram_similarity,
    parse_generations,
)
from strategies import characters
from tiny_scorers import write_jsonl

ROWS = [
    {"prompt": "I am", "generations": [" a fool", " so fine today"], "kind": "implicit"},
    {"prompt": "You fool", "generations": [" fool fool", ""], "kind": "explicit"},
]


def evaluate(*arguments: object) -> dict[str, Any]:
    code, output, errors = run_here("detox", "evaluate", *arguments, "--json")
    assert code == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_text("fool\n")
    return path


def test_published_scores(data_dir: Path) -> None:
    values = evaluate(data_dir / "tox/rtp31_llama2_7b_25scores.jsonl")
    assert (values["prompts"], values["samples"]) == (31, 775)
    assert round(values["expected_maximum_toxicity"], 4) == 0.4331
    assert round(values["toxic_prompt_share"], 4) == 0.3548
    assert round(values["toxic_sample_share"], 4) == 0.1265
    parts = [(values[f"prompts_{k}"], values[f"toxic_prompt_share_{k}"]) for k in KINDS]
    assert sum(count * share for count, share in parts) == pytest.approx(11)


KINDS = ("toxic", "nontoxic")


def test_published_texts(data_dir: Path) -> None:
    file = data_dir / "tox/rtp31_llama2_7b_25cont.jsonl"
    values = evaluate(file, "--scorer", data_dir / "tox/wordlist_en.txt")
    assert values["samples"] == 775
    assert 0 < values["toxic_sample_share"] < values["toxic_prompt_share"] < 1
    assert 0.1 < values["distinct_1"] < values["distinct_2"] < values["distinct_3"] <= 1
    assert 0 < values["similarity"] < 0.5


def test_each_measure_by_hand(tmp_path: Path, lexicon: Path) -> None:
    values = evaluate(write_jsonl(tmp_path / "rows.jsonl", ROWS), "--scorer", lexicon)
    assert values["empty_samples"] == 1
    assert values["toxic_sample_share"] == 2 / 4
    assert values["toxic_prompt_share"] == 1.0
    # The second prompt is toxic by the scorer.
    assert (values["prompts_toxic"], values["prompts_nontoxic"]) == (1, 1)
    assert values["toxic_sample_share_toxic"] == 0.5
    assert (values["prompts_implicit"], values["prompts_explicit"]) == (1, 1)
    # a fool, so fine today, fool fool
    assert values["distinct_1"] == 5 / 7
    assert values["distinct_2"] == 4 / 4
    assert values["distinct_3"] == 1
    pairs = [(" a fool", "I am"), (" so fine today", "I am"), (" fool fool", "You fool")]
    texts, prompts = zip(*pairs, strict=True)
    assert values["similarity"] == pytest.approx(sum(ngram_similarity(texts, prompts)) / 3)
    assert "perplexity" not in values


def test_joint_score_and_rephrased_prompts() -> None:
    row = parse_generations({
        "prompt": {"text": "you fool", "toxicity": 0.9}, "generations": ["you friend", ""],
        "scores": [0.25, 0.0], "rephrased": "you food",
    })  # fmt: skip
    values = evaluate_generations([row], fluency=lambda texts: [0.5] * len(texts))
    (near,) = ngram_similarity(["you friend"], ["you fool"])
    assert values["joint"] == pytest.approx(0.75 * near * 0.5 / 2)
    assert (values["style_accuracy"], values["fluency"]) == (0.75, 0.5)
    assert values["rephrase_edit_distance"] == 1
    assert values["rephrase_similarity"] == ngram_similarity(["you food"], ["you fool"])[0]
    assert values["prompts_toxic"] == 1


def test_unknown_prompts_and_empty_samples_are_told(tmp_path: Path) -> None:
    row = {"prompt": {"text": "a", "toxicity": None}, "generations": [""], "scores": [0.4]}
    code, output, errors = run_here("detox", "evaluate", write_jsonl(tmp_path / "a.jsonl", [row]))
    assert code == 0
    assert "1 of 1 samples are empty: they count as harmless" in errors
    assert "the toxicity of 1 prompts is unknown" in errors
    assert "distinct_1" in output


def test_rapidfuzz_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    row = {"prompt": "a", "generations": ["b"], "scores": [0.4], "rephrased": "c"}
    given = [write_jsonl(tmp_path / "a.jsonl", [row]), "--json"]
    code, output, errors = run_here("detox", "evaluate", *given)
    assert (code, json.loads(output)["rephrase_edit_distance"]) == (0, None)
    assert "rapidfuzz is not installed" in errors


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"scores": [0.5]}, {"scores": [0.5, 0.5]}], "has 2 samples, and the first row 1"),
        ([{"scores": [0.5]}, {"scores": []}], "scores must be a list of one number"),
        ([{"scores": [0.5]}, {"prompt": "a", "generations": ["b"]}], "has no scores: name a"),
        (
            [{"scores": [0.5]}, {"prompt": "a", "generations": ["b"], "scores": [0.5]}],
            "some rows have generations",
        ),
        ([{"scores": [0.5]}, {"generations": ["b"], "scores": [0.5]}], "no prompt"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, rows: list[dict[str, Any]], text: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    check_line(run_here("detox", "evaluate", path), "rows.jsonl:2: ", text)
    code, _, errors = run_here("detox", "evaluate", path, "--skip-bad-rows")
    assert code == 0
    assert f"skipped {path}:2: " in errors


def test_files_and_options_that_cannot_be_used(tmp_path: Path, lexicon: Path) -> None:
    scores = write_jsonl(tmp_path / "rows.jsonl", [{"scores": [0.5]}])
    check_line(run_here("detox", "evaluate", scores, "--scorer", lexicon), "no generations")
    check_line(run_here("detox", "evaluate", scores, "--fluency", lexicon), "--fluency-label")
    check_line(run_here("detox", "evaluate", scores, "--label", "a"), "go with --scorer")
    check_line(run_here("detox", "evaluate", scores, "--similarity", "nowhere"), "nowhere")
    check_line(run_here("detox", "evaluate", scores, "--perplexity", "nowhere"), "perplexity")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"scores": [NaN]}\n')
    check_line(run_here("detox", "evaluate", bad), "bad.jsonl:1: ", "NaN")
    check_line(run_here("detox", "evaluate", bad, "--skip-bad-rows"), "no row can be used")
    with pytest.raises(ValueError, match="at least"):
        evaluate_generations([])


# Similarity.


@given(st.text(characters, max_size=20), st.text(characters, max_size=20))
def test_similarity_is_a_cosine(one: str, other: str) -> None:
    first, second, same = ngram_similarity([one, other, one], [other, one, one])
    assert first == pytest.approx(second)
    assert -1e-9 <= first <= 1 + 1e-9
    assert same == 1


def test_similarity_by_hand() -> None:
    # " ab ": ' a', 'ab', 'b ', ' ab', 'ab '; " ac " shares ' a' alone.
    assert ngram_similarity(["ab"], ["ac"]) == [pytest.approx(1 / 5)]
    assert ngram_similarity(["坏人"], ["坏 人"])[0] < 1
    assert ngram_similarity(["", "a"], ["", ""]) == [1, 0]
    with pytest.raises(ValueError, match="same length"):
        ngram_similarity(["a"], [])


def test_measures_of_many_scores_are_quick() -> None:
    """The bench holds the time; here, that nothing is quadratic in prompts."""
    generator = np.random.default_rng(0)
    rows = [{"scores": row} for row in generator.random((2000, 25)).tolist()]
    values = evaluate_generations([parse_generations(row) for row in rows])
    assert values["samples"] == 50_000


def test_progress_counts_texts_and_bytes(tmp_path: Path) -> None:
    """A scorer sees blocks of distinct texts, and finds the same as in one."""
    rows = [{"prompt": f"a {n}", "generations": [f"b {n}", "c"]} for n in range(700)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    read: list[int] = []
    texts: list[int] = []
    done = evaluate_file(
        path, scorer=lambda texts: [float(text == "b 3") for text in texts], progress=read.append,
        text_progress=texts.append,
    )  # fmt: skip
    assert texts == [1024, 1401 - 1024]
    assert read[-1] == path.stat().st_size
    assert done.values["toxic_sample_share"] == 1 / 1400
