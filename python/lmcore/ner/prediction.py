"""Rows to rows with predictions: generated text, labels, and entities with a confidence.

Sentences are generated in batches of similar lengths, made within blocks of rows: a batch of mixed
lengths is mostly padding. What comes out stands in the order of the input. Blocks are a function
of the input alone, so a run that was killed goes on behind the last whole block and ends with the
same bytes: how numbers are rounded depends on what a sentence shares its batch with.

Nothing is cut in silence. A sentence that is too long for the model becomes windows that overlap,
and their number stands in the row (`windows`); what remains too long is cut and named there
(`truncated`), and counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmcore._extras import optional_imports
from lmcore._row_stream import RowStream
from lmcore._rows import Row
from lmcore.ner.confidence import rate_entities
from lmcore.ner.generation import Annotator, Answer, Generation, Question
from lmcore.ner.instructions import write_target
from lmcore.ner.merging import (
    SourceSentence,
    cut_part,
    find_seams,
    group_rows,
    join_labels,
    read_sentence,
)
from lmcore.ops.entities import decode_spans
from lmcore.ops.predictions import Entity
from lmcore.training.fingerprint import fingerprint_model

with optional_imports():
    import torch

# Batches that are made of one block: the more, the less padding, and the more is lost by a kill.
_BATCHES = 16
Progress = Callable[[int], object]
"""Called with the number of sentences and windows that a batch was made of."""


@dataclass(kw_only=True, slots=True, frozen=True)
class RecognizedEntity(Entity):
    """An entity that a model named."""

    confidence: float
    """In [0, 1]: the product of the probabilities of its words' labels."""


@dataclass(kw_only=True, slots=True)
class PredictionCounts:
    """What was predicted, and what was cut."""

    sentences: int = 0
    entities: int = 0
    cut_sentences: int = 0
    """Sentences that were cut into windows, here or before."""
    windows: int = 0
    """Windows of these."""
    truncated_sources: int = 0
    """Sentences with an instruction of which the model read the beginning alone."""
    truncated_outputs: int = 0
    """Sentences whose text was not at its end."""
    characters: int = 0
    """Of all words."""
    dropped_characters: int = 0
    """Those of them that the tokenizer cannot write."""

    @property
    def dropped_share(self) -> float:
        """The share of characters that the tokenizer cannot write."""
        return self.dropped_characters / self.characters if self.characters else 0.0


@dataclass(kw_only=True, slots=True, frozen=True)
class PredictionSummary:
    """What `predict_file` did."""

    rows: int
    """Rows of the input that have their predictions, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which `counts` does not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    counts: PredictionCounts


@dataclass(kw_only=True, slots=True, frozen=True)
class Prediction:
    """What a model says of a sentence."""

    text: str
    """What it generated; of windows the words of the sentence with their joined labels."""
    labels: list[str]
    """One for each word."""
    entities: list[RecognizedEntity]
    windows: list[str]
    """What it generated for each window; empty where there is one alone."""
    truncated: list[str]
    """What was cut: `source`, `output` or both."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what is added to a row."""
        added: dict[str, Any] = {
            "prediction": self.text,
            "predicted_labels": self.labels,
            "entities": [asdict(entity) for entity in self.entities],
        }
        if self.windows:
            added |= {"windows": len(self.windows), "window_predictions": self.windows}
        if self.truncated:
            added["truncated"] = self.truncated
        return added


class Predictor:
    """Predicts sentences of any length.

    Args:
        annotator: a model.
        overlap_words: words that two windows of a long sentence share.

    Raises:
        ValueError: the overlap is below 0.
    """

    def __init__(self, annotator: Annotator, *, overlap_words: int = 16) -> None:
        if overlap_words < 0:
            raise ValueError(f"overlap_words must be at least 0: got {overlap_words}")
        self.annotator = annotator
        self.overlap_words = overlap_words
        self.counts = PredictionCounts()

    def check(self, sentence: SourceSentence) -> None:
        """Returns nothing if a sentence can be predicted.

        Args:
            sentence: any.

        Raises:
            ValueError: constrained decoding cannot write its words or tell its types apart.
        """
        instruction = sentence.parts[0].instruct(sentence.types)
        self.annotator.check(
            Question(words=sentence.words, types=sentence.types, instruction=instruction)
        )

    def predict(
        self, sentences: Sequence[SourceSentence], *, progress: Progress | None = None
    ) -> list[Prediction]:
        """Returns the predictions of sentences, in their order.

        Args:
            sentences: any number; batches are made of all their windows.
            progress: called after each batch.

        Raises:
            ValueError: a sentence cannot be predicted, or the model is broken.
        """
        windows = self._cut(sentences)
        questions = [
            Question(
                words=sentence.words[start:stop], types=sentence.types, instruction=instruction,
                split=sentence.split,
            )
            for sentence, own in zip(sentences, windows, strict=True)
            for start, stop, instruction in own
        ]  # fmt: skip
        answers = iter(self.annotator.answer(questions, progress=progress))
        return [
            self._join(sentence, [(start, stop, next(answers)) for start, stop, _ in own])
            for sentence, own in zip(sentences, windows, strict=True)
        ]

    def _cut(self, sentences: Sequence[SourceSentence]) -> list[list[tuple[int, int, str]]]:
        """Windows of each sentence, with their instructions."""
        parts = [(sentence, part) for sentence in sentences for part in sentence.parts]
        whole = [part.instruct(sentence.types) for sentence, part in parts]
        counts = self.annotator.count_tokens(whole)
        generation = self.annotator.generation
        windows: dict[int, list[tuple[int, int, str]]] = {}
        for (sentence, part), instruction, count in zip(parts, whole, counts, strict=True):
            own = windows.setdefault(id(sentence), [])
            least = 0
            if not generation.constrained:
                least = self.annotator.count_target_tokens(part.words)
            if count <= generation.max_source_tokens and least <= generation.max_new_tokens:
                own.append((part.start, part.start + len(part.words), instruction))
                continue

            def fits(start: int, stop: int, part: Any = part, types: Any = sentence.types) -> bool:
                [count] = self.annotator.count_tokens([part.instruct(types, start, stop)])
                if count > generation.max_source_tokens:
                    return False
                if generation.constrained:
                    return True
                words = part.words[start:stop]
                return self.annotator.count_target_tokens(words) <= generation.max_new_tokens

            own += [
                (part.start + a, part.start + b, part.instruct(sentence.types, a, b))
                for a, b in cut_part(part, fits, self.overlap_words)
            ]
        return [windows[id(sentence)] for sentence in sentences]

    def _join(self, sentence: SourceSentence, windows: list[tuple[int, int, Answer]]) -> Prediction:
        answers = [answer for _, _, answer in windows]
        labels = join_labels([(start, answer.labels) for start, _, answer in windows])
        seams = find_seams([(start, stop) for start, stop, _ in windows])
        probabilities = [
            probability
            for (start, _, answer), (begin, end) in zip(windows, seams, strict=True)
            for probability in answer.probabilities[begin - start : end - start]
        ]
        is_cut = len(windows) > 1
        prediction = Prediction(
            text=write_target(sentence.words, labels) if is_cut else answers[0].text,
            labels=labels,
            entities=_find_entities(sentence, labels, probabilities),
            windows=[answer.text for answer in answers] if is_cut else [],
            truncated=[
                name for name, cut in (
                    ("source", any(answer.is_source_cut for answer in answers)),
                    ("output", any(answer.is_output_cut for answer in answers)),
                ) if cut
            ],
        )  # fmt: skip
        self._count(sentence, prediction)
        return prediction

    def _count(self, sentence: SourceSentence, prediction: Prediction) -> None:
        counts = self.counts
        counts.sentences += 1
        counts.entities += len(prediction.entities)
        counts.cut_sentences += bool(prediction.windows)
        counts.windows += len(prediction.windows)
        counts.truncated_sources += "source" in prediction.truncated
        counts.truncated_outputs += "output" in prediction.truncated
        counts.characters += sum(map(len, sentence.words))
        counts.dropped_characters += self.annotator.count_dropped(sentence.words)


def predict(
    model: Any,
    tokenizer: Any,
    rows: Iterable[Mapping[str, Any]],
    *,
    types: Sequence[str] | None = None,
    generation: Generation | None = None,
    overlap_words: int = 16,
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields rows with their predictions, in the order of the input; windows become sentences.

    A row keeps what it holds, and gets `prediction` (the generated text), `predicted_labels`,
    `entities` (`start`, `end`, `type`, `text`, `confidence`; offsets count characters of `text`,
    or of the words joined with spaces), `windows` and `window_predictions` where it was cut, and
    `truncated` where the model did not read or write all of it.

    Source: GNER (arXiv 2402.16602), and section 2.4 of the specification.

    Args:
        model: of transformers, encoder-decoder or causal.
        tokenizer: of the model.
        rows: as `lmcore ner data` writes them, the authors', or with `words` or `text` alone.
        types: what entities may be in rows that name no types.
        generation: how texts are generated; greedy if None.
        overlap_words: words that two windows of a long sentence share.
        progress: called after each batch with the number of sentences and windows in it.

    Raises:
        TypeError: a value in a row has another type.
        ValueError: a row cannot be used; the text says which, from 0.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
        >>> pieces = ["<pad>", "</s>", "<unk>", "Ada", "(", "O", ")", "B", "I", "-", "person"]
        >>> known = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, "<unk>"))
        >>> known.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        >>> tokenizer = PreTrainedTokenizerFast(
        ...     tokenizer_object=known, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
        >>> model = T5ForConditionalGeneration(T5Config(
        ...     vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        ...     decoder_start_token_id=0))
        >>> rows = [{"words": ["Ada"], "types": ["person"]}]
        >>> [row] = predict(model, tokenizer, rows, generation=Generation(constrained=True))
        >>> row["prediction"] in ("Ada(O)", "Ada(B-person)")
        True
    """
    predictor = Predictor(Annotator(model, tokenizer, generation), overlap_words=overlap_words)
    size = predictor.annotator.generation.batch_size * _BATCHES
    for block in _make_blocks(enumerate(rows), size):
        sentences = []
        for group in block:
            try:
                sentence = read_sentence([row for _, row in group], types)
                predictor.check(sentence)
            except TypeError as error:
                raise TypeError(f"row {group[0][0]}: {error}") from None
            except ValueError as error:
                raise ValueError(f"row {group[0][0]}: {error}") from None
            sentences.append(sentence)
        for sentence, prediction in zip(
            sentences, predictor.predict(sentences, progress=progress), strict=True
        ):
            yield {**sentence.row, **prediction.to_dict()}


def predict_file(
    model: Any,
    tokenizer: Any,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    types: Sequence[str] | None = None,
    generation: Generation | None = None,
    overlap_words: int = 16,
    resume: bool = True,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> PredictionSummary:
    """Writes the rows of a file with their predictions; see `predict`.

    A run that was killed goes on behind the last block of rows that was written, and its file
    ends with the same bytes: with the same model, settings, device and number of threads, which
    are compared.

    Args:
        model: of transformers.
        tokenizer: of the model.
        source: JSONL; `.gz` is decompressed, `-` is standard input.
        target: where the rows go; `-` is standard output.
        types: what entities may be in rows that name no types.
        generation: how texts are generated; greedy if None.
        overlap_words: words that two windows of a long sentence share.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising. Where one row of
            a sentence's windows cannot be used, all are left out.
        progress: called after each batch with the number of sentences and windows in it.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: a row cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.ner.models import make_model, make_tokenizer
        >>> from lmcore.ner.recipes import ScratchConfig
        >>> tokenizer = make_tokenizer(["Ada ran (O B-person)"], 60)
        >>> model = make_model(ScratchConfig(hidden_size=8), tokenizer)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     written = source.write_text('{"words": ["Ada"], "types": ["person"]}')
        ...     generation = Generation(max_new_tokens=8)
        ...     predict_file(model, tokenizer, source, target, generation=generation).rows
        1
    """
    predictor = Predictor(Annotator(model, tokenizer, generation), overlap_words=overlap_words)
    generation = predictor.annotator.generation
    recipe = {
        "model": fingerprint_model(model, tokenizer),
        **asdict(generation),
        "types": None if types is None else list(types),
        "overlap_words": overlap_words,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }
    with RowStream(
        source, target, recipe, resume=resume, skip_bad_rows=skip_bad_rows, by_block=True
    ) as stream:
        pairs = ((row, row.value) for row in stream)
        for block in _make_blocks(pairs, generation.batch_size * _BATCHES):
            _predict_block(predictor, stream, block, types, progress)
            stream.release()
    return PredictionSummary(
        rows=stream.rows,
        resumed_rows=stream.resumed_rows,
        bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows),
        counts=predictor.counts,
    )


def _predict_block(
    predictor: Predictor,
    stream: RowStream,
    block: list[list[tuple[Row, dict[str, Any]]]],
    types: Sequence[str] | None,
    progress: Progress | None,
) -> None:
    usable, sentences = [], []
    for group in block:
        try:
            sentence = read_sentence([value for _, value in group], types)
            predictor.check(sentence)
        except (TypeError, ValueError) as error:
            problem = str(error)
        else:
            usable.append(group)
            sentences.append(sentence)
            continue
        for row, _ in group:
            stream.refuse(row, problem)
    predictions = predictor.predict(sentences, progress=progress)
    for group, sentence, prediction in zip(usable, sentences, predictions, strict=True):
        for row, _ in group[1:]:
            stream.write(row)
        stream.write(group[0][0], {**sentence.row, **prediction.to_dict()})


def _make_blocks(
    rows: Iterable[tuple[Any, Mapping[str, Any]]], size: int
) -> Iterator[list[list[tuple[Any, Any]]]]:
    """Groups of rows by sentence, `size` of them at a time."""
    block = []
    for group in group_rows(rows):
        block.append(group)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _find_entities(
    sentence: SourceSentence, labels: list[str], probabilities: list[float]
) -> list[RecognizedEntity]:
    entities = []
    rated = rate_entities(labels, probabilities)
    for span, confidence in zip(decode_spans(labels), rated, strict=True):
        start, end = sentence.offsets[span.start][0], sentence.offsets[span.end - 1][1]
        entities.append(RecognizedEntity(
            start=start, end=end, type=span.type, text=sentence.text[start:end],
            confidence=round(confidence, 6),
        ))  # fmt: skip
    return entities
