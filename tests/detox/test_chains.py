"""Chains as texts: the authors' rows, a thousand of a student's, and any others."""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.detox.chains import GRAMMARS, PAPER, STUDENT, Chain, ChainError, Grammar
from lmcore.detox.selection import make_training_row, select_generations

TOXIC = Chain(prompt="p", toxic=True, masked="m <MASK>", rephrased="r", continuation="c")
CLEAN = Chain(prompt="p", toxic=False, continuation="c")
# Marks of the grammars, whole and in part, among other texts.
PIECES = st.sampled_from(
    [
        "a", " ", "\n", "#", "###", "<MASK>", "é", "東", "toxic", " # Let's detoxify step by step.",
        " # Generation:", " # Detoxify the toxic segments: ", "###The Continuation is: ###",
        " ###The rephrased prompt has ", "### Response:", "# Text: ", "\x1b[0m", "\ud800",
    ]
)  # fmt: skip
FIELDS = st.lists(PIECES, max_size=6).map("".join)


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Any]:
    text = (golden_dir / "detox_chain" / "chains.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_rows_of_the_authors(golden: dict[str, Any]) -> None:
    made = [make_training_row(row) for row in golden["rows"]]
    assert [row for row in made if not isinstance(row, str)] == golden["chains"]
    assert Counter(row for row in made if isinstance(row, str)) == {"toxic": 4}
    for chain in golden["chains"]:
        parsed = PAPER.parse(chain["output"])
        assert PAPER.write(parsed) == chain["output"]
        assert PAPER.write_template(parsed) == chain["cl_template"]
        assert parsed.toxic == (chain["label"] == "toxic")
        assert parsed.continuation == chain["cont_generation"][0]


def test_chains_of_a_student(data_dir: Path) -> None:
    path = data_dir / "tox" / "detoxchain_alpaca_rtp1000.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chains = [STUDENT.parse_output(row["input"], row["output"]) for row in rows]
    assert Counter(chain.toxic for chain in chains) == {True: 211, False: 789}
    assert [STUDENT.write_output(chain) for chain in chains] == [row["output"] for row in rows]
    assert {row["instruction"] for row in rows} == {STUDENT.instruction}  # type: ignore[attr-defined]
    assert sum(chain.continuation is None for chain in chains) == 395
    assert not any(STUDENT.find_mark(chain) for chain in chains)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    toxic = draw(st.booleans())
    more = {"masked": draw(FIELDS), "rephrased": draw(FIELDS)} if toxic else {}
    return Chain(prompt=draw(FIELDS), toxic=toxic, continuation=draw(FIELDS), **more)


@pytest.mark.parametrize("name", GRAMMARS)
@given(chain=chains())
def test_what_is_written_is_read(name: str, chain: Chain) -> None:
    """But for continuations of spaces alone, and for fields that hold a mark."""
    grammar = GRAMMARS[name]
    whole = grammar.write(chain)
    assert whole == grammar.write_input(chain.prompt) + grammar.write_output(chain)
    assert whole.startswith(grammar.write_template(chain))
    if grammar.find_mark(chain) is None and (chain.continuation or "").strip():
        assert grammar.parse(whole) == chain
        assert grammar.parse_output(chain.prompt, grammar.write_output(chain)) == chain
        return
    with contextlib.suppress(ChainError):
        grammar.parse(whole)


@pytest.mark.parametrize("name", GRAMMARS)
@given(text=FIELDS)
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    try:
        chain = GRAMMARS[name].parse(text)
    except ChainError:
        return
    assert chain.prompt in text


@pytest.mark.parametrize("chain", [TOXIC, CLEAN], ids=["toxic", "clean"])
@pytest.mark.parametrize("grammar", [PAPER, STUDENT], ids=["paper", "student"])
def test_every_step_is_needed(grammar: Grammar, chain: Chain) -> None:
    """A chain that was cut anywhere before its continuation is ill-formed, and says where."""
    whole = grammar.write(chain)
    template = grammar.write_template(chain)
    found = Counter[str]()
    for end in range(len(template) + 1):
        with pytest.raises(ChainError) as error:
            grammar.parse(whole[:end])
        found[error.value.problem] += 1
    expected = {"no_text", "no_verdict", "no_generation", "empty_generation"}
    if chain.toxic:
        expected |= {"no_mask_step", "no_rephrase_step"}
    assert found.keys() == expected
    assert grammar.parse(whole.rstrip("# ")) == chain


def test_no_continuation() -> None:
    chain = Chain(prompt="p", toxic=True, masked="m", rephrased="r")
    assert STUDENT.parse(STUDENT.write(chain)) == chain
    with pytest.raises(ValueError, match="no chain without a continuation"):
        PAPER.write(chain)
    assert (chain.context, CLEAN.context) == ("r", "p")


def test_fields_of_a_chain() -> None:
    with pytest.raises(ValueError, match="needs its masked"):
        Chain(prompt="p", toxic=True, masked="m")
    with pytest.raises(ValueError, match="neither a masked"):
        Chain(prompt="p", toxic=False, masked="m")


def test_a_continuation_ends_at_the_next_mark() -> None:
    chain = Chain(prompt="p", toxic=False, continuation="one #two")
    assert PAPER.find_mark(chain) == "continuation"
    assert PAPER.parse(PAPER.write(chain)).continuation == "one"


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.1], ("0", ())),
        ([0.4], ("0", ("0",))),
        ([0.5, 0.5], ("0", ("0", "1"))),
        ([0.9, 0.1, 0.3, 0.31, 0.5], ("1", ("3", "4", "0"))),
        ([0.51], None),
    ],
)
def test_what_is_chosen(scores: list[float], kept: tuple[str, tuple[str, ...]] | None) -> None:
    selection = select_generations([str(n) for n in range(len(scores))], scores)
    assert (selection and (selection.positive, selection.negatives)) == kept


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.3, 0.4, 0.5, 0.6]), FIELDS), min_size=1))
def test_the_order_does_not_matter(rows: list[tuple[float, str]]) -> None:
    scores, texts = zip(*rows, strict=True)
    selection = select_generations(texts, scores)
    assert select_generations(texts[::-1], scores[::-1]) == selection
    assert (selection is None) == (min(scores) > 0.5)
    if selection is not None:
        assert selection.positive_score == min(scores)
        assert len(selection.negatives) == min(3, sum(score > 0.3 for score in scores))


@pytest.mark.parametrize(
    ("texts", "scores", "message"),
    [
        ([], [], "expected a text"),
        (["a"], [], "a score for each of 1 texts, got 0"),
        (["a"], [float("nan")], "from 0 to 1, got nan"),
        (["a"], [1.5], "from 0 to 1, got 1.5"),
        (["a"], [10**400], "from 0 to 1, got 1000"),
    ],
)
def test_what_cannot_be_chosen(texts: list[str], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_generations(texts, scores)


ROW = {"prompt": {"text": "p"}, "generation": ["a"], "cont_toxicity": [0.1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt: expected a text"),
        ({"prompt": {"text": 3}}, "prompt: expected a text"),
        ({"mask_prompt": "m"}, "recover_prompt: missing"),
        ({"mask_prompt": 1, "recover_prompt": "r"}, "mask_prompt: expected a text"),
        ({"generation": "a"}, "generation: expected a list"),
        ({"generation": [1]}, "generation: expected texts"),
        ({"cont_toxicity": [True]}, "cont_toxicity: expected numbers"),
        ({"cont_toxicity": []}, "a score for each of 1 texts, got 0"),
    ],
)
def test_rows_that_cannot_be_used(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_training_row({**ROW, **change})


def test_a_prompt_without_continuations() -> None:
    assert make_training_row({**ROW, "generation": [], "cont_toxicity": []}) == "no_generation"
