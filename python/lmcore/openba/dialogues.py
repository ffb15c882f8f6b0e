"""Dialogues of the files that chats are published in, as turns of a question and an answer.

| a row holds | who publishes so |
| --- | --- |
| `conversations`, a list with `from` and `value` | ShareGPT |
| `conversations`, a list of texts | LIMA |
| `messages`, a list with `role` and `content` | Hugging Face, OpenAI |
| `log`, a list with `user utterance` and `system response` | DialogStudio |
| `instruction`, `input` and `output` | BELLE, Alpaca: one turn |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

_HUMAN, _ASSISTANT = "human", "assistant"
_ROLES = {
    "human": _HUMAN, "user": _HUMAN, "prompter": _HUMAN,
    "assistant": _ASSISTANT, "gpt": _ASSISTANT, "chatgpt": _ASSISTANT, "bing": _ASSISTANT,
    "bard": _ASSISTANT, "model": _ASSISTANT, "bot": _ASSISTANT,
}  # fmt: skip
_LISTS = {"conversations": ("from", "value"), "messages": ("role", "content")}


def find_turns(
    row: Mapping[str, Any], left_out: Counter[str] | None = None
) -> list[tuple[str, str]]:
    r"""Returns the turns of a dialogue, each a question with its answer.

    Turns of one side that follow each other are joined by a line break. What has no place in the
    format is left out and counted: system prompts, empty turns, turns of others, answers before
    the first question, and a question behind the last answer.

    Args:
        row: in one of the forms above.
        left_out: counts what is left out or joined, by what it is.

    Raises:
        ValueError: the row has none of the forms, or no question that is answered.

    Example:
        >>> counts = Counter()
        >>> row = {"conversations": [{"from": "system", "value": "Be kind."},
        ...     {"from": "human", "value": "Hi."}, {"from": "human", "value": "Are you there?"},
        ...     {"from": "gpt", "value": "Yes."}, {"from": "human", "value": "Good."}]}
        >>> find_turns(row, counts)
        [('Hi.\nAre you there?', 'Yes.')]
        >>> sorted(counts)
        ['joined turns', 'questions without an answer', 'system prompts']
    """
    counts: Counter[str] = Counter() if left_out is None else left_out
    said: list[tuple[str, str]] = []
    for role, value in _find_parts(row):
        text = value.strip()
        if not text:
            counts["empty turns"] += 1
        elif role == "system":
            counts["system prompts"] += 1
        elif role not in (_HUMAN, _ASSISTANT):
            counts["turns of other roles"] += 1
        elif said and said[-1][0] == role:
            counts["joined turns"] += 1
            said[-1] = (role, f"{said[-1][1]}\n{text}")
        else:
            said.append((role, text))
    if said and said[0][0] == _ASSISTANT:
        counts["answers without a question"] += 1
        del said[0]
    if len(said) % 2:
        counts["questions without an answer"] += 1
        del said[-1]
    if not said:
        raise ValueError("no question of it has an answer")
    texts = [text for _, text in said]
    return [*zip(texts[::2], texts[1::2], strict=True)]


def find_instruction(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns the instruction of a row, what it is about, and its answer.

    Args:
        row: with `instruction`, `input` or `context`, and `output` or `response`.

    Raises:
        ValueError: a text is missing, or is none.

    Example:
        >>> find_instruction({"instruction": "Name it.", "context": "A city.", "response": "Rome"})
        ('Name it.', 'A city.', 'Rome')
    """
    instruction = take_text(row, "instruction")
    context = take_text(row, "input" if "input" in row else "context", "")
    return instruction, context, take_text(row, "output" if "output" in row else "response")


def take_text(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Returns the text under a key.

    Args:
        row: an object.
        key: of the text.
        default: what an absent one is; None refuses it.

    Raises:
        ValueError: there is no text.

    Example:
        >>> take_text({"a": "b"}, "a"), take_text({"a": None}, "a", "")
        ('b', '')
    """
    value = row.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"expected a text under {key!r:.60}, got {value!r:.60}")
    return value


def _find_parts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Who says what, in order."""
    if row.get("system"):
        yield "system", take_text(row, "system")
    for key, names in _LISTS.items():
        if key in row:
            yield from _read_list(row[key], key, *names)
            return
    if "log" in row:
        yield from _read_log(row["log"])
    elif "instruction" in row:
        instruction, context, answer = find_instruction(row)
        yield _HUMAN, "\n".join(part for part in (instruction, context) if part.strip())
        yield _ASSISTANT, answer
    else:
        raise ValueError("expected conversations, messages, log or instruction")


def _read_list(items: Any, key: str, role: str, content: str) -> Iterator[tuple[str, str]]:
    if not isinstance(items, list):
        raise ValueError(f"expected a list under {key!r}, got {items!r:.60}")
    for number, item in enumerate(items):
        if isinstance(item, str) and key == "conversations":
            yield (_ASSISTANT if number % 2 else _HUMAN), item
        elif isinstance(item, dict):
            name = take_text(item, role).lower()
            yield _ROLES.get(name, name), take_text(item, content, "")
        else:
            raise ValueError(f"expected turns with {role} and {content}, got {item!r:.60}")


def _read_log(turns: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"expected a list of turns under 'log', got {turns!r:.60}")
    for turn in turns:
        yield _HUMAN, take_text(turn, "user utterance")
        yield _ASSISTANT, take_text(turn, "system response")
