"""Answered questions as numbers: of subjects, of categories, and of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore._tables import format_table
from lmcore._text import escape
from lmcore.openba.questions import LETTERS, QuestionSet
from lmcore.openba.subjects import CATEGORIES


@dataclass(kw_only=True, slots=True, frozen=True)
class Score:
    """How some questions were answered."""

    name: str
    questions: int
    answered: int
    """Those whose right answer the file tells; the others count for nothing."""
    correct: int
    letters: dict[str, float]
    """Share of the questions for which each option was chosen."""
    mean: float | None = None
    """Of a category: the mean of its subjects' accuracies."""

    @property
    def accuracy(self) -> float | None:
        """Share of the questions that are answered rightly; None where no answer is told."""
        return self.correct / self.answered if self.answered else None

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints of it."""
        found = {"questions": self.questions, "answered": self.answered, "correct": self.correct}
        return {**found, "accuracy": self.accuracy, "letters": self.letters}


@dataclass(kw_only=True, slots=True, frozen=True)
class Evaluation:
    """How a suite was answered."""

    task: str
    split: str | None
    by: str
    prompts: str
    """Whose prompts asked, one of `lmcore.openba.question_prompts.PROMPTS`."""
    shots: int
    total: Score
    """Of all questions alike: the micro average."""
    subjects: tuple[Score, ...]
    categories: tuple[Score, ...]
    """Of the suite's own list; C-Eval's hard subjects are one of them."""
    fewer_shots: int
    """Questions that were shown fewer demonstrations: more do not fit."""
    cut: int
    """Questions of which the encoder read the beginning alone."""
    held_out: int
    """Questions that were shown to others, and do not count."""
    left_out: tuple[str, ...]
    """Files without a choice among options, and why."""
    bad_rows: int
    listed_bad_rows: tuple[str, ...]
    resumed: int
    """Questions that an earlier start answered."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore openba evaluate --json` prints."""
        found = {
            "task": self.task, "split": self.split, "by": self.by, "prompts": self.prompts,
            "shots": self.shots, **self.total.to_dict(),
            "subjects": {score.name: score.to_dict() for score in self.subjects},
            "categories": {
                score.name: {**score.to_dict(), "mean_of_subjects": score.mean}
                for score in self.categories
            },
            "fewer_shots": self.fewer_shots, "cut": self.cut, "held_out": self.held_out,
            "left_out": list(self.left_out),
        }  # fmt: skip
        if self.bad_rows:
            found["bad_rows"] = {"count": self.bad_rows, "rows": list(self.listed_bad_rows)}
        return found

    def to_table(self) -> list[str]:
        """Returns the lines of a table: subjects, categories, and all questions."""
        letters = list(self.total.letters)
        head = ("", "questions", "accuracy", "mean of subjects", *letters)
        rows = [_to_cells(score, letters) for score in self.subjects]
        if self.categories:
            rows += [("",) * len(head), *(_to_cells(s, letters) for s in self.categories)]
        rows += [("",) * len(head), _to_cells(self.total, letters)]
        if not self.categories:
            rows = [(*row[:3], *row[4:]) for row in rows]
            head = (*head[:3], *head[4:])
        return format_table(rows, head)


def summarize(
    questions: QuestionSet,
    by: str,
    prompts: str,
    rows: Sequence[Mapping[str, Any]],
    resumed: int = 0,
) -> Evaluation:
    """Returns the numbers of answered questions.

    Args:
        questions: the suite.
        by: how answers were chosen.
        prompts: whose prompts asked.
        rows: what `lmcore.openba.evaluation.evaluate` writes, in the order of the questions.
        resumed: rows that an earlier start answered.

    Example:
        >>> from lmcore.openba.questions import Question
        >>> question = Question(
        ...     subject="logic", key="1", place="", text="", options=("a", "b"), answer=1)
        >>> suite = QuestionSet(
        ...     task="ceval", split="val", shots=0, questions=(question,), held_out=0, files=(),
        ...     bad_rows=0, listed_bad_rows=(), left_out=())
        >>> row = {"subject": "logic", "answer": "B", "prediction": "B", "shots": 0}
        >>> found = summarize(suite, "letter", "ceval", [row])
        >>> found.total.accuracy, [score.name for score in found.categories]
        (1.0, ['Humanities'])
    """
    most = max((len(question.options) for question in questions.questions), default=0)
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row["subject"], []).append(row)
    subjects = [_count(name, part, most) for name, part in parts.items()]
    categories = []
    for name, members in CATEGORIES.get(questions.task, {}).items():
        found = [score for score in subjects if score.name in members]
        if found:
            held = [row for score in found for row in parts[score.name]]
            means = [score.accuracy for score in found if score.accuracy is not None]
            mean = sum(means) / len(means) if means else None
            categories.append(_count(name, held, most, mean))
    return Evaluation(
        task=questions.task, split=questions.split, by=by, prompts=prompts,
        shots=questions.shots, total=_count("all", rows, most), subjects=tuple(subjects),
        categories=tuple(categories),
        fewer_shots=sum(row["shots"] < questions.shots for row in rows),
        cut=sum(bool(row.get("cut")) for row in rows), held_out=questions.held_out,
        left_out=questions.left_out, bad_rows=questions.bad_rows,
        listed_bad_rows=questions.listed_bad_rows, resumed=resumed,
    )  # fmt: skip


def _count(
    name: str, rows: Iterable[Mapping[str, Any]], most: int, mean: float | None = None
) -> Score:
    rows = list(rows)
    chosen = Counter(row["prediction"] for row in rows)
    return Score(
        name=name,
        questions=len(rows),
        answered=sum(row["answer"] is not None for row in rows),
        correct=sum(row["answer"] == row["prediction"] for row in rows),
        letters={letter: chosen[letter] / max(1, len(rows)) for letter in LETTERS[:most]},
        mean=mean,
    )


def _to_cells(score: Score, letters: Sequence[str]) -> tuple[str, ...]:
    shares = [f"{100 * score.letters[letter]:.1f}" for letter in letters]
    values = (_percent(score.accuracy), "" if score.mean is None else _percent(score.mean))
    return (escape(score.name), f"{score.questions:,}", *values, *shares)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
