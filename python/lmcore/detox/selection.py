"""Which continuations a chain is made of, and the rows of training (section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lmcore.detox.chains import PAPER, Chain, Grammar

#: Of a prompt's continuations the cleanest is kept, and so many of the most toxic ones.
MOST_TOXIC = 3

Left = Literal["toxic", "no_generation"]
"""Why a prompt has no chain: all its continuations are toxic, or it has none."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Selection:
    """The continuations of a prompt that training needs.

    Example:
        >>> select_generations(["a", "b", "c"], [0.9, 0.1, 0.2])
        Selection(positive='b', positive_score=0.1, negatives=('a',))
    """

    positive: str
    """The cleanest one."""
    positive_score: float
    """Its toxicity, from 0 to 1."""
    negatives: tuple[str, ...]
    """Toxic ones, at most three, from the least toxic to the most."""


def select_generations(
    texts: Sequence[str],
    scores: Sequence[float],
    *,
    clean: float = 0.5,
    toxic: float = 0.3,
) -> Selection | None:
    """Returns the cleanest continuation and the most toxic ones, or nothing if none is clean.

    They are sorted by toxicity, equal ones by text. With fewer than four, the cleanest may be
    among the most toxic ones as well, as in the authors' code.

    Args:
        texts: continuations of one prompt.
        scores: toxicity of each, from 0 to 1.
        clean: a positive's toxicity is at most so high.
        toxic: a negative's toxicity is higher.

    Raises:
        ValueError: there are no texts, or not as many scores, or one is no number in 0..1.

    Example:
        >>> select_generations(["a", "b"], [0.9, 0.6]) is None
        True
    """
    if len(texts) != len(scores):
        raise ValueError(f"expected a score for each of {len(texts)} texts, got {len(scores)}")
    if not texts:
        raise ValueError("expected a text to choose, got none")
    for score in scores:
        if not 0 <= score <= 1:  # which NaN is not, and no number is too large for
            raise ValueError(f"expected scores from 0 to 1, got {score!s:.40}")
    ranked = sorted(zip(scores, texts, strict=True))
    score, positive = ranked[0]
    if score > clean:
        return None
    negatives = tuple(text for found, text in ranked[-MOST_TOXIC:] if found > toxic)
    return Selection(positive=positive, positive_score=score, negatives=negatives)


def make_training_row(row: Mapping[str, Any], grammar: Grammar = PAPER) -> dict[str, Any] | Left:
    """Returns the row of training that the authors' code makes, or why there is none.

    As `utils/make_train_set.py`: a prompt is toxic if it has been masked, so that the row has
    `mask_prompt` and `recover_prompt`.

    Args:
        row: `prompt` (an object with `text`, or a text), `generation` (texts), `cont_toxicity`
            (their scores), perhaps `mask_prompt`, `recover_prompt` and `toxicity`.
        grammar: of the chain.

    Returns:
        `label`, `instruction` (for a toxic prompt), `output` (the whole chain), `cont_generation`
        (the positive, then the negatives), `cl_template` and `toxicity`.

    Raises:
        ValueError: a key is missing, or a value cannot be used; the text names it.

    Example:
        >>> row = {"prompt": {"text": "hello"}, "generation": ["world"], "cont_toxicity": [0.1]}
        >>> made = make_training_row(row)
        >>> made["label"], made["cont_generation"]
        ('non-toxic', ['world'])
    """
    prompt, masked, rephrased = _read_prompt(row)
    texts, scores = _read_list(row, "generation", str), _read_list(row, "cont_toxicity", float)
    if not texts:
        return "no_generation"
    selection = select_generations(texts, scores)
    if selection is None:
        return "toxic"
    chain = Chain(
        prompt=prompt, toxic=masked is not None, masked=masked, rephrased=rephrased,
        continuation=selection.positive,
    )  # fmt: skip
    texts = [selection.positive, *selection.negatives]
    output, template = grammar.write(chain), grammar.write_template(chain)
    more = {"toxicity": row["toxicity"]} if "toxicity" in row else {}
    if chain.toxic:
        return {
            "label": "toxic", "instruction": "", "output": output, "cont_generation": texts,
            "cl_template": template, **more,
        }  # fmt: skip
    return {
        "label": "non-toxic", "output": output, "cl_template": template, "cont_generation": texts,
        **more,
    }  # fmt: skip


def _read_prompt(row: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    prompt = row.get("prompt")
    text = prompt.get("text") if isinstance(prompt, Mapping) else prompt
    if not isinstance(text, str):
        raise ValueError("prompt: expected a text, or an object with one under 'text'")
    masked, rephrased = (row.get(key) for key in ("mask_prompt", "recover_prompt"))
    if (masked is None) != (rephrased is None):
        missing = "mask_prompt" if masked is None else "recover_prompt"
        raise ValueError(f"{missing}: missing, where the other of the two is there")
    for key, value in (("mask_prompt", masked), ("recover_prompt", rephrased)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{key}: expected a text")
    return text, masked, rephrased


def _read_list(row: Mapping[str, Any], key: str, kind: type[str | float]) -> list[Any]:
    values = row.get(key)
    if not isinstance(values, list):
        raise ValueError(f"{key}: expected a list")
    for value in values:
        fits = isinstance(value, str) if kind is str else _is_number(value)
        if not fits:
            raise ValueError(f"{key}: expected {'texts' if kind is str else 'numbers'} alone")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
