"""Generated rows for the four fine-tunes of OpenBA, whose answers follow from what is asked.

What is asked in a dialogue was told some turns before; code does what its instruction says; the
instruction that a text answers names what the text leaves open; a search is for what the question
is about, and what it finds is true of all documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore.ops.philox import Stream
from lmcore.worlds.draws import Draws, read_draws
from lmcore.worlds.openba.documents import LANGUAGES, Document
from lmcore.worlds.openba.tasks import find_fields, read_facts
from lmcore.worlds.openba.world import make_world

# What somebody says of herself, what is answered, and questions about it.
_TALK: Mapping[str, Mapping[str, str]] = {
    "en": {
        "first": "My name is {name} and I live in {place}.", "greeting": "Hello {name}.",
        "second": "I am a {role}.", "reply": "I see.",
        "ask_name": "What is my name?", "name": "Your name is {name}.",
        "ask_place": "Where do I live?", "place": "You live in {place}.",
        "ask_role": "What am I?", "role": "You are a {role}.",
    },
    "zh": {
        "first": "我叫{name}，住在{place}。", "greeting": "你好，{name}。",
        "second": "我是{role}。", "reply": "知道了。",
        "ask_name": "我叫什么？", "name": "你叫{name}。",
        "ask_place": "我住在哪里？", "place": "你住在{place}。",
        "ask_role": "我是做什么的？", "role": "你是{role}。",
    },
}  # fmt: skip
# The instruction that a sentence answers, by its kind.
_INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "opening": "Say where {name} the {role} lived.", "visit": "Say whom {name} met in {place}.",
        "season": "Say how the {animal} sang in {season}.", "action": "Say what {name} {verb}.",
    },
    "zh": {
        "opening": "请说出{role}{name}住在哪里。", "visit": "请说出{name}在{place}遇见了谁。",
        "season": "请说出{animal}在{season}怎样唱歌。", "action": "请说出{name}{verb}了什么。",
    },
}  # fmt: skip
_OPERATIONS = {"adds {0} to {1}": "+", "takes {0} from {1}": "-", "multiplies {1} by {0}": "*"}
_MORE = {"adds {0}": "+", "takes {0} away": "-", "multiplies that by {0}": "*"}


@dataclass(kw_only=True, slots=True, frozen=True)
class DownstreamWorld:
    """Rows of one fine-tune."""

    kind: str
    """One of `KINDS`."""
    rows: Sequence[Mapping[str, Any]]
    """`chat`: `language` and `turns`, of each what the human and the assistant say. `code`:
    `instruction`, `output`, and `value`, what the function makes of 5. `instruction_generation`:
    `language`, `instruction`, `answer`. `tool_retrieval`: `question`, `query`, `results`."""

    def to_text(self) -> str:
        """Returns the rows as a JSONL file.

        Example:
            >>> json.loads(make_downstream("code", seed=0, rows=1).to_text())["output"]
            'def h(z): return (z - 9) + 2'
        """
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)


def make_downstream(kind: str, seed: int, *, rows: int = 1000) -> DownstreamWorld:
    """Returns rows of a fine-tune; row i depends on (kind, seed, i) alone.

    Args:
        kind: one of `KINDS`.
        seed: below 2**64.
        rows: how many, at least 1.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> make_downstream("tool_retrieval", seed=0, rows=1).rows[0]["query"]
        'blackbird'
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}: got {kind!r:.60}")
    if rows < 1:
        raise ValueError(f"rows must be at least 1: got {rows}")
    return DownstreamWorld(kind=kind, rows=list(KINDS[kind](seed, rows)))


def _make_dialogues(seed: int, rows: int) -> Iterator[dict[str, Any]]:
    for number, document in enumerate(make_world(seed, documents=rows).documents):
        talk = _TALK[document.language]
        facts = read_facts(document)
        known = {"name": facts.name, "place": facts.place, "role": facts.role}
        asked = ("name", "place", "role")[number // 2 % 3]
        turns = (
            {"human": "first", "assistant": "greeting"},
            {"human": "second", "assistant": "reply"},
            {"human": f"ask_{asked}", "assistant": asked},
        )
        yield {
            "language": document.language,
            "turns": [
                {who: talk[said].format_map(known) for who, said in turn.items()} for turn in turns
            ],
        }


def _make_exercises(seed: int, rows: int) -> Iterator[dict[str, Any]]:
    for draws in read_draws(seed, Stream.EXERCISES, rows):
        yield _make_exercise(draws)


def _make_exercise(draws: Draws) -> dict[str, Any]:
    name, variable = draws.pick("fgh"), draws.pick("xyz")
    first, second = draws.pick(range(2, 10)), draws.pick(range(2, 10))
    operation, more = draws.pick(list(_OPERATIONS)), draws.pick(list(_MORE))
    told = f"{operation.format(first, variable)} and {more.format(second)}"
    signs = _OPERATIONS[operation], _MORE[more]
    value = _apply(signs[1], _apply(signs[0], 5, first), second)
    return {
        "instruction": f"Write a function {name} of {variable} that {told}.",
        "output": f"def {name}({variable}): return ({variable} {signs[0]} {first}) {signs[1]} "
        f"{second}",
        "value": value,
    }


def _apply(sign: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


def _make_generated(seed: int, rows: int) -> Iterator[dict[str, Any]]:
    for number, document in enumerate(make_world(seed, documents=rows).documents):
        language = document.language
        kind, words = "opening", document.words
        parts: dict[str, str] = dict(zip(("name", "role", "place"), _facts(document), strict=True))
        answer = find_fields(document)["opening"]
        if number // 2 % 2:
            kind, words = _find_second(document)
            parts = _read_sentence(language, kind, words)
            answer = LANGUAGES[language].separator.join(words).replace(" .", ".")
        yield {
            "language": language,
            "instruction": _INSTRUCTIONS[language][kind].format_map(parts),
            "answer": answer,
        }


def _facts(document: Document) -> tuple[str, str, str]:
    facts = read_facts(document)
    return facts.name, facts.role, facts.place


def _find_second(document: Document) -> tuple[str, tuple[str, ...]]:
    """The second sentence and its kind."""
    mark = {"en": ".", "zh": "。"}[document.language]
    first = document.words.index(mark) + 1
    words = document.words[first : document.words.index(mark, first) + 1]
    language = LANGUAGES[document.language]
    if words[0] == language.visit.split()[0]:
        return "visit", words
    is_season = any(word in language.seasons for word in words)
    return ("season" if is_season else "action"), words


def _read_sentence(language: str, kind: str, words: Sequence[str]) -> dict[str, str]:
    """What a sentence's words are."""
    names = {
        "visit": ("name", "friend", "place"),
        "season": ("season", "animal", "adverb"),
        "action": ("name", "verb", "adjective", "noun"),
    }[kind]
    pattern = getattr(LANGUAGES[language], kind).split()
    return {name: words[pattern.index(f"{{{place}}}")] for place, name in enumerate(names)}


def _make_searches(seed: int, rows: int) -> Iterator[dict[str, Any]]:
    language = LANGUAGES["en"]
    for number, document in enumerate(make_world(seed, documents=2 * rows).documents[::2]):
        facts = read_facts(document)
        if number % 2:
            role = language.roles.index(facts.role)
            *verbs, last = language.verbs[4 * role : 4 * role + 4]
            query, results = facts.role, f"A {facts.role} {', '.join(verbs)} and {last}."
            question = f"What did {facts.name} the {facts.role} from {facts.place} do?"
        else:
            bird = number // 2 % len(language.animals)
            query = language.animals[bird]
            adverbs = (language.adverbs[(3 * bird + k) % len(language.adverbs)] for k in range(2))
            results = f"The {query} sang {' or '.join(adverbs)}."
            question = f"How did the {query} sing for {facts.name} the {facts.role}?"
        yield {"question": question, "query": query, "results": results}


KINDS: Mapping[str, Callable[[int, int], Iterator[dict[str, Any]]]] = {
    "chat": _make_dialogues,
    "code": _make_exercises,
    "instruction_generation": _make_generated,
    "tool_retrieval": _make_searches,
}
"""The four fine-tunes, and what makes their rows."""
