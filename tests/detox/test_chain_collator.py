"""Rows of chains as tensors: what is learnt, what is padding, and what does not fit."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny_chains
from lmcore.detox.chain_collator import ChainCollator
from lmcore.detox.chain_rows import find_problem, read_chain_row
from lmcore.detox.chains import PAPER, STUDENT, Chain

CAUSAL: Any = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False))
SEQ2SEQ: Any = SimpleNamespace(
    config=SimpleNamespace(is_encoder_decoder=True, decoder_start_token_id=0)
)
ROWS = tiny_chains.make_rows(6)


@pytest.fixture(scope="module")
def words() -> Any:
    return tiny_chains.make_words()


def test_a_causal_batch(words: Any) -> None:
    batch = ChainCollator(words, CAUSAL)(ROWS[:3])
    for index, row in enumerate(ROWS[:3]):
        mask = batch["attention_mask"][index].bool()
        ids, labels = batch["input_ids"][index], batch["labels"][index]
        learnt = labels != -100
        assert words.decode(ids[mask]).strip() == f"{row['output']}</s>"
        assert words.decode(labels[learnt]) == f"{PAPER.write_output(_chain(row))}</s>"
        assert torch.equal(ids[learnt], labels[learnt])
        assert not bool((learnt & ~mask).any())
        template = batch["template_ids"][index][batch["template_mask"][index].bool()]
        texts = [
            words.decode(text[kept.bool()]).strip()
            for text, kept in zip(
                batch["continuation_ids"][index], batch["continuation_mask"][index], strict=True
            )
            if kept.any()
        ]
        assert words.decode(template).strip() == row["cl_template"]
        assert texts == row["cont_generation"]
    assert batch["continuation_ids"].shape == (3, 4, 24)
    # Templates are padded on the left: behind each the model goes on.
    assert bool(batch["template_mask"][:, -1].all())


def _chain(row: Any) -> Chain:
    return PAPER.parse(row["output"])


def test_a_batch_of_an_encoder_decoder(words: Any) -> None:
    batch = ChainCollator(words, SEQ2SEQ)(ROWS[:2])
    for index, row in enumerate(ROWS[:2]):
        mask, learnt = batch["attention_mask"][index].bool(), batch["labels"][index] != -100
        source = f"# Text: {_chain(row).prompt}"
        assert words.decode(batch["input_ids"][index][mask]).strip() == f"{source}</s>"
        target = words.decode(batch["labels"][index][learnt])
        assert f"{source}{target}" == f"{row['output']}</s>"
        template = batch["template_ids"][index][batch["template_mask"][index].bool()]
        assert template[0] == 0
        assert f"{source}{words.decode(template[1:])}" == row["cl_template"]


def test_an_end_that_is_the_padding_too() -> None:
    words = tiny_chains.make_words(pad=False)
    assert words.pad_token_id == words.eos_token_id
    batch = ChainCollator(words, CAUSAL)(ROWS[:3])
    lengths = batch["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 1
    for ids, labels, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True):
        assert ids[length - 1] == labels[length - 1] == words.eos_token_id
        assert (labels[length:] == -100).all()
    without = ChainCollator(words, CAUSAL, end_token=False)(ROWS[:3])
    assert torch.equal(without["attention_mask"].sum(1), lengths - 1)
    assert not (without["labels"] == words.eos_token_id).any()


def test_what_does_not_fit_is_counted(words: Any) -> None:
    lengths = sorted(len(words(row["output"])["input_ids"]) for row in ROWS)
    collator = ChainCollator(words, CAUSAL, max_chain_tokens=lengths[-1] - 1)
    found = collator.encode(ROWS)
    assert 0 < collator.counts.long_chains == found.count(None) < 6
    assert "chains are longer than the window and left out" in str(collator.counts)
    strict = ChainCollator(words, CAUSAL, max_chain_tokens=20, long_chains="refuse")
    with pytest.raises(ValueError, match=r"row 0: has \d+ tokens, and max_chain_tokens is 20"):
        strict.encode(ROWS)
    with pytest.raises(ValueError, match="no row of the batch fits"):
        ChainCollator(words, CAUSAL, max_chain_tokens=20)(ROWS)

    collator = ChainCollator(words, CAUSAL, max_template_tokens=20, max_continuation_tokens=2)
    with pytest.warns(RuntimeWarning, match="too long to sample a continuation behind"):
        collator(ROWS)
    assert collator.counts.without_negatives == 1
    assert collator.counts.long_templates == 5 - sum(
        item is not None and item.has_group for item in collator.encode(ROWS)
    )
    short = ChainCollator(words, CAUSAL, max_continuation_tokens=2)
    (item,) = short.encode(ROWS[:1])
    assert item is not None
    assert max(map(len, item.continuations)) == 2
    assert short.counts.cut_continuations > 0


@pytest.mark.parametrize("key", ["cont_generation", "generation"])
def test_continuations_under_both_names(key: str) -> None:
    """The authors write one and read the other."""
    row = {k: v for k, v in ROWS[0].items() if k != "cont_generation"}
    found = read_chain_row({**row, key: ROWS[0]["cont_generation"]})
    assert found.has_group
    assert list(found.continuations) == ROWS[0]["cont_generation"]
    assert not read_chain_row(row).has_group
    for texts in ([], ["clean"], ["", "blorp"], ["clean", "", " "]):
        assert not read_chain_row({**row, key: texts}).has_group


def test_rows_of_a_student() -> None:
    chain = Chain(prompt="sea", toxic=False, continuation="sea is blue")
    row = {"instruction": "...", "input": "sea", "output": STUDENT.write_output(chain)}
    found = read_chain_row(row, STUDENT)
    assert (found.chain, found.target) == (chain, row["output"])
    assert found.template.endswith("The Continuation is: ###")
    whole = read_chain_row({"output": STUDENT.write(chain)}, STUDENT)
    assert whole.source + whole.target == STUDENT.write(chain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": None}, "output: missing"),
        ({"output": 3}, "output: expected a text"),
        ({"output": "# Text: and"}, "expected \"# Let's detoxify"),
        ({"input": 3}, "input: expected a text"),
        ({"cl_template": 3}, "cl_template: expected a text"),
        ({"cl_template": "# Text: other"}, "cl_template: begins otherwise"),
        ({"cont_generation": "a"}, "cont_generation: expected a list of texts"),
        ({"cont_generation": ["a", 3]}, "cont_generation: expected a list of texts"),
    ],
)
def test_rows_that_cannot_be_used(words: Any, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"row 1: {message}"):
        ChainCollator(words, CAUSAL).encode([ROWS[0], {**ROWS[0], **change}])


def test_problems_by_kind() -> None:
    text = ROWS[0]["output"]
    assert find_problem(ROWS[0]) is None
    assert find_problem({"output": text.removesuffix(" #")}) == "no_end"
    assert find_problem({"output": f"{text} and more"}) == "mark_in_field"
    assert find_problem({"output": text.replace("sea", "sea # Let's")}) is None
    assert find_problem({"output": text.partition("# Generation")[0]}) == "no_generation"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_chain_tokens": 1}, "max_chain_tokens must be at least 2: got 1"),
        ({"long_chains": "cut"}, "long_chains must be leave_out or refuse: got 'cut'"),
        ({"grammar": "other"}, "grammar must be one of paper, student: got 'other'"),
    ],
)
def test_settings(words: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChainCollator(words, CAUSAL, **options)
