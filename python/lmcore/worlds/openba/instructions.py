"""Questions about generated documents whose answers follow from them, as rows of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmcore.worlds.openba.documents import LANGUAGES, Document, generate_documents

#: For `write_instructions`: of both tasks, in both languages, in words of the documents.
TEMPLATES: dict[str, list[dict[str, str]]] = {
    "work": [
        {"source": "{text} So {name} the", "target": "{role}.", "language": "en"},
        {"source": "{text}于是", "target": "{role}。", "language": "zh"},
    ],
    "pronoun": [
        {"source": "{opening}", "target": "{pronoun}.", "language": "en"},
        {"source": "{opening}", "target": "{pronoun}。", "language": "zh"},
    ],
}
# Where a document's first sentence says who it is about, and what she is.
_PLACES = {"en": (0, 2), "zh": (0, 5)}
_ENDS = {"en": ".", "zh": "。"}


def generate_rows(count: int, seed: int, *, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yields rows of tasks, which `TEMPLATES` make instructions of: languages in turns.

    What somebody is follows from what she does, and her pronoun from her name. Of a document in
    which she does nothing, the pronoun is asked, and of the others one or the other in turns.

    Args:
        count: number of rows.
        seed: below 2**64.
        first: index of the first document of each language.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> rows = list(generate_rows(4, seed=1))
        >>> [row["task"] for row in rows], rows[0]["name"], rows[0]["role"], rows[2]["pronoun"]
        (['work', 'work', 'pronoun', 'pronoun'], 'Nils', 'smith', 'She')
    """
    half = -(-count // 2)
    parts = [generate_documents(language, half, seed, first=first) for language in LANGUAGES]
    documents = (document for pair in zip(*parts, strict=True) for document in pair)
    for index, document in zip(range(count), documents, strict=False):
        yield _make_row(document, wants_work=index // 2 % 2 == 0)


def _make_row(document: Document, *, wants_work: bool) -> dict[str, Any]:
    language = LANGUAGES[document.language]
    name, role = (document.words[place] for place in _PLACES[document.language])
    sentences: list[list[str]] = [[]]
    for word in document.words:
        sentences[-1].append(word)
        if word == _ENDS[document.language]:
            sentences.append([])
    opening, *middle = (_join(language.separator, sentence) for sentence in sentences[:-2])
    number = 4 * language.roles.index(role)
    acts = any(verb in document.words for verb in language.verbs[number : number + 4])
    return {
        "task": "work" if wants_work and acts else "pronoun",
        "language": document.language,
        "opening": opening,
        "text": language.separator.join(middle),
        "name": name,
        "role": role,
        "pronoun": language.pronouns[language.names.index(name) >= len(language.names) // 2],
    }


def _join(separator: str, words: list[str]) -> str:
    return separator.join(words).replace(" .", ".")
