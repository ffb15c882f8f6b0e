"""Entities of texts, for those who want nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

from lmcore.ner.generation import Annotator, Generation
from lmcore.ner.merging import read_sentence
from lmcore.ner.models import load_model, load_tokenizer
from lmcore.ner.prediction import Prediction, Predictor, RecognizedEntity
from lmcore.training.processes import find_device


@dataclass(kw_only=True, slots=True, frozen=True)
class TextReport:
    """How the entities of a text were found."""

    labels: list[str]
    """One for each word, as `lmcore.ops.words.split_words` cuts the text."""
    generated: list[str]
    """What the model wrote, for each window of the text."""
    truncated: list[str]
    """What was cut: `source` if the model read the beginning of an instruction alone, `output` if
    its text was not at its end. Words behind the cut have no entities."""
    dropped_characters: int
    """Characters of the text that the tokenizer cannot write."""


class Recognizer:
    """Finds entities in texts with a model that was trained as in GNER.

    A text is cut into words by `lmcore.ops.words.split_words`, and into windows where it is too
    long for the model.

    Args:
        model: of transformers; or a folder of one, of an adapter or of a run, which holds the
            tokenizer too.
        tokenizer: of the model; that of the folder if None.
        device: where a folder's model is put; `auto` is a GPU where there is one.
        generation: how texts are generated: `Generation(constrained=True)` copies the words and
            is faster.
        overlap_words: words that two windows of a long text share.

    Raises:
        TypeError: a model is given without its tokenizer.
        ValueError: the folder holds no model.

    Example:
        >>> from lmcore.ner.models import make_model, make_tokenizer
        >>> from lmcore.ner.recipes import ScratchConfig
        >>> tokenizer = make_tokenizer(["Ada met Ada"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8), tokenizer)
        >>> recognizer = Recognizer(model, tokenizer, generation=Generation(constrained=True))
        >>> [entities] = recognizer.extract(["Ada met Eve."], ["person"])
        >>> all(0 < entity.confidence < 1 for entity in entities)
        True
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        device: str = "auto",
        generation: Generation | None = None,
        overlap_words: int = 16,
    ) -> None:
        if isinstance(model, str | os.PathLike):
            folder = model
            if tokenizer is None:
                tokenizer = load_tokenizer(folder)
            model = load_model(folder).to(find_device(device))
        elif tokenizer is None:
            raise TypeError("tokenizer must be given with a model: got None")
        self._annotator = Annotator(model, tokenizer, generation)
        self._overlap_words = overlap_words

    @overload
    def extract(
        self, texts: Sequence[str], types: Sequence[str], *, report: Literal[False] = False
    ) -> list[list[RecognizedEntity]]: ...

    @overload
    def extract(
        self, texts: Sequence[str], types: Sequence[str], *, report: Literal[True]
    ) -> tuple[list[list[RecognizedEntity]], list[TextReport]]: ...

    def extract(
        self, texts: Sequence[str], types: Sequence[str], *, report: bool = False
    ) -> list[list[RecognizedEntity]] | tuple[list[list[RecognizedEntity]], list[TextReport]]:
        """Returns the entities of each text, with offsets and a confidence.

        Args:
            texts: any number; one without words has no entities.
            types: what entities may be.
            report: return a `TextReport` for each text as well; without one, a text of which the
                model did not read or write all raises.

        Raises:
            TypeError: texts or types are one str, or hold something else.
            ValueError: a type that no label can name, or a text that was truncated.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a sequence of str: got one str, {texts!r:.60}")
        sentences = []
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{index}] must be a str: got {type(text).__name__}")
            row = {"text": text if text.strip() else "-", "types": list(types)}
            sentences.append(read_sentence([row]))
        predictor = Predictor(self._annotator, overlap_words=self._overlap_words)
        for sentence in sentences[:1]:
            predictor.check(sentence)
        predictions = predictor.predict(sentences)
        entities, reports = [], []
        for index, (text, prediction) in enumerate(zip(texts, predictions, strict=True)):
            if prediction.truncated and not report:
                raise ValueError(
                    f"texts[{index}]: the {' and the '.join(prediction.truncated)} of the model "
                    "was truncated, so entities may be missing: give max_source_tokens or "
                    "max_new_tokens more, or ask for a report"
                )
            is_empty = not text.strip()
            entities.append([] if is_empty else prediction.entities)
            reports.append(self._report(sentences[index].words, prediction, is_empty=is_empty))
        return (entities, reports) if report else entities

    def _report(self, words: list[str], prediction: Prediction, *, is_empty: bool) -> TextReport:
        if is_empty:
            return TextReport(labels=[], generated=[], truncated=[], dropped_characters=0)
        return TextReport(
            labels=prediction.labels,
            generated=prediction.windows or [prediction.text],
            truncated=prediction.truncated,
            dropped_characters=self._annotator.count_dropped(words),
        )
