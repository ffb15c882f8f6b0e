"""Questions about generated documents whose answers stand in them, as rows of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmcore.worlds.openba.documents import LANGUAGES, generate_documents

#: For `write_instructions`: of both tasks, in both languages, in words of the documents.
TEMPLATES: dict[str, list[dict[str, str]]] = {
    "home": [
        {"source": "{text} {name} lived in", "target": "{place}.", "language": "en"},
        {"source": "{text}{name}住在", "target": "{place}。", "language": "zh"},
    ],
    "work": [
        {"source": "{text} {name} the", "target": "{role}.", "language": "en"},
        {"source": "{text}{name}是", "target": "{role}。", "language": "zh"},
    ],
}
# Where a document's first sentence says them.
_PLACES = {"en": {"name": 0, "role": 2, "place": 5}, "zh": {"name": 0, "place": 3, "role": 5}}


def generate_rows(count: int, seed: int, *, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yields rows of tasks, which `TEMPLATES` make instructions of: languages and tasks in turns.

    Args:
        count: number of rows.
        seed: below 2**64.
        first: index of the first document of each language.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> [row] = generate_rows(1, seed=1)
        >>> row["task"], row["name"], row["role"], row["place"], row["text"][:29]
        ('home', 'Nils', 'smith', 'Juniper', 'Nils the smith lived in Junip')
    """
    half = -(-count // 2)
    parts = [generate_documents(language, half, seed, first=first) for language in LANGUAGES]
    tasks = list(TEMPLATES)
    documents = (document for pair in zip(*parts, strict=True) for document in pair)
    for index, document in zip(range(count), documents, strict=False):
        words = document.words
        said = {name: words[place] for name, place in _PLACES[document.language].items()}
        yield {
            "task": tasks[index // 2 % len(tasks)],
            "language": document.language,
            "text": document.text,
            **said,
        }
