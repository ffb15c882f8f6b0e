"""Texts with several references: NLTK's, rouge_score's and sacrebleu's numbers, and bad rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import check_line, run_here
from lmcore.diffusion import choose_candidates, score_file, score_texts
from lmcore.diffusion.rouge import compute_best_rouge, compute_rouge
from lmcore.diffusion.scoring import join_words, list_references

texts = st.lists(st.sampled_from(["a", "b", "c", "the", "É,", "a-b"]), min_size=1, max_size=8).map(
    " ".join
)
rows = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1, max_size=5)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    whole = [{"recover": "a b", "reference": "a", "source": "s"} | row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in whole))
    return path


@settings(max_examples=25)
@given(rows)
def test_scores_are_those_of_the_packages(rows: list[tuple[str, list[str]]]) -> None:
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    rouge = pytest.importorskip("rouge_score.rouge_scorer")
    sacrebleu = pytest.importorskip("sacrebleu")
    outputs, references = [output for output, _ in rows], [texts for _, texts in rows]
    values = score_texts(outputs, references, threads=1)
    smooth = bleu.SmoothingFunction().method4
    for n in range(1, 5):
        scores = [
            bleu.sentence_bleu([t.split() for t in gold], output.split(), (1 / n,) * n, smooth)
            for output, gold in rows
        ]
        assert values[f"bleu_{n}"] == pytest.approx(sum(scores) / len(rows), rel=1e-14)
    names = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}
    scorer = rouge.RougeScorer([*names])
    found = [scorer.score_multi([*map(join_words, gold)], join_words(o)) for o, gold in rows]
    for name, ours in names.items():
        expected = sum(scores[name].fmeasure for scores in found) / len(rows)
        assert values[ours] == pytest.approx(expected, rel=1e-14)
    # Its own form: a list for each place, as long as the outputs.
    most = max(map(len, references))
    streams = [[(gold + [None] * most)[k] for gold in references] for k in range(most)]
    assert values["sacrebleu"] == sacrebleu.corpus_bleu(outputs, streams).score


@settings(max_examples=25)
@given(rows)
def test_one_reference_in_a_list_is_one_reference(rows: list[tuple[str, list[str]]]) -> None:
    outputs, single = [output for output, _ in rows], [texts[0] for _, texts in rows]
    values = score_texts(outputs, single, threads=1)
    assert score_texts(outputs, [[text] for text in single], threads=1) == values
    assert score_texts(outputs, [(text, text) for text in single], threads=1) == {
        **values, "sacrebleu_signature": str(values["sacrebleu_signature"]).replace(":1", ":2", 1)
    }  # fmt: skip


def test_several_references_by_hand() -> None:
    # Of "a a" the first reference has one, the second two; as long as the second.
    values = score_texts(["a a b"], [["a b", "a a c d"]])
    assert values["bleu_1"] == 1
    # The nearest length is 2, and the text is longer: nothing is taken off.
    assert score_texts(["a b c"], [["a b", "a b c d e"]])["bleu_3"] == 1
    assert (
        str(score_texts(["a", "b"], [["a"], ["b", "c"]])["sacrebleu_signature"])[:9] == "nrefs:var"
    )
    # Each measure takes the reference that is best for it.
    assert compute_best_rouge("a b c", ["c b a", "a b"]) == (
        1,
        compute_rouge("a b c", "a b")[1],
        0.8,
    )
    assert list_references(["a b", ["a", "b"], ()]) == [["a b"], ["a", "b"], []]
    for references in ([[]], [()]):
        with pytest.raises(ValueError, match=r"^references\[0\] must hold at least one text$"):
            score_texts(["a"], references)
    with pytest.raises(ValueError, match=r"^references must hold at least one text$"):
        compute_best_rouge("a", [])


def test_files_with_several_references(tmp_path: Path) -> None:
    several = {"recover": "[CLS] a b c [SEP]", "references": ["[CLS] x [SEP]", "[CLS]a b c[SEP]"]}
    file = write(
        tmp_path / "a.jsonl", several, {"references": ["a b"]}, {"reference": "a b"},
        {"references": []}, {"references": [" ", "[SEP]"]}, {"recover": "", "references": ["a"]},
    )  # fmt: skip
    code, output, errors = run_here("diffusion", "score", file, "--json")
    assert code == 0
    assert f"{file}: 3 of 6 rows left out" in errors
    assert f"the first: {file}:4" in errors
    found = json.loads(output)
    expected = score_texts(["a b c", "a b", "a b"], [["x", "a b c"], ["a b"], ["a b"]])
    assert found == {**expected, "rows": 3}
    assert found["bleu_2"] == found["rouge_l"] == 1


def test_choices_keep_references(tmp_path: Path) -> None:
    gold = {"references": ["[CLS] x [SEP]", "y"]}
    files = [
        write(tmp_path / f"{k}.jsonl", {"recover": text, **gold})
        for k, text in enumerate(["a b d", "a c d", "a b c d"])
    ]
    out = tmp_path / "out.jsonl"
    assert choose_candidates(files, out).chosen == (0, 0, 1)
    chosen = {"recover": "a b c d", "reference": "a", "source": "s", "references": [" x ", "y"]}
    assert json.loads(out.read_text()) == chosen
    assert score_file(out).rows == 1
    for other in ({"references": ["x"]}, {}):
        write(files[1], other)
        text = f"{files[1]}:1: references is another than in {files[0]}:1"
        check_line(run_here("diffusion", "mbr", *files, "--output", out), text)
    assert json.loads(out.read_text()) == chosen


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a", "references: expected a list, got a string"),
        (None, "references: expected a list, got null"),
        ({"a": 1}, "references: expected a list, got an object"),
        (["a", 1], "references[1]: expected a string, got a number"),
        (["a", ["b"]], "references[1]: expected a string, got a list"),
        (["a", " [SEP]", "b"], "references[1]: empty, and others are not"),
    ],
)
def test_references_that_cannot_be_used(value: Any, problem: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {}, {"references": value})
    check_line(run_here("diffusion", "score", file), f"{file}:2: {problem}")
