"""Generated text to entities with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from lmcore.ner.normalization import fold, fold_labels
from lmcore.ops.entities import decode_spans
from lmcore.ops.matching import Match, match_labels
from lmcore.ops.predictions import AlignedRow, Entity, GeneratedWord, Substitution, Word
from lmcore.ops.words import locate_words, split_words

Offsets = Sequence[tuple[int, int]]


@overload
def extract(
    text: str,
    generation: str,
    types: Sequence[str],
    *,
    words: Sequence[str] | None = None,
    scheme: str = "gner",
    normalize: bool = True,
    strict: bool = True,
    report: Literal[False] = False,
) -> list[Entity]: ...


@overload
def extract(
    text: str,
    generation: str,
    types: Sequence[str],
    *,
    words: Sequence[str] | None = None,
    scheme: str = "gner",
    normalize: bool = True,
    strict: bool = True,
    report: Literal[True],
) -> AlignedRow: ...


def extract(
    text: str,
    generation: str,
    types: Sequence[str],
    *,
    words: Sequence[str] | None = None,
    scheme: str = "gner",
    normalize: bool = True,
    strict: bool = True,
    report: bool = False,
) -> list[Entity] | AlignedRow:
    """Returns the entities that a generated text names, with their offsets in `text`.

    Source: GNER (arXiv 2402.16602), Hierarchical Matching; the normalisation is ours.

    Args:
        text: what was given to the model.
        generation: what it wrote, `word(B-type) word(O) ...`; words that it left out, added or
            changed cost the labels of those words alone.
        types: what entities may be; any other label counts as `O`.
        words: the words of `text` in order, if they were cut already. Otherwise
            `lmcore.ops.words.split_words` cuts the text (Chinese and Japanese by character),
            and a generated word that it would cut gives its label to all its pieces.
        scheme: how BIO labels are read as entities, one of `lmcore.ops.entities.SCHEMES`.
        normalize: look past width, form, kind of quotes and the case of labels, as
            `lmcore.ner.normalization` says; offsets are those of the text as it is. Without it
            words are compared as the authors do, and as `align_row` does.
        strict: raise where the generated text has nothing in common with the text.
        report: return the labels and what did not match, too.

    Returns:
        Entities in the order of the text, without overlap; with `report`, an `AlignedRow`, whose
        generated words are those after normalisation.

    Raises:
        TypeError: an argument is not a str or sequence of str.
        ValueError: no types, one with a prefix or a parenthesis, an unknown scheme, a word that is
            not in the text, a lone surrogate, or no word that matched.

    Example:
        >>> extract("EU rejects German call", "EU(B-org) reject(O) german(B-misc)", ["org", "misc"])
        ... # doctest: +NORMALIZE_WHITESPACE
        [Entity(start=0, end=2, type='org', text='EU'),
         Entity(start=11, end=17, type='misc', text='German')]
        >>> [entity.text for entity in extract("我爱北京", "我(O) 爱(O) 北京（B-地）", ["地"])]
        ['北京']
    """
    _check_types(types)
    if words is None:
        pieces, compared, offsets = _cut(text, normalize)
    else:
        offsets = locate_words(text, words)
        pieces = [text[start:end] for start, end in offsets]
        compared = [fold(piece).text.lower() for piece in pieces] if normalize else None
    # What is no text is refused below, by its name.
    if normalize and isinstance(generation, str):
        generation = fold_labels(generation, types)
    match = match_labels(pieces, generation, types, compared, split_generated=words is None)
    if strict and pieces and all(partner < 0 for partner in match.alignment):
        raise ValueError(_describe_mismatch(match, pieces))
    entities: list[Entity] = []
    for span in decode_spans(match.labels, scheme):
        start, end = offsets[span.start][0], offsets[span.end - 1][1]
        if entities and start < entities[-1].end:
            continue  # one character of the text that became words of two entities
        entities.append(Entity(start=start, end=end, type=span.type, text=text[start:end]))
    return _report(match, pieces, entities) if report else entities


def _check_types(types: Sequence[str]) -> None:
    if isinstance(types, str) or not isinstance(types, Sequence):
        return  # refused by its name where labels are matched
    if not types:
        raise ValueError("types: expected at least one type of entities: got none")
    for index, name in enumerate(types):
        if not isinstance(name, str):
            continue
        if name[:2] in ("B-", "I-"):
            raise ValueError(
                f"types: [{index}] expected the name of a type without a prefix, such as "
                f"{name[2:]!r}: got the label {name!r}"
            )
        if set("()") & set(name):
            raise ValueError(
                f"types: [{index}] expected a name without parentheses, which end a label: "
                f"got {name!r}"
            )


def _cut(text: str, normalize: bool) -> tuple[list[str], list[str] | None, Offsets]:
    """Words as they stand in the text, as they are compared, and their offsets."""
    if not normalize or not isinstance(text, str):
        offsets: Offsets = split_words(text)
        return [text[start:end] for start, end in offsets], None, offsets
    folded = fold(text)
    cut = split_words(folded.text)
    compared = [folded.text[start:end].lower() for start, end in cut]
    # A character of the text that became several words belongs to each of them.
    offsets = [(folded.starts[start], folded.ends[end - 1]) for start, end in cut]
    return [text[start:end] for start, end in offsets], compared, offsets


def _describe_mismatch(match: Match, pieces: Sequence[str]) -> str:
    generated = match.parsed.words
    if not generated:
        shown = match.parsed.trailing_text[:60]
        return f"generation: expected `word(label) ...`: got no labelled word in {shown!r}"
    return (
        f"generation: none of its {len(generated)} words, of which the first is "
        f"{generated[0][:60]!r}, is among the {len(pieces)} words of the text; strict=False "
        "returns no entities instead"
    )


def _report(match: Match, pieces: Sequence[str], entities: list[Entity]) -> AlignedRow:
    parsed = match.parsed

    def generated(index: int) -> GeneratedWord:
        return GeneratedWord(index=index, word=parsed.words[index], label=parsed.labels[index])

    return AlignedRow(
        labels=match.labels,
        entities=entities,
        matching=match.matching,
        omitted=[Word(index=index, word=pieces[index]) for index in match.omitted],
        added=[generated(index) for index in match.added],
        substituted=[
            Substitution(index=index, word=pieces[index], generated=generated(other))
            for index, other in match.substituted
        ],
        invalid_labels=[generated(index) for index in match.invalid_labels],
        dropped_labels=parsed.dropped_labels,
        trailing_text=parsed.trailing_text,
    )
