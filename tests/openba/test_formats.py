"""The four formats: their texts to the letter, and what published files hold that they do not."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.openba import FormatConfig, find_turns, format_chat, format_tool, write_formatted
from lmcore.openba.formats import GENERATION_SOURCES, guess_language


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(name: str, *rows: Any) -> str:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(name).write_text(text + "\n", encoding="utf-8")
    return name


def format_rows(form: str, *rows: Any, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    settings = {name: options.pop(name) for name in [*options] if name != "identity"}
    name = write_rows("in.jsonl", *rows)
    summary = write_formatted([name], "out.jsonl", FormatConfig(format=form, **settings), **options)
    return summary, read()


def read(name: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


# Chats.

TURNS = [("Hi.", "Hello."), ("Who met Otto?", "Ada did."), ("When?", "At noon.")]
SHAPES = {
    "sharegpt": {
        "id": "x",
        "conversations": [
            part
            for human, gpt in TURNS
            for part in ({"from": "human", "value": human}, {"from": "gpt", "value": gpt})
        ],
    },
    "messages": {
        "messages": [
            part
            for user, assistant in TURNS
            for part in (
                {"role": "user", "content": user},
                {"role": "assistant", "content": f" {assistant}\n"},
            )
        ]
    },
    "lima": {"conversations": [text for turn in TURNS for text in turn], "source": "wiki"},
    "dialogstudio": {
        "original dialog id": "",
        "log": [
            {"turn id": n, "user utterance": human, "system response": system, "dialog history": ""}
            for n, (human, system) in enumerate(TURNS)
        ],
        "prompt": ["Be a clerk."],
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_turn_of_a_chat_is_a_pair(shape: str) -> None:
    summary, rows = format_rows("chat", SHAPES[shape])
    assert [(row["source"], row["target"]) for row in rows] == [
        ("Human: Hi. Assistant:", "Hello."),
        ("Human: Hi. Assistant: Hello. Human: Who met Otto? Assistant:", "Ada did."),
        (
            "Human: Hi. Assistant: Hello. Human: Who met Otto? Assistant: Ada did. "
            "Human: When? Assistant:",
            "At noon.",
        ),
    ]
    assert {(row["task"], row["language"]) for row in rows} == {("chat", "en")}
    assert (summary.rows, summary.pairs, summary.copies, summary.left_out) == (1, 3, 0, {})


def test_one_turn_with_an_input() -> None:
    row = {"instruction": "把它翻译成英文。", "input": "你好", "output": "Hello"}
    _, rows = format_rows("chat", row, {**row, "input": ""}, {**row, "input": None})
    assert [row["source"] for row in rows] == [
        "Human: 把它翻译成英文。\n你好 Assistant:",
        *["Human: 把它翻译成英文。 Assistant:"] * 2,
    ]
    assert {row["language"] for row in rows} == {"zh"}


def test_what_has_no_place_in_a_chat_is_counted() -> None:
    parts = [
        ("system", "Be kind."), ("gpt", "Welcome."), ("human", "a"), ("human", "b"), ("gpt", " "),
        ("tool", "17"), ("assistant", "c"), ("chatgpt", "d"), ("human", ""), ("user", "e"),
    ]  # fmt: skip
    conversation = [{"from": role, "value": text} for role, text in parts]
    summary, rows = format_rows("chat", {"system": "x", "conversations": conversation})
    assert [(row["source"], row["target"]) for row in rows] == [("Human: a\nb Assistant:", "c\nd")]
    assert summary.left_out == {
        "system prompts": 2, "answers without a question": 1, "joined turns": 2, "empty turns": 2,
        "turns of other roles": 1, "questions without an answer": 1,
    }  # fmt: skip


def test_sources_of_so_many_turns() -> None:
    summary, rows = format_rows("chat", SHAPES["lima"], max_turns=2)
    assert [row["source"].count("Human:") for row in rows] == [1, 2, 2]
    assert rows[2]["source"].startswith("Human: Who met Otto? Assistant: Ada did. Human: When?")
    assert summary.left_out == {"first turns of sources": 1}
    assert len(list(format_chat([("a", "b")] * 3, max_turns=1))) == 3


def test_dialogues_about_the_model_come_ten_times() -> None:
    identity = write_rows(
        "who.jsonl", {"conversations": ["Who are you?", "OpenBA.", "So?", "Yes."]}
    )
    summary, rows = format_rows("chat", SHAPES["lima"], identity=[identity])
    assert (summary.rows, summary.pairs, summary.copies) == (2, 23, 18)
    assert len([row for row in rows if row["target"] == "OpenBA."]) == 10
    write_formatted(
        [], "p.jsonl", FormatConfig(format="chat", identity_copies=3), identity=[identity]
    )
    assert len(read("p.jsonl")) == 6
    with pytest.raises(
        ValueError, match=r"^dialogues about the model go with the format chat: got"
    ):
        format_rows("code", {"instruction": "a", "output": "b"}, identity=[identity])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, "expected conversations, messages, log or instruction"),
        ({"conversations": []}, "no question of it has an answer"),
        ({"conversations": ["Hi."]}, "no question of it has an answer"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "no question of it has an answer"),
        ({"conversations": "Hi."}, "expected a list under 'conversations', got 'Hi.'"),
        ({"conversations": [5]}, "expected turns with from and value, got 5"),
        ({"messages": ["Hi."]}, "expected turns with role and content, got 'Hi.'"),
        ({"messages": [{"content": "a"}]}, "expected a text under 'role', got None"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "expected a text under 'content', got [{'type': 'image'}]",
        ),
        ({"log": [5]}, "expected a list of turns under 'log', got [5]"),
        ({"log": [{"user utterance": "a"}]}, "expected a text under 'system response', got None"),
        ({"instruction": "a", "output": "  "}, "no question of it has an answer"),
        ({"instruction": "a"}, "expected a text under 'response', got None"),
    ],
)
def test_dialogues_that_cannot_be_used(row: dict[str, Any], reason: str) -> None:
    name = write_rows("in.jsonl", SHAPES["lima"], row)
    config = FormatConfig(format="chat")
    with pytest.raises(ValueError, match=r"^in\.jsonl:2: ") as caught:
        write_formatted([name], "out.jsonl", config)
    assert str(caught.value) == f"in.jsonl:2: {reason}"
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl"]
    summary = write_formatted([name], "out.jsonl", config, skip_bad_rows=True)
    assert (summary.bad_rows, summary.pairs, summary.left_out) == (1, 3, {})
    assert summary.listed_bad_rows == [f"in.jsonl:2: {reason}"]


# Code, instructions and tools.


def test_code() -> None:
    rows = [
        {"instruction": "Add two.", "output": "a + b"},
        {"instruction": "Print it.", "input": "x = 1", "output": "  print(x)\n"},
    ]
    _, found = format_rows("code", *rows)
    assert [(row["source"], row["target"]) for row in found] == [
        ("Add two.", "a + b"), ("Print it.\nx = 1", "print(x)"),
    ]  # fmt: skip


def test_instruction_generation_and_its_copies() -> None:
    rows = [
        {"instruction": "Name a city.", "context": "", "response": "Paris", "category": "qa"},
        {"instruction": "Where is it?", "context": "It is in Kelp.", "response": "In Kelp."},
        {"conversations": ["Say hello.", "Hello.", "And now?", "Bye."]},
        {"instruction": "说一个城市。", "input": "", "output": "北京"},
    ]
    summary, found = format_rows("instruction-generation", *rows)
    english, chinese = GENERATION_SOURCES["en"], GENERATION_SOURCES["zh"]
    assert english == "Please generate the instruction according to the text I provide: {answer}."
    assert [(row["source"], row["target"]) for row in found] == [
        (english.replace("{answer}", "Paris"), "Name a city."),
        (english.replace("{answer}", "In Kelp."), "Where is it?"),
        (english.replace("{answer}", "Hello."), "Say hello."),
        *[(chinese.replace("{answer}", "北京"), "说一个城市。")] * 2,
    ]
    assert summary.left_out == {"contexts": 1, "later turns": 1}
    assert (summary.copies, summary.languages) == (1, {"en": 3, "zh": 2})
    assert len(format_rows("instruction-generation", *rows, chinese_copies=1)[1]) == 4
    # An answer is text, whatever it spells.
    _, [row] = format_rows("instruction-generation", {"instruction": "a", "output": "{answer}{x}"})
    assert row["source"].endswith("provide: {answer}{x}.")


def test_tools() -> None:
    rows = [
        {"question": "Who is Ada?", "query": "Ada", "results": ["A baker. ", "Of Kelp."]},
        {"query": "Ada", "results": "A baker."},
    ]
    _, found = format_rows("tool", *rows)
    assert [(row["source"], row["target"]) for row in found] == [
        ("Who is Ada?", "WikiSearch(Ada) -> A baker. Of Kelp."), ("WikiSearch(Ada)", "A baker."),
    ]  # fmt: skip
    for bad in ({"query": "a"}, {"query": "a", "results": [1]}, {"query": " ", "results": "b"}):
        with pytest.raises(ValueError, match=r"^in\.jsonl:1: "):
            format_rows("tool", bad)
    with pytest.raises(ValueError, match=r"^the question is empty$"):
        format_tool("a", "b", question="")


# Files.


def test_lists_in_json_and_files_of_gzip() -> None:
    _, expected = format_rows("chat", *SHAPES.values())
    rows = [*SHAPES.values()]
    by_name = {f"dialogue--{n}": row for n, row in enumerate(rows)}
    for value, indent in ((rows, None), (rows, 2), (by_name, 4)):
        Path("a.json").write_text(json.dumps(value, indent=indent))
        write_formatted(["a.json"], "p.jsonl", FormatConfig(format="chat"))
        assert read("p.jsonl") == expected
    Path("a.json.gz").write_bytes(gzip.compress(Path("a.json").read_bytes()))
    write_formatted(["a.json.gz"], "p.jsonl.gz", FormatConfig(format="chat"))
    lines = gzip.decompress(Path("p.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line) for line in lines] == expected
    Path("a.json").write_text('[{"conversations": ["\\ud800", "b"]}]')
    with pytest.raises(ValueError, match=r"^a\.json:1: holds a lone surrogate$"):
        write_formatted(["a.json"], "p.jsonl", FormatConfig(format="chat"))
    for text in ("[", "[1,", "[" * 100_000, '[{"a": 1, "a": 2}]', "[] []"):
        Path("a.json").write_text(text)
        with pytest.raises(ValueError, match=r"^a\.json: not JSON: "):
            write_formatted(["a.json"], "p.jsonl", FormatConfig(format="chat"))


def test_files_without_rows() -> None:
    Path("a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"^a\.json: expected rows, got none that can be used$"):
        write_formatted(["a.json"], "p.jsonl", FormatConfig(format="chat"))
    with pytest.raises(ValueError, match=r"^give at least one file: got none$"):
        write_formatted([], "p.jsonl", FormatConfig(format="chat"))
    with pytest.raises(ValueError, match=r"the output is an input too$"):
        write_formatted(["a.json"], "a.json", FormatConfig(format="chat"))


def test_languages_of_rows() -> None:
    assert [guess_language(text) for text in ("", "17", "你好 hello there", "你好 hello")] == [
        "en", "en", "en", "zh",
    ]  # fmt: skip
    row = {"instruction": "a", "output": "b"}
    rows = [row, {**row, "language": "zh"}, {**row, "language": "python"}]
    assert [r["language"] for r in format_rows("code", *rows)[1]] == ["en", "zh", "en"]
    assert [r["language"] for r in format_rows("code", row, language="zh")[1]] == ["zh"]


def test_settings() -> None:
    for options, reason in (
        ({"format": "poem"}, "format must be one of chat, code, instruction-generation, tool"),
        ({"format": "chat", "language": "fr"}, "language must be one of auto, en, zh"),
        ({"format": "chat", "max_turns": 0}, "max_turns must be at least 1"),
        ({"format": "chat", "identity_copies": 0}, "identity_copies must be at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{reason}"):
            FormatConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^a dialogue must have at least one turn: got none$"):
        format_chat([])
    assert find_turns(SHAPES["sharegpt"]) == TURNS


# Commands.


def test_the_command_says_what_is_left_out() -> None:
    row = {"conversations": ["Hi.", "Hello.", "So?"]}
    name = write_rows("in.jsonl", row, {"x": 1}, {**row, "system": "\x1b[2J"})
    arguments = ["openba", "format", "chat", name, "--out", "out.jsonl", "--quiet"]
    check_line(run_here(*arguments), "in.jsonl:2: expected conversations, messages, log or instr")
    code, output, errors = run_here(*arguments, "--skip-bad-rows")
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "skipped in.jsonl:2: expected conversations, messages, log or instruction",
        "2 rows read, 1 skipped: 2 pairs, 0 of them copies (2 en, 0 zh)",
        "left out, questions without an answer: 2",
        "left out, system prompts: 1",
    ]
    code, output, _ = run_here(*arguments, "--skip-bad-rows", "--json")
    assert json.loads(output)["left_out"] == {"questions without an answer": 2, "system prompts": 1}
    check_line(run_here(*arguments[:-3], "--out", "-", "--json"), "--json and the rows cannot both")
    code, output, _ = run_here("openba", "format", "chat", name, "--out", "-", "--skip-bad-rows")
    assert output == Path("out.jsonl").read_text()
