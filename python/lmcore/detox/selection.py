"""Which continuations a chain is made of, and the rows of training (section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lmcore.detox.chains import PAPER, Chain, Grammar
from lmcore.detox.scorers import Scorer, check_scores

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


@dataclass(kw_only=True, slots=True, frozen=True)
class ScoredText:
    """A text's continuations with their scores, and which of them a chain may be made of."""

    samples: tuple[str, ...]
    scores: tuple[float, ...]
    """Of each; 0 for one of white space alone."""
    kept: tuple[str, ...]
    """The cleanest, then at most three of the most toxic ones, from the least toxic to the most."""
    kept_scores: tuple[float, ...]


def keep_extremes(
    texts: Sequence[str], scores: Sequence[float]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Returns the least toxic text and the three most toxic ones, with their scores.

    They are sorted by toxicity, equal ones by text. Of fewer than four each is kept once; texts of
    white space alone are left out.

    Source: section 3.4 of the specification, `[g0, g-3, g-2, g-1]`.

    Args:
        texts: continuations of one prompt.
        scores: toxicity of each, from 0 to 1.

    Raises:
        ValueError: there is not a score for each text.

    Example:
        >>> keep_extremes(["a", "b", "c", "d", "e"], [0.5, 0.1, 0.2, 0.3, 0.4])
        (('b', 'd', 'e', 'a'), (0.1, 0.3, 0.4, 0.5))
    """
    pairs = zip(scores, texts, strict=True)
    ranked = sorted((score, text) for score, text in pairs if text.strip())
    kept = ranked[:1] + ranked[max(1, len(ranked) - MOST_TOXIC) :]
    return tuple(text for _, text in kept), tuple(score for score, _ in kept)


def score_samples(samples: Sequence[Sequence[str]], scorer: Scorer) -> list[ScoredText]:
    """Returns the continuations of texts with their scores, and the extremes of each text.

    Args:
        samples: of each text.
        scorer: is given each distinct continuation once, and none of white space alone.

    Raises:
        TypeError: the scorer returned something that is no number.
        ValueError: it returned something else than numbers from 0 to 1.

    Example:
        >>> [found] = score_samples([["a", " ", "bb"]], lambda texts: [len(t) / 4 for t in texts])
        >>> found.scores, found.kept
        ((0.25, 0.0, 0.5), ('a', 'bb'))
    """
    distinct = list(dict.fromkeys(text for own in samples for text in own if text.strip()))
    values = check_scores(scorer(distinct), distinct).tolist() if distinct else []
    known = dict(zip(distinct, values, strict=True))
    found = []
    for own in samples:
        scores = tuple(known.get(text, 0.0) for text in own)
        kept, kept_scores = keep_extremes(own, scores)
        found.append(
            ScoredText(samples=tuple(own), scores=scores, kept=kept, kept_scores=kept_scores)
        )
    return found


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
