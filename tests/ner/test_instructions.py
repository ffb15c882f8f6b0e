"""Instructions and targets: those of the authors, and the laws of the context."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner.instructions import INSTRUCTIONS, keep_context, write_instruction, write_target

label_lists = st.lists(st.sampled_from(["O", "O", "O", "B-x", "I-x", "B-y"]), max_size=25)


def test_golden(golden_dir: Path) -> None:
    rows = json.loads((golden_dir / "gner_data/prompts.json").read_text(encoding="utf-8"))
    assert len(rows) == 80
    for row in rows:
        words, types = row["words"], row["label_order"]
        assert write_instruction(words, types) == row["instruction"]
        named = write_instruction(words, types, dataset=row["dataset"])
        assert named == row["instruction_with_dataset"]
        assert write_target(words, row["labels"]) == row["target"]


# The context.


def nearest(labels: list[str], context: int) -> list[int]:
    """The definition: entity words, and the nearest O words on each side of each entity."""
    outside = [i for i, label in enumerate(labels) if label == "O"]
    kept = {i for i, label in enumerate(labels) if label != "O"}
    for place in sorted(kept):
        kept |= {i for i in outside if i < place and sum(i < j < place for j in outside) < context}
        kept |= {i for i in outside if i > place and sum(place < j < i for j in outside) < context}
    return sorted(kept)


@given(label_lists, st.integers(0, 9))
def test_context_keeps_the_nearest_words(labels: list[str], context: int) -> None:
    assert keep_context(labels, context) == nearest(labels, context)


@given(label_lists)
def test_a_context_of_the_whole_sentence_keeps_all(labels: list[str]) -> None:
    words = [f"w{i}" for i in range(len(labels))]
    whole = write_target(words, labels)
    if any(label != "O" for label in labels):
        assert write_target(words, labels, context=len(labels)) == whole
    else:
        assert write_target(words, labels, context=len(labels)) == ""


@pytest.mark.parametrize("context", [-1, "none", "1", True, 1.0, None, "", float("nan")])
def test_another_context_is_refused(context: Any) -> None:
    with pytest.raises(ValueError, match=r'context must be "all" or a whole number from 0: got'):
        write_target(["a"], ["O"], context=context)


def test_lengths_must_be_equal() -> None:
    with pytest.raises(ValueError, match="same length as words: got 2 and 1"):
        write_target(["a"], ["O", "O"])


# The template.


def test_the_line_of_the_data_set_is_left_out() -> None:
    template = "{types}\nCorpus {dataset}!\n{sentence}"
    assert write_instruction(["a", "b"], ["x"], template=template) == "x\na b"
    named = write_instruction(["a", "b"], ["x"], dataset="d", template=template)
    assert named == "x\nCorpus d!\na b"


def test_values_are_no_templates() -> None:
    words, types = ["{types}", "{sentence}", "{0}", "%s"], ["{dataset}", "{sentence}"]
    made = write_instruction(words, types, template="{types}|{sentence}|{other}{")
    assert made == "{dataset}, {sentence}|{types} {sentence} {0} %s|{other}{"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "{types} once: got it 0 times"),
        ("{types}", "{sentence} once: got it 0 times"),
        ("{types}{types}{sentence}", "{types} once: got it 2 times"),
        ("{types}{sentence}\n{dataset}\n{dataset}", "{dataset} at most once: got it 2 times"),
        ("{types}{dataset}\n{sentence}", "{dataset} in a line of its own"),
    ],
)
def test_templates_are_checked(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match="a template must hold") as caught:
        write_instruction(["a"], ["x"], template=template)
    assert problem in str(caught.value)


def test_types_are_needed() -> None:
    with pytest.raises(ValueError, match="at least one entity type"):
        write_instruction(["a"], [])
    with pytest.raises(TypeError, match="types must be a sequence of str"):
        write_instruction(["a"], "person")


def test_each_way_of_labels_has_an_instruction() -> None:
    assert set(INSTRUCTIONS) == {"bio", "bioes", "io"}
    assert len({write_instruction(["a"], ["x"], template=t) for t in INSTRUCTIONS.values()}) == 3
