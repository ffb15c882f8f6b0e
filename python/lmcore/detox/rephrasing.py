"""Masked texts that are filled until they are clean and similar to what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from lmcore.detox.masking import MaskedText
from lmcore.detox.scorers import Scorer, check_scores
from lmcore.detox.similarity import Similarity, ngram_similarity
from lmcore.detox.text_sampling import PLACES
from lmcore.training.config import Between, check_fields

if TYPE_CHECKING:
    from lmcore.detox.filling import FilledText, FillProblem, MaskFiller


@dataclass(kw_only=True, slots=True, frozen=True)
class RephraseRule:
    """Which filled text is taken.

    A text is acceptable that is clean and similar. The first attempt that gives one ends the
    attempts. If none does, the least toxic text is kept, of these the most similar, of these the
    first, and marked as not clean or not similar.

    Source: Detox-Chain (arXiv 2308.08295), sections 3.2 and 10 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> RephraseRule(least_similarity=0.4).attempts
        5
    """

    attempts: Annotated[int, Between(1, PLACES - 1)] = 5
    """K, times that a text is filled at most."""
    threshold: Annotated[float, Between(0, 1)] = 0.5
    """A text is clean whose toxicity is at most so high."""
    least_similarity: Annotated[float | None, Between(-1, 1)] = None
    """A text is similar whose similarity to the prompt is higher; None: any is. The student's rule
    has 0.4."""

    def __post_init__(self) -> None:
        check_fields(self)

    def is_clean(self, toxicity: float) -> bool:
        """Returns whether a score is that of a clean text.

        Args:
            toxicity: from 0 to 1.
        """
        return toxicity <= self.threshold

    def is_similar(self, similarity: float) -> bool:
        """Returns whether a similarity is high enough.

        Args:
            similarity: at most 1.
        """
        return self.least_similarity is None or similarity > self.least_similarity


@dataclass(kw_only=True, slots=True, frozen=True)
class RephrasedText:
    """A prompt whose toxic spans were replaced."""

    masked: MaskedText
    text: str | None
    """The prompt in other words; None where it has no mask, or no attempt gave a text."""
    toxicity: float | None
    """Of that text, or of the prompt where it has no mask; None without either."""
    similarity: float | None
    """Of that text to the prompt."""
    attempts: int
    """How often the masks were filled."""
    is_clean: bool
    is_similar: bool
    problems: tuple[FillProblem, ...] = ()
    """Of attempts that gave no text."""
    is_cut: bool = False
    """Whether the text ended for want of room."""

    @property
    def is_acceptable(self) -> bool:
        """Returns whether the text, or the prompt as it is, may be gone on from."""
        return self.is_clean and self.is_similar

    @property
    def context(self) -> str | None:
        """Returns the text that is continued, if there is one."""
        return self.masked.text if not self.masked.masks else self.text


@dataclass(slots=True)
class _Search:
    """The attempts at a text."""

    masked: MaskedText
    number: int
    found: list[tuple[float, float, int, str, bool]] = field(default_factory=list)
    """Toxicity, negative similarity, attempt, text, and whether it was cut."""
    problems: list[FillProblem] = field(default_factory=list)
    attempts: int = 0
    is_over: bool = False


def rephrase_texts(
    texts: Sequence[MaskedText],
    filler: MaskFiller,
    scorer: Scorer,
    *,
    numbers: Sequence[int],
    seed: int = 0,
    rule: RephraseRule | None = None,
    similarity: Similarity = ngram_similarity,
) -> list[RephrasedText]:
    """Returns prompts with other words in place of their masks; one without masks stays.

    Args:
        texts: prompts and their masks.
        filler: of masks.
        scorer: says how toxic a text is.
        numbers: of each text, such as its line, below 2**44: noise belongs to it.
        seed: of the noise, below 2**64.
        rule: which text is taken.
        similarity: of the filled text to the prompt.

    Raises:
        TypeError: the scorer returned something that is no number.
        ValueError: there is not a number for each text, one cannot be filled, or the scorer
            returned something else than numbers from 0 to 1.

    Example:
        >>> text = MaskedText(text="the sea", masked="the sea", masks=0, toxicity=None)
        >>> rephrase_texts([text], None, lambda texts: [0.1] * len(texts), numbers=[1])[0].context
        'the sea'
    """
    rule = RephraseRule() if rule is None else rule
    searches = [_Search(text, number) for text, number in zip(texts, numbers, strict=True)]
    for attempt in range(rule.attempts):
        left = [one for one in searches if one.masked.masks and not one.is_over]
        if not left:
            break
        filled = filler.fill(
            [one.masked for one in left], [one.number for one in left], seed=seed, attempt=attempt
        )
        _judge(left, filled, scorer, similarity, rule)
    plain = [one.masked.text for one in searches if not one.masked.masks]
    scores = iter(check_scores(scorer(plain), plain).tolist() if plain else [])
    return [
        _choose(one, rule) if one.masked.masks else _pass(one.masked, next(scores), rule)
        for one in searches
    ]


def _judge(
    searches: Sequence[_Search],
    filled: Sequence[FilledText],
    scorer: Scorer,
    similarity: Similarity,
    rule: RephraseRule,
) -> None:
    """Takes the texts of one attempt."""
    whole = [(one, own) for one, own in zip(searches, filled, strict=True) if own.text is not None]
    texts = [own.text or "" for _, own in whole]
    scores = check_scores(scorer(texts), texts).tolist() if texts else []
    near = similarity(texts, [one.masked.text for one, _ in whole]) if texts else []
    for (one, own), score, alike in zip(whole, scores, near, strict=True):
        one.found.append((score, -float(alike), one.attempts, own.text or "", own.is_cut))
        one.is_over = rule.is_clean(score) and rule.is_similar(alike)
    for one, own in zip(searches, filled, strict=True):
        one.attempts += 1
        if own.problem is not None:
            one.problems.append(own.problem)


def _choose(search: _Search, rule: RephraseRule) -> RephrasedText:
    if not search.found:
        return RephrasedText(
            masked=search.masked, text=None, toxicity=None, similarity=None,
            attempts=search.attempts, is_clean=False, is_similar=False,
            problems=tuple(search.problems),
        )  # fmt: skip
    toxicity, far, _, text, is_cut = search.found[-1] if search.is_over else min(search.found)
    return RephrasedText(
        masked=search.masked, text=text, toxicity=toxicity, similarity=-far,
        attempts=search.attempts, is_clean=rule.is_clean(toxicity),
        is_similar=rule.is_similar(-far), problems=tuple(search.problems), is_cut=is_cut,
    )  # fmt: skip


def _pass(masked: MaskedText, toxicity: float, rule: RephraseRule) -> RephrasedText:
    """A prompt that has no masks."""
    return RephrasedText(
        masked=masked, text=None, toxicity=toxicity, similarity=None, attempts=0,
        is_clean=rule.is_clean(toxicity), is_similar=True,
    )  # fmt: skip
