"""Generated text to entities with offsets."""

from collections.abc import Sequence

from lmcore.ops.entities import decode_spans
from lmcore.ops.matching import match_labels
from lmcore.ops.predictions import Entity
from lmcore.ops.words import locate_words, split_words


def extract(
    text: str,
    generation: str,
    labels: Sequence[str],
    *,
    words: Sequence[str] | None = None,
    scheme: str = "gner",
) -> list[Entity]:
    """Returns the entities that a generated text names, with their places in `text`.

    Source: GNER (arXiv 2402.16602), Hierarchical Matching.

    Args:
        text: what was given to the model.
        generation: what it wrote, `word(B-type) word(O) ...`; words that it left out, added or
            changed cost the labels of those words alone.
        labels: entity types; any other label counts as `O`.
        words: the words of `text` in order, if they were cut already. Otherwise
            `lmcore.ops.words.split_words` cuts the text (Chinese and Japanese by character),
            and a generated word that it would cut gives its label to all its pieces.
        scheme: how BIO labels are read as entities, one of `lmcore.ops.entities.SCHEMES`.

    Returns:
        Entities in the order of the text, without overlap.

    Raises:
        TypeError: an argument is not a str or sequence of str.
        ValueError: unknown scheme, a word that is not in the text, or a lone surrogate.

    Example:
        >>> extract("EU rejects German call", "EU(B-org) reject(O) german(B-misc)", ["org", "misc"])
        ... # doctest: +NORMALIZE_WHITESPACE
        [Entity(start=0, end=2, type='org', text='EU'),
         Entity(start=11, end=17, type='misc', text='German')]
        >>> [entity.text for entity in extract("我爱北京天安门", "我(O) 爱(O) 北京(B-地)", ["地"])]
        ['北京']
    """
    places = split_words(text) if words is None else locate_words(text, words)
    pieces = [text[start:end] for start, end in places]
    match = match_labels(pieces, generation, labels, split_generated=words is None)
    entities = []
    for span in decode_spans(match.labels, scheme):
        start, end = places[span.start][0], places[span.end - 1][1]
        entities.append(Entity(start=start, end=end, type=span.type, text=text[start:end]))
    return entities
