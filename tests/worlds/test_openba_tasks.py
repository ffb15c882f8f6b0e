"""Rows about generated documents: what they ask has one answer, and it is theirs."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lmcore.openba.instructions import InstructionConfig, write_instructions
from lmcore.reproduce.openba.words import Words
from lmcore.worlds import World
from lmcore.worlds.openba import LANGUAGES, Document, make_world
from lmcore.worlds.openba.downstream import KINDS, make_downstream
from lmcore.worlds.openba.tasks import (
    GUESSES,
    TEMPLATES,
    list_templates,
    list_wordings,
    make_instructions,
    read_facts,
    translate,
)


def test_worlds_are_frozen_functions_of_their_seed() -> None:
    makers: list[Callable[..., Any]] = [make_instructions]
    makers += [partial(make_downstream, kind) for kind in KINDS]
    for make in makers:
        world = make(3, rows=9)
        assert isinstance(make(3, rows=9), World)
        with pytest.raises(dataclasses.FrozenInstanceError):
            world.rows = ()
        assert world.to_text() == make(3, rows=9).to_text() != make(4, rows=9).to_text()
        # A larger world begins with the smaller one.
        assert list(make(3, rows=30).rows[:7]) == list(make(3, rows=7).rows)


def test_tasks_languages_and_wordings_take_turns() -> None:
    rows = make_instructions(0, rows=40).rows
    assert [row.language for row in rows] == ["en", "zh"] * 20
    assert [row.task for row in rows[::2]] == [*TEMPLATES] * 4
    assert GUESSES.keys() == TEMPLATES.keys()
    seen = {(row.task, row.language, row.template) for row in rows}
    assert len(seen) == sum(map(len, TEMPLATES.values())) == 20
    for task in TEMPLATES:
        assert [len(list_templates(task, language)) for language in LANGUAGES] == [2, 2]


def test_answers_are_what_the_document_says() -> None:
    for row in make_instructions(1, rows=200).rows:
        fields = row.fields
        if row.task in ("place", "role", "name"):
            assert row.target == fields[row.task]
            assert fields[row.task] in fields["text"]
            assert fields["text"] in row.source
        if row.task == "ending":
            # What is asked for is not told, but follows.
            assert row.target not in row.source
            assert row.source.count(fields["begun"]) == 1
            assert fields["text"] == (
                fields["begun"] + LANGUAGES[row.language].separator + row.target
            )
        assert "{" not in row.source + row.target


def test_rows_become_instructions_by_their_templates(tmp_path: Path) -> None:
    """`lmcore openba instructions` makes of the file what the rows say they become."""
    world = make_instructions(3, rows=60)
    file, templates, out = (tmp_path / name for name in ("rows.jsonl", "templates.json", "out"))
    file.write_text(world.to_text(), encoding="utf-8")
    templates.write_text(json.dumps(TEMPLATES), encoding="utf-8")
    summary = write_instructions([file], templates, out, InstructionConfig(ratio="none"))
    assert (summary.rows, summary.bad_rows) == (60, 0)
    expected = {
        (pair.source, pair.target)
        for row in world.rows
        for template in range(2)
        for pair in [dataclasses.replace(row, template=template)]
    }
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {(row["source"], row["target"]) for row in written} <= expected
    assert len({row["task"] for row in written}) == len(TEMPLATES)


def test_a_name_is_asked_for_by_a_place_that_is_hers() -> None:
    """Others are met in places that the text names too."""
    for row in make_instructions(2, rows=300).rows:
        if row.task == "name" and row.language == "en":
            (place,) = re.findall(
                r"lived? in (\w+)[?.]", row.source.replace(row.fields["text"], "")
            )
            assert re.match(rf"{row.target} the \w+ lived in {place}\.", row.fields["text"])


def test_translations_are_those_of_the_other_way() -> None:
    for document in make_world(4, documents=50).documents:
        other = "zh" if document.language == "en" else "en"
        words = Words()
        said = words.decode(words.encode(translate(document.language, read_facts(document))))
        made = Document(language=other, words=tuple(said.split()), nats=0.0)
        assert document.text.startswith(translate(other, read_facts(made)))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_fine_tune_are_lines(kind: str) -> None:
    world = make_downstream(kind, 0, rows=50)
    assert [json.loads(line) for line in world.to_text().splitlines()] == world.rows


def test_dialogues_ask_for_what_was_told() -> None:
    rows = make_downstream("chat", 0, rows=60).rows
    for row in rows:
        *earlier, last = row["turns"]
        answer = last["assistant"].rstrip(".。")
        asked = answer.split()[-1] if row["language"] == "en" else re.split("叫|在|是", answer)[-1]
        assert asked in " ".join(turn["human"] for turn in earlier)
        assert asked not in last["human"]
    assert len({row["turns"][-1]["human"] for row in rows}) == 6


def test_code_does_what_its_instruction_says() -> None:
    for row in make_downstream("code", 0, rows=200).rows:
        known: dict[str, object] = {}
        exec(row["output"], {}, known)
        (name,) = known
        assert f"function {name} of" in row["instruction"]
        assert known[name](5) == row["value"]  # type: ignore[operator]
        numbers = re.findall(r"\d", row["instruction"])
        assert numbers == re.findall(r"\d", row["output"])


def test_instructions_leave_open_what_the_text_says() -> None:
    rows = make_downstream("instruction_generation", 0, rows=400).rows
    kinds = set()
    for row in rows:
        if row["language"] == "en":
            open_word = row["answer"].rstrip(".").split()[-1]
            if not row["instruction"].startswith("Say whom"):
                assert open_word not in row["instruction"].rstrip(".").split()
            kinds.add(" ".join(row["instruction"].split()[:2]))
    assert kinds == {"Say where", "Say whom", "Say how", "Say what"}


def test_searches_find_what_holds_in_all_documents() -> None:
    seen: dict[str, set[str]] = {word: set() for word in LANGUAGES["en"].animals}
    for document in make_world(0, documents=4000).documents[::2]:
        for one in re.findall(r"the (\w+) sang (\w+)", document.text):
            seen[one[0]].add(one[1])
    entries = set()
    for row in make_downstream("tool_retrieval", 0, rows=400).rows:
        assert row["query"] in row["question"].rstrip("?").split()
        entries.add((row["query"], row["results"]))
        if row["query"] in seen:
            assert set(row["results"].rstrip(".").split()[3::2]) == seen[row["query"]]
    # One for each role and animal.
    assert len(entries) == len(dict(entries)) == 16


# The first 32 digits of SHA-256.
WORLDS = {
    "instructions": "cb0962cf013814a4246978038664b92d",
    "chat": "a45bb29ced56543a14ac26e64b2b7f2e",
    "code": "c9d15d74a8f99ecf8fee649c60e9dd5b",
    "instruction_generation": "ef60afbb5aa1907dfffbabe7aa5f7195",
    "tool_retrieval": "44fdde82d6bcebd2e6e31b28148cb624",
}


@pytest.mark.parametrize("kind", WORLDS)
def test_worlds_stay_what_they_are(kind: str) -> None:
    world = (
        make_instructions(0, rows=300)
        if kind == "instructions"
        else make_downstream(kind, 0, rows=300)
    )
    assert hashlib.sha256(world.to_text().encode()).hexdigest()[:32] == WORLDS[kind]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"^rows must be at least 1: got 0$"):
        make_instructions(0, rows=0)
    with pytest.raises(ValueError, match=r"^rows must be at least 1: got -1$"):
        make_downstream("chat", 0, rows=-1)
    with pytest.raises(ValueError, match=r"^kind must be one of chat, code, .*: got 'talk'$"):
        make_downstream("talk", 0)


def test_wordings_hold_no_field() -> None:
    assert all("{" not in text and text.strip() for text in list_wordings())
