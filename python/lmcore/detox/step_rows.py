"""What the steps of detoxification read in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore.detox.data import parse_generations, parse_prompt
from lmcore.detox.masking import MASK, MaskedText
from lmcore.detox.span_rows import find_number

_SAMPLES = ("generations", "generation", "scores")


@dataclass(kw_only=True, slots=True, frozen=True)
class PromptReading:
    """How the prompt of a row is found.

    Example:
        >>> PromptReading(field="content").find_text({"content": "the sea"})
        'the sea'
    """

    form: str = "auto"
    """One of `lmcore.detox.data.FORMS`."""
    field: str | None = None
    """The key of the text; `text` or `prompt` if None."""

    def find_text(self, row: Mapping[str, Any]) -> str:
        """Returns the text of a row's prompt.

        Args:
            row: of a file.

        Raises:
            ValueError: it has none, or an empty one.
        """
        return parse_prompt(row, self.form, field=self.field).text

    def find_toxicity(self, row: Mapping[str, Any]) -> float | None:
        """Returns the toxicity of a row's prompt as the row has it, or None.

        Args:
            row: of a file.

        Raises:
            ValueError: it is no number from 0 to 1.
        """
        known = find_number(row, "toxicity")
        return parse_prompt(row, self.form, field=self.field).toxicity if known is None else known


def find_masked(row: Mapping[str, Any], reading: PromptReading) -> MaskedText:
    """Returns the prompt of a row with its masks.

    Args:
        row: with `masked`, and perhaps `masks`, their number.
        reading: how its prompt is found.

    Raises:
        ValueError: a key is missing, or its value cannot be used.

    Example:
        >>> find_masked({"prompt": "you blorp", "masked": "you <MASK>"}, PromptReading()).masks
        1
    """
    masked = row.get("masked")
    if not isinstance(masked, str):
        raise ValueError(f"masked {'is missing' if masked is None else 'must be a text'}")
    masks = row.get("masks", masked.count(MASK))
    if not isinstance(masks, int) or isinstance(masks, bool):
        raise ValueError(f"masks must be a whole number: got {type(masks).__name__}")
    if masks not in (0, masked.count(MASK)):
        raise ValueError(f"masks is not the number of {MASK} in masked, {masked.count(MASK)}")
    return MaskedText(text=reading.find_text(row), masked=masked, masks=masks, toxicity=None)


def find_context(row: Mapping[str, Any], reading: PromptReading) -> str | None:
    """Returns the text of a row that is continued; None where there is none that could be.

    Args:
        row: with a prompt, and perhaps `masked` and `rephrased`.
        reading: how its prompt is found.

    Raises:
        ValueError: a value cannot be used, or the row has masks that nobody has tried to fill.

    Example:
        >>> find_context({"prompt": "you blorp", "rephrased": "you there"}, PromptReading())
        'you there'
    """
    text = reading.find_text(row)
    rephrased = row.get("rephrased")
    if rephrased is not None and (not isinstance(rephrased, str) or not rephrased.strip()):
        raise ValueError("rephrased must be a text that is not empty, or null")
    masks = find_masked(row, reading).masks if "masked" in row else 0
    if masks and "rephrased" not in row:
        raise ValueError("has masks, and no rephrased text: its masks are not filled")
    return rephrased if masks or rephrased is not None else text


def find_samples(
    row: Mapping[str, Any], reading: PromptReading, *, has_scorer: bool
) -> tuple[Sequence[str], Sequence[float] | None]:
    """Returns the continuations of a row, and their scores, if it has some.

    Args:
        row: with `generations` or `generation`.
        reading: how its prompt is found.
        has_scorer: whether scores are made, so that it needs none.

    Raises:
        ValueError: a value cannot be used, or something is missing.

    Example:
        >>> find_samples({"prompt": "a", "generations": ["b"]}, PromptReading(), has_scorer=True)
        (['b'], None)
    """
    if row.get("generations") == []:
        return (), ()
    own = {key: row[key] for key in _SAMPLES if key in row}
    found = parse_generations({**own, "prompt": reading.find_text(row)})
    if found.texts is None:
        raise ValueError("has no generations")
    if not has_scorer and found.scores is None:
        raise ValueError("has no scores: name a scorer")
    return found.texts, found.scores
