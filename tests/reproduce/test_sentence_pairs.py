"""The experiment on MiniLM: what it reads, what it compares, and when its claim fails."""

import os
from pathlib import Path

import numpy as np
import pytest

from lmcore.compression import Plan, Sizes, add_chosen_stage, start_plan
from lmcore.compression.counts import Counts
from lmcore.compression.vocabulary_pruning import prune_vocabulary
from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.compression import sentence_pairs
from lmcore.reproduce.compression.sentence_pairs import find_model, read_pairs, tokens_are_cheap


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return find_model()
    except ImportError as error:
        if os.environ.get("LMCORE_REQUIRE_DATA") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.mark.usefixtures("data_dir")
def test_behind_the_last_pair_comes_the_first() -> None:
    pairs = read_pairs("test", 2498, 4)
    assert pairs[2:] == read_pairs("test", 0, 2)
    assert len({*pairs}) == 4


def test_correlations_look_at_ranks_alone() -> None:
    numbers = np.array([0.3, -1.0, 0.2, 5.0])
    assert sentence_pairs._correlate_ranks(numbers, np.exp(numbers)) == pytest.approx(1)
    assert sentence_pairs._correlate_ranks(numbers, -numbers) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("tokens", "heads", "holds"), [(92.5, 88, True), (91.5, 88, False), (92.5, 92.5, False)]
)
def test_the_rule_can_fail(tokens: float, heads: float, holds: bool) -> None:
    found = {"whole": 93.0, "vocabulary 4000": tokens, "heads 9, random": heads}
    estimates = {f"{name}/found": Estimate(mean=x, spread=0.1) for name, x in found.items()}
    assert tokens_are_cheap(estimates) == holds


def test_heads_of_bert_go_with_their_channels(minilm: Path) -> None:
    plan = start_plan(minilm)
    assert isinstance(plan, Plan)
    with pytest.raises(ValueError, match="nearest is hidden 288 and 9 heads"):
        add_chosen_stage(plan, Sizes(heads=9))
    _, shape = add_chosen_stage(plan, Sizes(heads=9, hidden=288))
    assert (shape.heads, shape.head_size, shape.hidden_size) == (9, 32, 288)


@pytest.mark.usefixtures("data_dir")
def test_texts_whose_tokens_all_stay_have_the_vectors_that_they_had(
    minilm: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    pairs = read_pairs("test", 0, 6)
    tokenizer = AutoTokenizer.from_pretrained(minilm, local_files_only=True)
    ids = [i for pair in pairs for i in tokenizer(" ".join(pair)).input_ids]
    counts = Counts(groups={"all": np.bincount(ids, minlength=len(tokenizer))})
    summary = prune_vocabulary(minilm, tmp_path / "small", counts, 300)
    assert summary.coverage == {"all": 1.0}
    before, after = (
        sentence_pairs._embed(folder, pairs) for folder in (minilm, tmp_path / "small")
    )
    assert np.array_equal(after["vectors"], before["vectors"])
    assert before["parameters"] - after["parameters"] == (30_522 - 384) * 384
    assert dict(sentence_pairs._compare(before, before))["found"] == 100
