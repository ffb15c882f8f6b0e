"""Questions with options, answered by a model: what it chose of each, and how often that is right.

By letter, the logits of `A`, `B` ... are compared behind the prompt; by loss, the mean
cross-entropy of each option's tokens. Of the demonstrations that were asked for a question gets as
many as the encoder can read, counted where that are fewer.

Rows go to a file in the order of the questions. They are worked on in batches of like lengths,
made within blocks that are a function of the questions alone, so a run that was killed goes on
behind the last whole block and ends with the same bytes.

Source: OpenBA (arXiv 2309.10706) and OpenBA-V2 (arXiv 2405.05957), the released evaluation;
specification section 8.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

from lmcore._extras import optional_imports
from lmcore._files import find_file, naming_errors
from lmcore._partial import Partial, State
from lmcore._rows import parse_row
from lmcore._streams import is_gzip
from lmcore._text import to_json
from lmcore.openba.answers import LEAST_SOURCE, AnswerScorer
from lmcore.openba.evaluation_scores import Evaluation, summarize
from lmcore.openba.question_prompts import BY, PROMPTS, find_prompt_name, make_source
from lmcore.openba.questions import LETTERS, Question, QuestionSet
from lmcore.training.fingerprint import fingerprint_model

with optional_imports():
    import torch

# Batches that are made of one block: the more, the less padding, and the more is lost by a kill.
_BATCHES = 16
_SAVE_SECONDS = 1.0
# The authors' window; a model that was trained with less reads less.
_WINDOW = 1024


@dataclass(kw_only=True, slots=True, frozen=True)
class EvaluationConfig:
    """How questions are asked, and how an answer is chosen.

    Raises:
        TypeError: a number is of another type.
        ValueError: there is no such way or prompt, or a number is out of its range.
    """

    by: str = "letter"
    """`letter`: the likeliest letter; `loss`: the option whose tokens have the least mean loss."""
    prompts: str | None = None
    """One of `lmcore.openba.question_prompts.PROMPTS`; those of the task if None."""
    max_source_tokens: int | None = None
    """That the encoder reads, the frame included. None for 1024, or as many as the model was
    trained with if those are fewer."""
    batch_size: int = 16
    """Questions that are answered together."""

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}: got {self.by!r:.60}")
        find_prompt_name("", self.prompts)
        for name, least in (("max_source_tokens", LEAST_SOURCE), ("batch_size", 1)):
            value = getattr(self, name)
            if value is None and name == "max_source_tokens":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int: got {type(value).__name__}")
            if not least <= value < 2**31:
                raise ValueError(f"{name} must be from {least} to {2**31 - 1}: got {value}")


def evaluate(
    model: Any,
    tokenizer: Any,
    questions: QuestionSet,
    *,
    config: EvaluationConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    r"""Returns how many questions a model answers rightly, by subject and by category.

    Args:
        model: an `OpenBAForConditionalGeneration`.
        tokenizer: of the model.
        questions: of `lmcore.openba.questions.read_questions`.
        config: how they are asked.
        out: a file of JSONL with a row for each question: `subject`, `id`, `answer`, `prediction`,
            the `scores` of the options (logits, or mean losses), `shots`, and `cut` where the
            encoder did not read all of the question; none is written if None.
        resume: go on where an earlier run ended; otherwise start anew.
        progress: called with the number of questions that are done.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        FloatingPointError: a score is NaN; the text names the question.
        OSError: a file cannot be read or written.
        ValueError: the tokenizer is not the model's, or has no token for a letter, or the output
            cannot be gone on with.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer
        >>> from lmcore.openba.questions import read_questions
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        ...     file = Path(folder, "a.csv")
        ...     _ = file.write_text("goal,sol1,sol2,label\nTo swim,water,sand,0\n")
        ...     questions = read_questions(file, "piqa")
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(
        ...     vocab_size=tokenizer.padded_size(), hidden_size=8, encoder_layers=1,
        ...     decoder_layers=2))
        >>> found = evaluate(model, tokenizer, questions)
        >>> found.total.questions, sorted(found.total.letters)
        (1, ['A', 'B'])
    """
    config = EvaluationConfig() if config is None else config
    window = min(_WINDOW, model.config.max_seq_length)
    scorer = AnswerScorer(
        model, tokenizer, batch_size=config.batch_size,
        max_source_tokens=config.max_source_tokens or max(window, LEAST_SOURCE),
    )  # fmt: skip
    asker = _Asker(scorer, questions, config, progress)
    with ExitStack() as stack:
        rows: list[dict[str, Any]] = []
        output = None
        if out is not None:
            target = find_file(out, questions.files)
            partial = stack.enter_context(Partial(os.fspath(out), target))
            output = _Output(partial, asker.make_recipe(), resume)
            rows += output.read()
        resumed = len(rows)
        if progress is not None and resumed:
            progress(resumed)
        try:
            for block in asker.answer(resumed):
                rows += block
                if output is not None:
                    output.write(block)
            if output is not None:
                output.finish(is_gzip=is_gzip(out or ""))
        except BaseException:
            if output is not None:
                output.keep()
            raise
    return summarize(questions, config.by, asker.prompts, rows, resumed)


class _Asker:
    """Answers questions, block by block."""

    def __init__(
        self,
        scorer: AnswerScorer,
        questions: QuestionSet,
        config: EvaluationConfig,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._scorer, self._config, self._progress = scorer, config, progress
        self._task = questions.task
        self._questions = questions.questions
        self.prompts = find_prompt_name(questions.task, config.prompts)
        self._prompt = PROMPTS[self.prompts][config.by]
        most = max(len(question.options) for question in self._questions)
        is_lettered = config.by == "letter"
        self._letters = [scorer.find_token(letter) for letter in LETTERS[: most * is_lettered]]
        self._start: list[int] = []
        if is_lettered and self._prompt.answer_start:
            self._start = scorer.encode_continuation(self._prompt.answer_start)
        self._digest, self._shots = questions.digest, questions.shots

    def make_recipe(self) -> dict[str, Any]:
        """All that the rows depend on."""
        model = self._scorer.model
        return {
            "model": fingerprint_model(model, self._scorer.tokenizer),
            "questions": self._digest,
            **asdict(self._config),
            "prompts": self.prompts,
            "max_source_tokens": self._scorer.max_source_tokens,
            "shots": self._shots,
            "device": str(model.device),
            "threads": torch.get_num_threads(),
        }

    def answer(self, done: int) -> Iterator[list[dict[str, Any]]]:
        """Yields rows of the blocks behind those that are done."""
        size = self._config.batch_size * _BATCHES
        for first in range(done, len(self._questions), size):
            yield self._answer_block(self._questions[first : first + size])

    def _answer_block(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        sources, shots = self._choose_sources(questions)
        kept = [self._scorer.cut(source) for source in sources]
        rows = []
        for question, scores, shown, source, read in zip(
            questions, self._score(questions, kept), shots, sources, kept, strict=True
        ):
            if any(map(math.isnan, scores)):
                raise FloatingPointError(f"{question.place}: the model gives scores that are NaN")
            is_lettered = self._config.by == "letter"
            best = max(scores) if is_lettered else min(scores)
            answer = None if question.answer is None else LETTERS[question.answer]
            row: dict[str, Any] = {
                "subject": question.subject, "id": question.key, "answer": answer,
                "prediction": LETTERS[scores.index(best)],
                "scores": [round(s, 6) if math.isfinite(s) else None for s in scores],
                "shots": shown,
            }  # fmt: skip
            if len(read) < len(source):
                row["cut"] = True
            rows.append(row)
        return rows

    def _choose_sources(self, questions: Sequence[Question]) -> tuple[list[list[int]], list[int]]:
        """The longest sources that the encoder can read, and how many demonstrations they have."""
        shots = [len(question.demos) for question in questions]
        sources: list[list[int]] = [[] for _ in questions]
        left = list(range(len(questions)))
        while left:
            texts = [
                make_source(
                    questions[n], self._prompt, questions[n].demos[: shots[n]], suite=self._task
                )
                for n in left
            ]
            longer = []
            for number, ids in zip(left, self._scorer.encode_all(texts), strict=True):
                sources[number] = ids
                if len(ids) > self._scorer.max_source_tokens and shots[number]:
                    shots[number] -= 1
                    longer.append(number)
            left = longer
        return sources, shots

    def _score(self, questions: Sequence[Question], sources: list[list[int]]) -> list[list[float]]:
        if self._config.by == "letter":
            return self._scorer.score_tokens(
                sources, [self._letters[: len(question.options)] for question in questions],
                start=self._start, progress=self._progress,
            )  # fmt: skip
        texts = [text for question in questions for text in question.options]
        ids = iter(self._scorer.encode_continuations(texts))
        options = [[next(ids) for _ in question.options] for question in questions]
        found = self._scorer.score_continuations(
            sources, options, finds_greedy=False, progress=self._progress
        )
        return [
            [score.loss / score.tokens if score.tokens else math.inf for score in scores]
            for scores in found
        ]


class _Output:
    """Rows that are written over several starts."""

    def __init__(self, partial: Partial, recipe: Any, resume: bool) -> None:
        self._partial = partial
        self._state = (partial.load(recipe) if resume else None) or State(recipe=recipe)
        self._digest = partial.cut(self._state)
        self._saved = time.monotonic()

    def read(self) -> list[dict[str, Any]]:
        """The rows of earlier starts."""
        with naming_errors(self._partial.name):
            self._partial.file.seek(0)
            content = self._partial.file.read()
        rows = [parse_row(line) for line in content.splitlines()]
        assert len(rows) == self._state.rows  # their digest is the state's
        return rows

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Writes the rows of a block."""
        content = "".join(to_json(row) + "\n" for row in rows).encode()
        state = self._state
        with naming_errors(self._partial.name):
            self._partial.file.write(content)
        self._digest.update(content)
        state.output_bytes += len(content)
        state.rows += len(rows)
        state.line = state.rows
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self._save()

    def finish(self, *, is_gzip: bool) -> None:
        """Gives the rows the output's name."""
        self._partial.finish(is_gzip=is_gzip)

    def keep(self) -> None:
        """Saves what is done before an early end, or removes the files if that is nothing."""
        if self._state.line:
            with suppress(OSError):  # the state before is whole, too
                self._save()
        else:
            self._partial.remove()

    def _save(self) -> None:
        self._state.output_digest = self._digest.hexdigest()
        self._partial.save(self._state)
        self._saved = time.monotonic()


__all__ = ["Evaluation", "EvaluationConfig", "evaluate"]
