"""Entities of texts in one call."""

from pathlib import Path
from typing import Any

import pytest
import torch

import lmcore.ner
from lmcore.ner.generation import Generation
from lmcore.ner.recognizer import Recognizer
from tiny_generators import TYPES, make_llama, make_t5, make_tokenizer

TEXTS = ["Ada met Charles Babbage in London.", "", "我爱 Paris (France)!", " \n"]
CONSTRAINED = Generation(constrained=True)


def make_case(kind: str = "t5", generation: Generation | None = CONSTRAINED) -> Recognizer:
    tokenizer = make_tokenizer(is_byte_level=kind == "llama")
    return Recognizer(
        (make_t5 if kind == "t5" else make_llama)(tokenizer), tokenizer, generation=generation
    )


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_entities_have_offsets_and_confidence(kind: str) -> None:
    found = make_case(kind).extract(TEXTS, TYPES)
    assert len(found) == len(TEXTS)
    assert found[1] == found[3] == []
    assert found[0]
    for text, entities in zip(TEXTS, found, strict=True):
        ends = [0, *(entity.end for entity in entities)]
        for end, entity in zip(ends, entities, strict=False):
            assert text[entity.start : entity.end] == entity.text
            assert entity.start >= end
            assert entity.type in TYPES
            assert 0 < entity.confidence <= 1


def test_a_report_says_how_they_were_found() -> None:
    recognizer = make_case()
    entities, reports = recognizer.extract(TEXTS, TYPES, report=True)
    assert entities == recognizer.extract(TEXTS, TYPES)
    assert [len(report.labels) for report in reports] == [7, 0, 7, 0]
    assert [report.dropped_characters for report in reports] == [0, 0, 2, 0]
    assert all(not report.truncated for report in reports)
    assert reports[0].generated[0].startswith("Ada(")
    assert reports[1].generated == []


def test_what_was_truncated_raises_or_is_reported() -> None:
    recognizer = make_case(generation=Generation(max_new_tokens=3))
    with pytest.raises(ValueError, match=r"texts\[0\]: the output of the model was truncated"):
        recognizer.extract(["Ada"], TYPES)
    _, reports = recognizer.extract(["Ada"], TYPES, report=True)
    assert reports[0].truncated == ["output"]
    recognizer = make_case(generation=Generation(constrained=True, max_source_tokens=20))
    with pytest.raises(ValueError, match="the source of the model was truncated"):
        recognizer.extract(["Ada"], TYPES)


def test_folders(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_t5(tokenizer, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = Recognizer(tmp_path, device="cpu", generation=CONSTRAINED)
    own = Recognizer(model, tokenizer, generation=CONSTRAINED)
    assert loaded.extract(TEXTS, TYPES) == own.extract(TEXTS, TYPES)
    with pytest.raises(ValueError, match="no such folder"):
        Recognizer(tmp_path / "none")


@pytest.mark.parametrize(
    ("texts", "types", "error", "problem"),
    [
        ("Ada", TYPES, TypeError, "texts must be a sequence of str"),
        ([3], TYPES, TypeError, r"texts\[0\] must be a str: got int"),
        (["Ada"], [], ValueError, "at least one"),
        (["Ada"], ["a)"], ValueError, "parenthesis"),
        (["\ud800"], TYPES, ValueError, "surrogate"),
    ],
)
def test_wrong_arguments(texts: Any, types: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        make_case().extract(texts, types)


def test_no_texts_and_no_tokenizer() -> None:
    assert make_case().extract([], TYPES) == []
    with pytest.raises(TypeError, match="tokenizer must be given"):
        Recognizer(make_t5(make_tokenizer()))


def test_the_package_offers_it() -> None:
    assert lmcore.ner.Recognizer is Recognizer
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        _ = lmcore.ner.Recogniser
