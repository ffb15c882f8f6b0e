"""The steps of detoxification over rows of a file: mask, fill, continue, select.

| step | reads | adds |
| --- | --- | --- |
| mask | a prompt | `masked`, `masks` |
| fill | these | `rephrased`, `context_toxicity`, `rephrased_similarity`, `attempts`, `clean`, `similar` |
| continue | the rephrased prompt, or the prompt where nothing is masked | `generations` |
| select | these | `scores`, and what chains are made of, under the authors' keys |
"""  # noqa: E501

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lmcore.detox.data import parse_prompt
from lmcore.detox.masking import MASK_FORMS, mask_prompts
from lmcore.detox.rephrasing import RephrasedText, RephraseRule, rephrase_texts
from lmcore.detox.row_blocks import check_absent
from lmcore.detox.scorers import Scorer
from lmcore.detox.selection import ScoredText, keep_extremes, score_samples
from lmcore.detox.similarity import Similarity, ngram_similarity
from lmcore.detox.step_rows import PromptReading, find_context, find_masked, find_samples
from lmcore.detox.toxicity import TOXIC_ABOVE
from lmcore.training.fingerprint import fingerprint_model

if TYPE_CHECKING:
    from lmcore.detox.continuing import TextContinuer
    from lmcore.detox.filling import MaskFiller
    from lmcore.detox.spans import SpanFinder

# Of what is written: further ones hang on how a CPU computes exp.
_DIGITS = 6


class Step(Protocol):
    """Something that adds keys to rows."""

    keys: tuple[str, ...]
    """That it adds."""

    def describe(self) -> dict[str, Any] | None:
        """Returns all that it depends on besides a row, for JSON; None if that is not known."""

    def check(self, row: Mapping[str, Any], reading: PromptReading) -> None:
        """Raises `ValueError` for a row that it cannot use."""

    def add(
        self, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], reading: PromptReading,
        counts: Counter[str],
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Returns what it adds to each row, and counts what it did."""


@dataclass(kw_only=True, slots=True)
class MaskStep:
    """Masks in place of the toxic spans of prompts.

    Example:
        >>> MaskStep(finder=None, form="x")
        Traceback (most recent call last):
        ValueError: form must be one of pieces, text: got 'x'
    """

    finder: SpanFinder
    form: str = "pieces"
    """One of `lmcore.detox.masking.MASK_FORMS`."""
    prompt_threshold: float | None = 0.5
    """Prompts are masked whose own toxicity is above, or unknown; None: all are."""
    keys: tuple[str, ...] = ("masked", "masks")

    def __post_init__(self) -> None:
        if self.form not in MASK_FORMS:
            raise ValueError(f"form must be one of {', '.join(MASK_FORMS)}: got {self.form!r:.60}")

    def describe(self) -> dict[str, Any] | None:
        """Returns all that it depends on besides a row, for JSON."""
        return {
            "step": "mask", "form": self.form, "prompt_threshold": self.prompt_threshold,
            **self.finder.describe(), **_describe(self.finder),
        }  # fmt: skip

    def check(self, row: Mapping[str, Any], reading: PromptReading) -> None:
        """Raises `ValueError` for a row that it cannot use.

        Args:
            row: of a file.
            reading: how its prompt is found.
        """
        reading.find_text(row)
        reading.find_toxicity(row)

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        numbers: Sequence[int],
        reading: PromptReading,
        counts: Counter[str],
    ) -> list[dict[str, Any]]:
        """Returns what it adds to each row.

        Args:
            rows: that `check` took.
            numbers: of the rows, which do not matter.
            reading: how their prompts are found.
            counts: of what is done.
        """
        texts = [reading.find_text(row) for row in rows]
        scores = [reading.find_toxicity(row) for row in rows]
        found, asked = mask_prompts(
            self.finder, texts, scores, form=self.form, prompt_threshold=self.prompt_threshold
        )
        counts["passed"] += len(rows) - asked
        counts["masked"] += sum(one.masks > 0 for one in found)
        counts["masks"] += sum(one.masks for one in found)
        return [{"masked": one.masked, "masks": one.masks} for one in found]


@dataclass(kw_only=True, slots=True)
class FillStep:
    """Words in place of masks, until a text is clean and similar to its prompt.

    Example:
        >>> step = FillStep(filler=None, scorer=lambda texts: [0.1 for _ in texts])
        >>> row = {"prompt": "the sea", "masked": "the sea", "masks": 0}
        >>> [added] = step.add([row], [1], PromptReading(), Counter())
        >>> added["rephrased"], added["clean"]
        (None, True)
    """

    filler: MaskFiller
    scorer: Scorer
    rule: RephraseRule = field(default_factory=RephraseRule)
    similarity: Similarity = ngram_similarity
    seed: int = 0
    """Of the noise, which belongs to it, a row's line and the attempt."""
    keys: tuple[str, ...] = (
        "rephrased", "context_toxicity", "rephrased_similarity", "attempts", "clean", "similar",
    )  # fmt: skip

    def describe(self) -> dict[str, Any] | None:
        """Returns all that it depends on besides a row, for JSON; None if that is not known."""
        is_own = self.similarity is ngram_similarity
        near = "ngrams" if is_own else getattr(self.similarity, "key", None)
        key = getattr(self.scorer, "key", None)
        if key is None or near is None:
            return None
        return {
            "step": "fill", "scorer": key, "similarity": near, "seed": self.seed,
            **asdict(self.rule), **asdict(self.filler.sampling), **_describe(self.filler),
        }  # fmt: skip

    def check(self, row: Mapping[str, Any], reading: PromptReading) -> None:
        """Raises `ValueError` for a row that it cannot use.

        Args:
            row: of a file.
            reading: how its prompt is found.
        """
        masked = find_masked(row, reading)
        if masked.masks:
            self.filler.check(masked)

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        numbers: Sequence[int],
        reading: PromptReading,
        counts: Counter[str],
    ) -> list[dict[str, Any]]:
        """Returns what it adds to each row.

        Args:
            rows: that `check` took.
            numbers: of the rows, which noise belongs to.
            reading: how their prompts are found.
            counts: of what is done.
        """
        masked = [find_masked(row, reading) for row in rows]
        found = rephrase_texts(
            masked, self.filler, self.scorer, numbers=numbers, seed=self.seed, rule=self.rule,
            similarity=self.similarity,
        )  # fmt: skip
        for one in found:
            _count_rephrased(one, counts)
        return [
            {
                "rephrased": one.text,
                "context_toxicity": _round(one.toxicity),
                "rephrased_similarity": _round(one.similarity),
                "attempts": one.attempts,
                "clean": one.is_clean,
                "similar": one.is_similar,
            }
            for one in found
        ]


@dataclass(kw_only=True, slots=True)
class ContinueStep:
    """Continuations of rephrased prompts, and of prompts in which nothing is masked.

    Example:
        >>> step = ContinueStep(continuer=None)
        >>> step.check({"prompt": "a", "masked": "<MASK>", "masks": 1}, PromptReading())
        Traceback (most recent call last):
        ValueError: has masks, and no rephrased text: its masks are not filled
    """

    continuer: TextContinuer
    seed: int = 0
    """Of the noise, which belongs to it, a row's line and the sample."""
    keys: tuple[str, ...] = ("generations",)

    def describe(self) -> dict[str, Any] | None:
        """Returns all that it depends on besides a row, for JSON."""
        return {
            "step": "continue", "seed": self.seed, **asdict(self.continuer.sampling),
            **_describe(self.continuer),
        }  # fmt: skip

    def check(self, row: Mapping[str, Any], reading: PromptReading) -> None:
        """Raises `ValueError` for a row that it cannot use.

        Args:
            row: of a file.
            reading: how its prompt is found.
        """
        if "generation" in row:
            raise ValueError("generation stands in the row: it is continued already")
        context = find_context(row, reading)
        if context is not None:
            self.continuer.check(context)

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        numbers: Sequence[int],
        reading: PromptReading,
        counts: Counter[str],
    ) -> list[dict[str, Any]]:
        """Returns what it adds to each row.

        Args:
            rows: that `check` took.
            numbers: of the rows, which noise belongs to.
            reading: how their prompts are found.
            counts: of what is done.
        """
        contexts = [find_context(row, reading) for row in rows]
        known = [
            (text, number)
            for text, number in zip(contexts, numbers, strict=True)
            if text is not None
        ]
        texts, own = [text for text, _ in known], [number for _, number in known]
        found = iter(self.continuer.go_on(texts, own, seed=self.seed))
        made = [() if text is None else next(found).samples for text in contexts]
        counts["not_continued"] += len(rows) - len(known)
        counts["samples"] += sum(map(len, made))
        counts["empty_samples"] += sum(not text.strip() for own in made for text in own)
        return [{"generations": list(samples)} for samples in made]


@dataclass(kw_only=True, slots=True)
class SelectStep:
    """The continuations that a chain is made of, as `lmcore detox chains` takes them.

    `generation` and `cont_toxicity` hold the cleanest continuation and at most three of the most
    toxic ones. They are empty where there is none, and where the text that was continued is not
    acceptable (`clean` or `similar` is false), or nothing is masked in a prompt that is toxic by
    its own score: a chain would teach it.

    Source: section 3.4 of the specification.

    Example:
        >>> row = {"text": "the sea", "generations": ["is blue", "is a blorp"]}
        >>> step = SelectStep(scorer=lambda texts: ["blorp" in text for text in texts])
        >>> [added] = step.add([row], [1], PromptReading(), Counter())
        >>> added["prompt"], added["generation"], added["cont_toxicity"]
        ('the sea', ['is blue', 'is a blorp'], [0.0, 1.0])
    """

    scorer: Scorer | None = None
    """Of continuations; None: rows have `scores`."""
    keys: tuple[str, ...] = ("cont_toxicity", "mask_prompt", "recover_prompt")

    def describe(self) -> dict[str, Any] | None:
        """Returns all that it depends on besides a row, for JSON; None if that is not known."""
        if self.scorer is None:
            return {"step": "select", "scorer": None}
        key = getattr(self.scorer, "key", None)
        return None if key is None else {"step": "select", "scorer": key}

    def check(self, row: Mapping[str, Any], reading: PromptReading) -> None:
        """Raises `ValueError` for a row that it cannot use.

        Args:
            row: of a file.
            reading: how its prompt is found.
        """
        taken = ["generation"] if "generations" in row else ["generations"]
        check_absent(row, [*taken, *(["scores"] if self.scorer is not None else [])])
        reading.find_toxicity(row)
        find_samples(row, reading, has_scorer=self.scorer is not None)
        find_context(row, reading)
        if "prompt" in row and parse_prompt(row, field="prompt").text != reading.find_text(row):
            raise ValueError("prompt is another text than the one that is read")

    def add(
        self,
        rows: Sequence[Mapping[str, Any]],
        numbers: Sequence[int],
        reading: PromptReading,
        counts: Counter[str],
    ) -> list[dict[str, Any]]:
        """Returns what it adds to each row.

        Args:
            rows: that `check` took.
            numbers: of the rows, which do not matter.
            reading: how their prompts are found.
            counts: of what is done.
        """
        given = [find_samples(row, reading, has_scorer=self.scorer is not None) for row in rows]
        if self.scorer is not None:
            found = score_samples([texts for texts, _ in given], self.scorer)
        else:
            found = [_take_scores(texts, scores) for texts, scores in given]
        return [self._make(*own, reading, counts) for own in zip(rows, found, strict=True)]

    def _make(
        self,
        row: Mapping[str, Any],
        found: ScoredText,
        reading: PromptReading,
        counts: Counter[str],
    ) -> dict[str, Any]:
        masked = find_masked(row, reading) if "masked" in row else None
        toxicity = reading.find_toxicity(row)
        is_masked = masked is not None and masked.masks > 0
        # A chain without masks says that its prompt is not toxic.
        is_left_out = not (row.get("clean", True) and row.get("similar", True)) or (
            not is_masked and toxicity is not None and toxicity > TOXIC_ABOVE
        )
        counts["left_out"] += is_left_out
        counts["without_samples"] += not found.kept
        made: dict[str, Any] = {"generations": list(found.samples)}
        made["scores"] = [round(score, _DIGITS) for score in found.scores]
        if "prompt" not in row:
            made["prompt"] = reading.find_text(row)
        if masked is not None and is_masked and row["rephrased"] is not None:
            made |= {"mask_prompt": masked.masked, "recover_prompt": row["rephrased"]}
        if toxicity is not None:
            made["toxicity"] = toxicity
        kept = ((), ()) if is_left_out else (found.kept, found.kept_scores)
        made["generation"] = list(kept[0])
        made["cont_toxicity"] = [round(score, _DIGITS) for score in kept[1]]
        counts["selected"] += bool(kept[0])
        return made


def _take_scores(texts: Sequence[str], scores: Sequence[float] | None) -> ScoredText:
    own = tuple(scores or ())
    kept, kept_scores = keep_extremes(texts, own)
    return ScoredText(samples=tuple(texts), scores=own, kept=kept, kept_scores=kept_scores)


def _count_rephrased(one: RephrasedText, counts: Counter[str]) -> None:
    counts["attempts"] += one.attempts
    for problem in one.problems:
        counts[problem] += 1
    if not one.masked.masks:
        counts["missed"] += not one.is_clean
    elif one.text is None:
        counts["unfilled"] += 1
    else:
        counts["rephrased"] += one.is_acceptable
        counts["unclean"] += not one.is_clean
        counts["dissimilar"] += one.is_clean and not one.is_similar
        counts["cut_texts"] += one.is_cut


def _describe(step: Any) -> dict[str, Any]:
    """What numbers of a model depend on."""
    import torch

    weight = next(iter(step.model.parameters()))
    return {
        "model": fingerprint_model(step.model, step.tokenizer), "device": str(weight.device),
        "precision": str(weight.dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
    }  # fmt: skip


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
