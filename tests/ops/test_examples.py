"""`ops.examples`: rows of examples, the laws of their JSON, and the definition."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore._text import to_json
from lmcore.ner.instructions import INSTRUCTION, write_instruction, write_target
from lmcore.ops.examples import write_examples_batch
from lmcore.reference import examples as reference
from parity import agree
from strategies import surrogate_texts, texts

PARTS = ("Use ", "types", " and O.\nSentence: ", "sentence", "")
words = st.one_of(
    texts,
    st.sampled_from(["a", "(O)", "(O", "x(B-c)", "((I-", '"', "\\", '", "', "\x9b", "\u2028"]),
)
labels = st.sampled_from(["O", "B-p", "I-p", 'B-"q', "o", "", "S-北"])


@st.composite
def sentences(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of the op: sentences of all lengths, and what goes with them."""
    count = draw(st.integers(0, 4))
    lengths = [draw(st.integers(0, 6)) for _ in range(count)]

    def rows(items: st.SearchStrategy[str]) -> list[list[str]]:
        return [[draw(items) for _ in range(length)] for length in lengths]

    given_labels = draw(st.booleans())
    places = st.sampled_from(["types", "sentence", "dataset"])
    size = draw(st.integers(0, 7))
    return {
        "heads": [
            draw(st.sampled_from(["", '"id": 1', '"a": {"北": [2, "}"]}'])) for _ in range(count)
        ],
        "types": [draw(st.lists(words, max_size=3)) for _ in range(count)],
        "words": rows(words),
        "labels": rows(labels),
        "template": [draw(places if index % 2 else texts) for index in range(size)],
        "target_labels": rows(labels) if given_labels else None,
        "datasets": [draw(texts) for _ in range(count)],
        "context": draw(st.sampled_from([None, 0, 1, 2, 1 << 70])),
    }


def write(**arguments: Any) -> Any:
    arguments.setdefault("heads", [""] * len(arguments["words"]))
    return agree(reference.write_examples_batch, write_examples_batch, **arguments)


def read(lines: bytes) -> list[dict[str, Any]]:
    assert lines.count(b"\n") == len(lines.splitlines())
    return [json.loads(line) for line in lines.splitlines()]


# Golden: the rows that the library writes without the core, and the prompt of the checkpoints.


def test_row_of_the_released_prompt() -> None:
    given_words, given_labels = ["EU", "rejects", '"it"'], ["B-org", "O", "O"]
    before, between = INSTRUCTION.replace("Dataset: {dataset}.\n", "").split("{types}")
    template = [before, "types", between.removesuffix("{sentence}"), "sentence", ""]
    lines, unreadable = write(
        types=[["org", "person"]], words=[given_words], labels=[given_labels], template=template
    )
    assert unreadable == 0
    assert read(lines) == [
        {
            "types": ["org", "person"],
            "words": given_words,
            "labels": given_labels,
            "instruction": write_instruction(given_words, ["org", "person"]),
            "target": write_target(given_words, given_labels),
        }
    ]


@pytest.mark.parametrize("context", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("marks", ["", "O", "B", "OOBOO", "OOOBIOOOOBO", "BOB", "BOOB", "BOOOOOOB"])
def test_context(marks: str, context: int) -> None:
    given_labels = [mark if mark == "O" else f"{mark}-x" for mark in marks]
    given_words = [str(index) for index in range(len(marks))]
    lines, _ = write(
        types=[["x"]], words=[given_words], labels=[given_labels], template=[""], context=context
    )
    target = write_target(given_words, given_labels, context=context)
    assert [row["target"] for row in read(lines)] == [target]


# Laws.


@given(sentences())
def test_rows_are_the_json_of_what_they_say(arguments: dict[str, Any]) -> None:
    lines, _ = write(**arguments)
    rows = read(lines)
    assert lines == "".join(f"{to_json(row)}\n" for row in rows).encode()
    for name in ("types", "words", "labels"):
        assert [row[name] for row in rows] == arguments[name]
    for row, head in zip(rows, arguments["heads"], strict=True):
        assert to_json(row).startswith(f'{{{head}{", " if head else ""}"types": ')


def test_each_character_is_written_as_the_library_writes_it() -> None:
    for start in range(0, sys.maxunicode + 1, 1 << 12):
        codes = range(start, start + (1 << 12))
        text = "".join(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)
        lines, _ = write_examples_batch([""], [[]], [[text]], [["O"]], [])
        assert lines.decode().startswith(f'{{"types": [], "words": [{to_json(text)}]')


@given(st.lists(words, max_size=5))
def test_words_that_read_as_labels_are_counted_by_rows(given_words: list[str]) -> None:
    _, unreadable = write(
        types=[[]] * 2, words=[given_words] * 2, labels=[["O"] * len(given_words)] * 2, template=[]
    )
    reads = any(mark in word for word in given_words for mark in ("(B-", "(I-", "(O)"))
    assert unreadable == 2 * reads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int) -> None:
    count = 700
    given_words = [[f"w{row}", "(O)" if row % 3 else "o"] for row in range(count)]
    arguments: Any = ([""] * count, [["p"]] * count, given_words, [["O", "B-p"]] * count, PARTS)
    assert write_examples_batch(*arguments, threads=threads) == write_examples_batch(*arguments)


# Bad input.

ROW: dict[str, Any] = {
    "heads": [""],
    "types": [["p"]],
    "words": [["a"]],
    "labels": [["O"]],
    "template": PARTS,
}


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"heads": []}, "heads and words must have the same length: got 0 and 1"),
        ({"types": []}, "types and words must have the same length: got 0 and 1"),
        ({"labels": []}, "labels and words must have the same length: got 0 and 1"),
        ({"target_labels": []}, "target_labels and words must have the same length: got 0 and 1"),
        ({"datasets": []}, "datasets and words must have the same length: got 0 and 1"),
        ({"labels": [[]]}, "sentence [0]: labels and words must have the same length: got 0 and 1"),
        (
            {"target_labels": [["O", "O"]]},
            "sentence [0]: target_labels and words must have the same length: got 2 and 1",
        ),
        (
            {"template": ["", "a'\n"]},
            'template[1] must be types, sentence or dataset: got "a\'\\n"',
        ),
        (
            {"template": ["", "dataset"]},
            "datasets must be given: the template has a place for them",
        ),
        ({"context": -1}, "context must be at least 0: got -1"),
    ],
)
def test_values_that_do_not_fit(changed: dict[str, Any], text: str) -> None:
    error = write(**(ROW | changed))
    assert isinstance(error, ValueError)
    assert str(error) == text


@pytest.mark.parametrize("name", ["types", "words", "labels", "target_labels"])
def test_arguments_of_other_types(name: str) -> None:
    for value in ("a", ["a"], [[1]], 3, [None]):
        with pytest.raises(TypeError, match=name):
            write_examples_batch(**(ROW | {name: value}))
    with pytest.raises(TypeError, match="template"):
        write_examples_batch(**(ROW | {"template": "types"}))


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    for name in ("types", "words", "labels"):
        with pytest.raises(ValueError, match=rf"{name}\[0\]\[0\] holds a lone surrogate"):
            write_examples_batch(**(ROW | {name: [[text]]}))
