"""Instructions: every row's texts are its template's, and the shares are those that were asked."""

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from commands import file_size_limited
from lmcore.openba import InstructionConfig, instructions, read_templates, write_instructions
from lmcore.openba.balance import balance_languages, cap_groups, divide, parse_ratio
from lmcore.openba.templates import Template

TEMPLATES: dict[str, list[dict[str, Any]]] = {
    "qa": [
        {"source": "Q: {q}", "target": "{a}", "language": "en"},
        {"source": "{q} Answer:", "target": "{a}", "language": "en"},
    ],
    "nli": [
        {
            "source": "{{{p}}} so {h}?",
            "target": "{label}",
            "language": "en",
            "choices": {"label": ["no", "yes"]},
        }
    ],
    "mt": [
        {"source": "Into Chinese: {en}", "target": "{zh}", "language": "en"},
        {"source": "译成英文：{zh}", "target": "{en}", "language": "zh"},
        {"source": "翻译：{zh}", "target": "{en}", "language": "zh"},
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows("qa.jsonl", [{"q": f"q{n}", "a": f"a{n}", "id": n} for n in range(200)])
    write_rows("nli.jsonl", [{"p": f"p{n}", "h": f"h{n}", "label": n % 2} for n in range(40)])
    write_rows("mt.jsonl", [{"en": f"e{n}", "zh": f"中{n}"} for n in range(90)])
    write_templates(TEMPLATES)
    return tmp_path


FILES = ["qa.jsonl", "nli.jsonl", "mt.jsonl"]


def write_rows(name: str, rows: list[Any]) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path(name).write_text(text + "\n", encoding="utf-8")


def write_templates(templates: Any) -> None:
    Path("t.json").write_text(json.dumps(templates), encoding="utf-8")


def write(files: list[str] | None = None, out: str = "o.jsonl", **options: Any) -> Any:
    reading = {name: options.pop(name) for name in ("skip_bad_rows",) if name in options}
    config = InstructionConfig(**options)
    return write_instructions(files or FILES, "t.json", out, config, **reading)


def read(name: str = "o.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


BEFORE = ["mt.jsonl", "nli.jsonl", "qa.jsonl", "t.json"]


# What is written.


@pytest.mark.usefixtures("folder")
def test_each_row_is_one_of_its_templates() -> None:
    summary = write(ratio="none")
    rows = read()
    assert summary.rows == len(rows) == 330
    sources = {
        "qa": {f"{before}q{n}{behind}" for n in range(200) for before, behind in _QA},
        "nli": {f"{{p{n}}} so h{n}?" for n in range(40)},
        "mt": {f"{text}{n}" for n in range(90) for text in _MT},
    }  # fmt: skip
    for row in rows:
        assert row["source"] in sources[row["task"]]
        template = TEMPLATES[row["task"]][row["template"] - 1]
        assert row["language"] == template["language"]
        if row["task"] == "nli":
            number = int(row["source"].split("h")[1][:-1])
            assert row["target"] == ["no", "yes"][number % 2]
        if row["task"] == "qa":
            assert row["target"] == f"a{row['id']}"
            assert f"q{row['id']}" in row["source"].split()
    assert len({(row["task"], row["source"]) for row in rows}) == 330
    used = Counter((row["task"], row["template"]) for row in rows)
    assert min(used["qa", 1], used["qa", 2]) > 70
    assert min(used["mt", number] for number in (1, 2, 3)) > 15
    assert names() == sorted([*BEFORE, "o.jsonl"])


_MT = ("Into Chinese: e", "译成英文：中", "翻译：中")
_QA = (("Q: ", ""), ("", " Answer:"))


@pytest.mark.usefixtures("folder")
def test_the_same_call_writes_the_same_bytes_and_another_seed_others() -> None:
    write(seed=1)
    first = Path("o.jsonl").read_bytes()
    write(seed=1)
    assert Path("o.jsonl").read_bytes() == first
    write(seed=2)
    assert Path("o.jsonl").read_bytes() != first
    tasks = [row["task"] for row in read()]
    # Shuffled: no task's rows stand together.
    assert sum(a == b for a, b in pairwise(tasks)) < 0.75 * len(tasks)


@pytest.mark.usefixtures("folder")
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write(seed=3, repeat=True)
    expected = Path("o.jsonl").read_bytes()
    monkeypatch.setattr(instructions, "_BYTES_AT_ONCE", 100)
    monkeypatch.setattr(instructions, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr("lmcore.openba.instruction_rows._ROWS_AT_ONCE", 3)
    write(seed=3, repeat=True)
    assert Path("o.jsonl").read_bytes() == expected


@pytest.mark.usefixtures("folder")
def test_one_file_with_tasks_in_its_rows_gives_the_same() -> None:
    write()
    expected = read()
    rows = [{**row, "task": name[:-6]} for name in FILES for row in read(name)]
    write_rows("all.jsonl", rows)
    write(["all.jsonl"])
    assert read() == expected
    Path("all.jsonl.gz").write_bytes(gzip.compress(Path("all.jsonl").read_bytes()))
    write(["all.jsonl.gz"], "o.jsonl.gz")
    lines = gzip.decompress(Path("o.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == expected


# Cap and ratio.


@pytest.mark.usefixtures("folder")
def test_the_ratio_is_exact_and_what_it_costs_is_said() -> None:
    summary = write()
    counts = Counter(row["language"] for row in read())
    chinese = next(task.rows for task in summary.tasks if task.language == "zh")
    assert (counts["en"], counts["zh"]) == (2 * chinese, chinese)
    assert summary.short == "zh"
    assert summary.languages == {"en": 2 / 3, "zh": 1 / 3}
    for task in summary.tasks:
        assert task.rows == task.written + task.over_ratio
        assert (task.over_cap, task.repeated) == (0, 0)
    # Tasks of a language give up the same share.
    english = [task for task in summary.tasks if task.language == "en"]
    kept = [task.written / task.rows for task in english]
    assert max(kept) - min(kept) < 0.03
    assert sum(task.share for task in summary.tasks) == pytest.approx(1)


@pytest.mark.usefixtures("folder")
def test_repeated_rows_come_in_other_wordings() -> None:
    summary = write(repeat=True, ratio="1:2")
    rows = read()
    assert len(rows) == summary.rows
    counts = Counter(row["language"] for row in rows)
    assert counts["zh"] == 2 * counts["en"]
    assert sum(task.over_ratio for task in summary.tasks) == 0
    chinese = next(task for task in summary.tasks if task.language == "zh")
    assert chinese.repeated == chinese.written - chinese.rows > chinese.rows
    seen: dict[str, Counter[int]] = {}
    for row in rows:
        if row["language"] == "zh":
            seen.setdefault(row["target"], Counter())[row["template"]] += 1
    assert len(seen) == chinese.rows
    for used in seen.values():
        assert abs(used[2] - used[3]) <= 1
    lengths = [sum(used.values()) for used in seen.values()]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.usefixtures("folder")
def test_a_cap_holds_for_a_task_in_all_its_languages() -> None:
    summary = write(cap=30, ratio="none")
    counts = Counter(row["task"] for row in read())
    assert counts == {"qa": 30, "nli": 30, "mt": 30}
    assert {task.task: task.over_cap for task in summary.tasks if task.task != "mt"} == {
        "qa": 170, "nli": 10,
    }  # fmt: skip
    # Which rows are taken depends on the seed, and rows of all places are.
    taken = {row["id"] for row in read() if row["task"] == "qa"}
    assert min(taken) < 60
    assert max(taken) > 140
    write(cap=30, ratio="none", seed=9)
    assert {row["id"] for row in read() if row["task"] == "qa"} != taken


@pytest.mark.usefixtures("folder")
def test_rows_beyond_the_cap_come_before_repeats() -> None:
    rows = [{"q": f"中{n}", "a": "是", "language": "zh"} for n in range(50)]
    write_rows("zh.jsonl", [{**row, "task": "cn"} for row in rows])
    write_templates({**TEMPLATES, "cn": [{"source": "{q}", "target": "{a}"}]})
    summary = write([*FILES, "zh.jsonl"], cap=40, ratio="1:1", repeat=True)
    task = next(task for task in summary.tasks if task.task == "cn")
    assert task.written > 40
    assert task.over_cap == max(0, 50 - task.written)
    assert task.repeated == max(0, task.written - 50)


def test_balance() -> None:
    for ratio in ("2:1", "66.7:33.3", "54:46", "1:1000"):
        sides = parse_ratio(ratio)
        assert sides is not None
        share = float(sides[0] / sum(sides))
        for counts in ((900, 100), (100, 900), (7, 7), (2000, 1000)):
            for repeat in (False, True):
                first, second = balance_languages(counts, sides, repeat=repeat)
                assert min(first, second) >= 1
                assert abs(first - share * (first + second)) <= 1 or 1 in (first, second)
                compare = max if repeat else min
                for new, old in zip((first, second), counts, strict=True):
                    assert compare(new, old) == new
    assert divide(7, [3, 3, 1]) == [3, 3, 1]
    assert sum(divide(1000, [7, 11, 0, 5])) == 1000
    assert cap_groups([], None) == []
    for text in ("2", "2:1:1", "0:1", "-1:1", "2:x", "1e3:1", "1001:1", "nan:1", ":", "1:²"):
        with pytest.raises(ValueError, match=r"^ratio must be two numbers above 0 and at most"):
            parse_ratio(text)


# Templates.


def test_templates_look_fields_up_and_nothing_else() -> None:
    row = {"a": "{b}", "b": 2, "a.b": True, "c d": 1.5, "0": "zero", "": "none"}
    assert Template("{a}{{a}}{a.b} {c d}{0}").fill(row) == "{b}{a}true 1.5zero"
    for text in ("{a.__class__}", "{a[0]}", "{a!r}", "{a:>100000000}", "{b.real}", "{ a }"):
        with pytest.raises(ValueError, match=r"^the field '.*' is absent$"):
            Template(text).fill(row)
    for text in ("{", "}", "a {", "{}", "{a}}", "{{a}", "{a{b}}", "{{{a}}"):
        with pytest.raises(ValueError, match=r"^expected a field in braces, or two of them, at ch"):
            Template(text)
    for value in (None, [1], {"x": 1}):
        with pytest.raises(ValueError, match=r"^the field 'a' must be a text or a number: got "):
            Template("{a}").fill({"a": value})
    words = Template("{l}", {"l": {"x": "eks"}})
    assert words.fill({"l": "x"}) == "eks"
    for template, bad in ((words, "y"), (Template("{l}", {"l": ["no"]}), 1), (words, None)):
        with pytest.raises(ValueError, match=r"^the field 'l' must be one of its 1 choices: got"):
            template.fill({"l": bad})


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "t.json: expected an object with the templates of each task"),
        ("{}", "t.json: expected an object with the templates of each task"),
        ('{"qa": 1, "qa": 2}', "t.json: not templates: the key 'qa' stands twice"),
        ('{"qa": []}', "t.json: task 'qa': expected a list of templates"),
        ('{"qa": ["x"]}', "t.json: task 'qa', template 1: expected an object with source and "),
        ('{"qa": [{"source": "x"}]}', "t.json: task 'qa', template 1: target must be a text"),
        ('{"qa": [{"source": "{", "target": "{a}"}]}', "task 'qa', template 1: source: expected "),
        (
            '{"qa": [{"source": "x", "target": "y", "lang": "en"}]}',
            "template 1: expected choices, language, source, target: got 'lang'",
        ),
        (
            '{"qa": [{"source": "x", "target": "y", "language": "fr"}]}',
            "template 1: language must be one of en, zh: got 'fr'",
        ),
        (
            '{"qa": [{"source": "x", "target": "y", "choices": {"l": [1]}}]}',
            "template 1: choices must be lists of texts",
        ),
        ('{"qa": [NaN]}', "t.json: not templates: NaN is no number of JSON"),
        ("[" * 200_000, "t.json: not templates: "),
        (
            r'{"qa": [{"source": "\ud800{q}", "target": "y"}]}',
            "t.json: not templates: holds a lone surrogate",
        ),
    ],
)
def test_templates_that_cannot_be_used(content: str, reason: str) -> None:
    Path("t.json").write_text(content)
    with pytest.raises(ValueError, match=r"t\.json: ") as caught:
        read_templates("t.json")
    assert reason in str(caught.value)


# Rows that cannot be used.


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"q": "x", "a": "", "id": 1}', "the target is empty"),
        ('{"q": "x", "a": " \\n\\u3000"}', "the target is empty"),
        ('{"q": "x"}', "template 1 names the field 'a', which is absent"),
        ('{"q": "x", "a": null}', "the field 'a' must be a text or a number: got None"),
        ('{"q": "x", "a": "y", "task": "other"}', "the task 'other' has no template in t.json"),
        ('{"q": "x", "a": "y", "task": 5}', "the task 5 has no template in t.json"),
        ('{"q": "x", "a": "y", "language": "fr"}', "language must be one of en, zh: got 'fr'"),
        ('{"q": "x", "a": "y", "language": "zh"}', "the task has no template in the row's langu"),
        ('{"q": "x", "q": "y"}', "not valid JSON: the key 'q' stands twice"),
        ("[]", "expected a JSON object, got a list"),
        ('{"q": "\\ud800", "a": "y"}', "holds a lone surrogate"),
    ],
)
def test_bad_rows(row: str, reason: str) -> None:
    lines = Path("qa.jsonl").read_text().splitlines()
    Path("qa.jsonl").write_text("\n".join([*lines[:2], row, *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"^qa\.jsonl:3: ") as caught:
        write()
    assert reason in str(caught.value)
    assert names() == BEFORE
    summary = write(skip_bad_rows=True, ratio="none")
    assert (summary.bad_rows, summary.rows) == (1, 330)
    assert [found.startswith("qa.jsonl:3: ") for found in summary.listed_bad_rows] == [True]


@pytest.mark.usefixtures("folder")
def test_every_template_is_held_against_every_row() -> None:
    """Not only the one that the seed chooses: an error does not depend on it."""
    templates = [*TEMPLATES["qa"], {"source": "x", "target": "{b}", "language": "en"}]
    write_templates({**TEMPLATES, "qa": templates})
    for seed in range(5):
        with pytest.raises(
            ValueError, match=r"^qa\.jsonl:1: template 3 names the field 'b', which is absent$"
        ):
            write(seed=seed)


@pytest.mark.usefixtures("folder")
def test_tasks_without_rows_or_templates() -> None:
    with pytest.raises(ValueError, match=r"^t\.json: the task 'mt' has no rows$"):
        write(["qa.jsonl", "nli.jsonl"])
    Path("empty.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match=r"^empty\.jsonl: the file holds no rows$"):
        write([*FILES, "empty.jsonl"])
    write_rows("other.jsonl", [{"q": "x", "a": "y"}])
    with pytest.raises(ValueError, match=r"^other\.jsonl:1: the task 'other' has no template in "):
        write([*FILES, "other.jsonl"])
    write_rows("mt.jsonl", [{"en": "x", "zh": ""}])
    with pytest.raises(ValueError, match=r"^t\.json: the task 'mt' has no rows that can be used$"):
        write(skip_bad_rows=True)
    assert "o.jsonl" not in names()


@pytest.mark.usefixtures("folder")
def test_languages() -> None:
    write_templates({"qa": [{"source": "{q}", "target": "{a}"}]})
    with pytest.raises(ValueError, match=r"^qa\.jsonl:1: neither the row nor its templates name a"):
        write(["qa.jsonl"])
    assert write(["qa.jsonl"], language="zh", ratio="none").languages == {"en": 0.0, "zh": 1.0}
    with pytest.raises(
        ValueError, match=r"^the ratio 2:1 needs rows of both languages: got none of en$"
    ):
        write(["qa.jsonl"], language="zh")
    rows = [{"q": "x", "a": "y", "language": language} for language in ("en", "zh", "en")]
    write_rows("qa.jsonl", rows)
    assert write(["qa.jsonl"]).languages == {"en": 2 / 3, "zh": 1 / 3}


@pytest.mark.usefixtures("folder")
def test_settings_and_outputs_that_cannot_be() -> None:
    for options, reason in (
        ({"cap": 0}, "cap must be at least 1"),
        ({"ratio": "2"}, "ratio must be"),
        ({"language": "fr"}, "language must be one of en, zh"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, "seed must be at least 0"),
    ):
        with pytest.raises(ValueError, match=f"^{reason}"):
            InstructionConfig(**options)  # type: ignore[arg-type]
    for out in ("qa.jsonl", "t.json"):
        with pytest.raises(ValueError, match=r"the output is an input too$"):
            write(out=out)
    with pytest.raises(ValueError, match=r"^give at least one file: got none$"):
        write_instructions([], "t.json", "o.jsonl")
    with file_size_limited(500), pytest.raises(OSError, match="File too large"):
        write()
    assert names() == BEFORE


# Real texts.


def test_real_translations_and_instructions(folder: Path, data_dir: Path) -> None:
    text = (data_dir / "corpora/parallel/cmn_tatoeba.txt").read_text(encoding="utf-8")
    found = [line.split("\t")[:2] for line in text.splitlines()[:6000]]
    write_rows("mt.jsonl", [{"en": english, "zh": chinese} for english, chinese in found])
    chains = data_dir / "tox/detoxchain_alpaca_rtp1000.jsonl"
    templates = {
        "mt": TEMPLATES["mt"],
        chains.stem: [{"source": "{instruction}\n{input}", "target": "{output}", "language": "en"}],
    }
    write_templates(templates)
    summary = write(["mt.jsonl", str(chains)], ratio="54:46", repeat=True)
    rows = read()
    english = sum(row["language"] == "en" for row in rows)
    assert summary.bad_rows == 0
    assert english / len(rows) == pytest.approx(0.54, abs=1e-3)
    assert sum(task.written for task in summary.tasks) == len(rows) >= 7000
    known = {*map(tuple, found)}
    for row in rows:
        if row["task"] == "mt":
            before = templates["mt"][row["template"] - 1]["source"].partition("{")[0]
            pair = (row["source"].removeprefix(before), row["target"])
            assert (pair if row["template"] == 1 else pair[::-1]) in known
