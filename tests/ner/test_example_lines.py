"""Rows of examples written as lines: the same bytes as an encoder writes, whatever they hold."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore._text import to_json
from lmcore.ner import ExampleConfig, ExampleReport, Sentence, build_examples, make_sentence
from lmcore.ner.example_lines import write_lines
from lmcore.ner.examples import ExampleBuilder

words = st.sampled_from(
    ["a", "Ada", '"', "\\", "(O)", "x(B-c)", "北", "\x7f", 'é"', "a b", "a\u2028b", '", "', "a\nb",
     "\ud800"]
)  # fmt: skip
labels = st.sampled_from(["O", "B-p", "B-c q", "I-p"])


def write(
    sentences: list[Sentence],
    config: ExampleConfig | None = None,
    report: ExampleReport | None = None,
) -> list[str]:
    lines = write_lines(sentences, config or ExampleConfig(), report or ExampleReport())
    *written, end = b"".join(lines).decode().split("\n")
    assert not end
    return written


@st.composite
def rows(draw: st.DrawFn) -> Sentence:
    """Sentences of which some have a type that JSON escapes, and others a word alone."""
    types = draw(st.sampled_from([["p", "c q"], ["p", "c q", '"'], ["p", "c q", "\\"]]))
    pairs = draw(st.lists(st.tuples(words, labels), min_size=1, max_size=8))
    pairs += draw(st.sampled_from([[], [("Ada", f"B-{types[-1]}")]]))
    dataset = draw(st.sampled_from(["", "d", 'd"\n\x1b']))
    identity = draw(st.sampled_from([None, "1", '"\\']))
    given = map(list, zip(*pairs, strict=True))
    return make_sentence(*given, types, dataset=dataset, id=identity)


configs = st.builds(
    ExampleConfig,
    context=st.sampled_from(["all", 0, 1]),
    name_dataset=st.booleans(),
    types_per_row=st.sampled_from([None, 1, 3]),
    boundaries=st.sampled_from(["bio", "bioes", "io"]),
    drop_share=st.sampled_from([0, 0.5]),
    max_words=st.sampled_from([None, 3]),
    template=st.sampled_from([None, 'a "\\ {types}\n\t{dataset}\n{sentence}\x7f']),
)


@given(st.lists(rows(), min_size=1, max_size=5), configs)
def test_lines_are_the_rows_of_examples(sentences: list[Sentence], config: ExampleConfig) -> None:
    counted, expected = ExampleReport(), ExampleReport()
    lines = write(sentences, config, counted)
    assert lines == [
        to_json(example.to_row()) for example in build_examples(sentences, config, report=expected)
    ]
    assert counted == expected


@pytest.mark.parametrize("text", [None, "Ada  ran"])
def test_a_sentence_with_its_text_keeps_it(text: str | None) -> None:
    offsets = None if text is None else [(0, 3), (5, 8)]
    sentence = Sentence(["Ada", "ran"], ["B-p", "O"], ["p"], "d", None, text, offsets)
    (line,) = write([sentence])
    assert ('"text": "Ada  ran"' in line) == (text is not None)


def test_the_core_writes_all_rows_without_text_and_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a plain row was written one by one")

    monkeypatch.setattr(ExampleBuilder, "write", refuse)
    plain = make_sentence(["Ada", "爱达", '"'], ["B-p", "O", "O"], ["p"], dataset="d", id="7")
    assert len(write([plain] * 300)) == 300
    for other in (plain._replace(text="Ada"), plain._replace(words=["Ada", "\ud800", "a"])):
        with pytest.raises(AssertionError, match="plain row"):
            write([plain, other])


def test_rows_stay_in_order_across_blocks() -> None:
    lengths = [3 if number % 7 == 0 else 1 for number in range(600)]
    sentences = [
        make_sentence([f"w{number}"] * length, ["O"] * length, ["p"], id=str(number))
        for number, length in enumerate(lengths)
    ]
    config = ExampleConfig(max_words=2)
    lines = write(sentences, config)
    assert lines == [to_json(example.to_row()) for example in build_examples(sentences, config)]
