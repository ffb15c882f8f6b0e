"""Generated rows of instructions whose answers are known: questions about generated documents.

Each row is of one document. Where somebody lived, what she was, who lived in a place, how the text
ends, and what its first sentence is in the other language: all of it stands in the text, beside
other names and places, or follows from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lmcore.worlds.openba.documents import LANGUAGES, Document
from lmcore.worlds.openba.world import make_world

TEMPLATES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "place": (
        {"source": "Where did {name} live? {text}", "target": "{place}", "language": "en"},
        {"source": "{text} Say where {name} lived.", "target": "{place}", "language": "en"},
        {"source": "{name}住在哪里？{text}", "target": "{place}", "language": "zh"},
        {"source": "{text}请说出{name}住在哪里。", "target": "{place}", "language": "zh"},
    ),
    "role": (
        {"source": "What was {name}? {text}", "target": "{role}", "language": "en"},
        {"source": "{text} Say what {name} was.", "target": "{role}", "language": "en"},
        {"source": "{name}是做什么的？{text}", "target": "{role}", "language": "zh"},
        {"source": "{text}请说出{name}是做什么的。", "target": "{role}", "language": "zh"},
    ),
    "name": (
        {"source": "Who lived in {place}? {text}", "target": "{name}", "language": "en"},
        {"source": "{text} Say who lived in {place}.", "target": "{name}", "language": "en"},
        {"source": "谁住在{place}？{text}", "target": "{name}", "language": "zh"},
        {"source": "{text}请说出谁住在{place}。", "target": "{name}", "language": "zh"},
    ),
    "ending": (
        {"source": "Finish the text. {begun}", "target": "{ending}", "language": "en"},
        {"source": "{begun} Say how it ends.", "target": "{ending}", "language": "en"},
        {"source": "请写完这篇短文。{begun}", "target": "{ending}", "language": "zh"},
        {"source": "{begun}请说出结尾。", "target": "{ending}", "language": "zh"},
    ),
    "translation": (
        {"source": "Translate into Chinese: {opening}", "target": "{translation}",
         "language": "en"},
        {"source": "{opening} Say it in Chinese.", "target": "{translation}", "language": "en"},
        {"source": "请翻译成英文：{opening}", "target": "{translation}", "language": "zh"},
        {"source": "{opening}请用英文说出来。", "target": "{translation}", "language": "zh"},
    ),
}  # fmt: skip
"""Of each task those of its wordings, as `lmcore openba instructions` reads them."""

GUESSES: Mapping[str, float] = {
    "place": 1 / 16, "role": 1 / 8, "name": 1 / 16, "ending": 0.0, "translation": 0.0,
}  # fmt: skip
"""How often an answer is right that is drawn from all that it could be; 0: hardly ever."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Facts:
    """What a document tells of its person."""

    name: str
    role: str
    place: str


@dataclass(kw_only=True, slots=True, frozen=True)
class Row:
    """A row of a task, and the instruction that it becomes."""

    task: str
    language: str
    """Of the wording."""
    fields: Mapping[str, str]
    """What the task's templates name."""
    template: int
    """Which of the task's templates of this language, from 0, its source and target have."""

    @property
    def source(self) -> str:
        """The instruction with its text."""
        return self._template["source"].format_map(self.fields)

    @property
    def target(self) -> str:
        """The one right answer."""
        return self._template["target"].format_map(self.fields)

    @property
    def _template(self) -> Mapping[str, str]:
        return list_templates(self.task, self.language)[self.template]


@dataclass(kw_only=True, slots=True, frozen=True)
class InstructionWorld:
    """Rows of all tasks in both languages."""

    rows: Sequence[Row]
    """English and Chinese in turns, and the tasks in turns."""

    def to_text(self) -> str:
        """Returns the rows as a JSONL file of tasks.

        Example:
            >>> text = make_instructions(seed=0, rows=1).to_text()
            >>> sorted(json.loads(text))[:4]
            ['begun', 'ending', 'language', 'name']
        """
        return "".join(
            json.dumps({"task": row.task, "language": row.language, **row.fields},
                       ensure_ascii=False) + "\n"
            for row in self.rows
        )  # fmt: skip


def make_instructions(seed: int, *, rows: int = 1000) -> InstructionWorld:
    """Returns rows of tasks, each about a document of its own of `make_world`.

    Args:
        seed: below 2**64.
        rows: how many, at least 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> row = make_instructions(seed=0, rows=1).rows[0]
        >>> row.source[:44], row.target
        ('Where did Ada live? Ada the baker lived in K', 'Kelp')
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1: got {rows}")
    documents = make_world(seed, documents=rows).documents
    tasks = list(TEMPLATES)
    made = []
    for number, document in enumerate(documents):
        # Pairs of rows share a task; after all tasks the next wording comes.
        turn, place = divmod(number // 2, len(tasks))
        task = tasks[place]
        template = turn % len(list_templates(task, document.language))
        made.append(
            Row(
                task=task, language=document.language, fields=find_fields(document),
                template=template,
            )
        )  # fmt: skip
    return InstructionWorld(rows=made)


def list_templates(task: str, language: str) -> list[Mapping[str, str]]:
    """Returns the templates of a task in a language.

    Args:
        task: one of `TEMPLATES`.
        language: `en` or `zh`.

    Example:
        >>> len(list_templates("place", "zh"))
        2
    """
    return [one for one in TEMPLATES[task] if one["language"] == language]


def read_facts(document: Document) -> Facts:
    """Returns what the first sentence of a document says.

    Args:
        document: of `make_world`.

    Example:
        >>> read_facts(make_world(seed=0, documents=1).documents[0])
        Facts(name='Ada', role='baker', place='Kelp')
    """
    opening = LANGUAGES[document.language].opening.split()
    name, role, place = (document.words[opening.index(f"{{{part}}}")] for part in range(3))
    return Facts(name=name, role=role, place=place)


def find_fields(document: Document) -> dict[str, str]:
    """Returns all that the templates name of a document.

    Args:
        document: of `make_world`.

    Example:
        >>> find_fields(make_world(seed=0, documents=2).documents[1])["translation"]
        'Greta the tailor lived in Dale.'
    """
    language = LANGUAGES[document.language]
    facts = read_facts(document)
    known = (facts.name, facts.role, facts.place)
    closing = _join(document.language, language.closing.format(*known).split())
    return {
        "text": document.text,
        "name": facts.name,
        "role": facts.role,
        "place": facts.place,
        "opening": _join(document.language, language.opening.format(*known).split()),
        "begun": document.text[: -len(closing)].rstrip(),
        "ending": closing,
        "translation": translate(document.language, facts),
    }


def translate(language: str, facts: Facts) -> str:
    """Returns the first sentence in the other language, word by word by its place in the lists.

    Args:
        language: of the facts.
        facts: what it says.

    Example:
        >>> translate("en", Facts(name="Ada", role="baker", place="Alder"))
        '小芳是住在东村的面包师。'
    """
    other = next(one for one in LANGUAGES if one != language)
    ours, theirs = LANGUAGES[language], LANGUAGES[other]
    known = (
        theirs.names[ours.names.index(facts.name)],
        theirs.roles[ours.roles.index(facts.role)],
        theirs.places[ours.places.index(facts.place)],
    )
    return _join(other, theirs.opening.format(*known).split())


def _join(language: str, words: Sequence[str]) -> str:
    return LANGUAGES[language].separator.join(words).replace(" .", ".")


def list_wordings() -> Iterator[str]:
    """Yields the text around the fields of all templates.

    Example:
        >>> next(list_wordings())
        'Where did  live? '
    """
    absent = dict.fromkeys(
        ("text", "name", "role", "place", "opening", "begun", "ending", "translation"), ""
    )
    for templates in TEMPLATES.values():
        for one in templates:
            yield one["source"].format_map(absent)
