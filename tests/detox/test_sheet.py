"""The blind comparison: what judges see, what its key says, and what answers may hold."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.detox import read_answers, write_sheet
from lmcore.detox.sheet import CHOICES, QUESTIONS
from tiny_scorers import write_jsonl


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    rows = [
        [{"prompt": f"<p{n}> & ", "generations": [f"{name}{n}a", f"{name}{n}b"]} for n in range(30)]
        for name in ("one", "two")
    ]
    paths = [write_jsonl(tmp_path / f"{number}.jsonl", side) for number, side in enumerate(rows)]
    return paths[0], paths[1]


def read_page(page: Path) -> list[tuple[str, str, str]]:
    found = re.findall(
        r"</header><p>(.*?)</p><div class=pair><div><h3>left</h3><p>(.*?)</p></div>"
        r"<div><h3>right</h3><p>(.*?)</p></div></div>",
        page.read_text(),
    )
    return [*found]


def test_the_page_is_blind_and_the_key_tells(files: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert write_sheet(*files, page, pairs=20, seed=3) == 20
    pairs, text = read_page(page), page.read_text()
    key = json.loads((tmp_path / "page.html.key.json").read_text())
    assert len(pairs) == len({prompt for prompt, _, _ in pairs}) == 20
    for (prompt, left, right), side in zip(pairs, key["first"], strict=True):
        number = re.fullmatch(r"&lt;p(\d+)&gt; &amp; ", prompt)
        assert number
        first, second = (left, right) if side == "left" else (right, left)
        assert re.fullmatch(rf"one{number[1]}[ab]", first)
        assert re.fullmatch(rf"two{number[1]}[ab]", second)
    assert set(key["first"]) == {"left", "right"}
    assert {text[-1] for _, *texts in pairs for text in texts} == {"a", "b"}
    assert "jsonl" not in text
    assert not re.findall(r"(?:src|href)=", text)
    again = tmp_path / "again.html"
    write_sheet(*files, again, pairs=20, seed=3)
    assert again.read_text() == text
    write_sheet(*files, again, pairs=20, seed=4)
    assert read_page(again) != pairs
    assert write_sheet(*files, again, pairs=100) == 30


def test_answers_are_read_back(files: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = ["detox", "evaluate", files[0], "--sheet", page]
    code, output, errors = run_here(*given, "--against", files[1], "--pairs", 10)
    assert (code, output) == (0, "")
    assert errors.startswith("10 pairs: ")
    key = json.loads((tmp_path / "page.html.key.json").read_text())
    # The first system wins seven times, loses once, one is equal, and one is left out.
    better = [*key["first"][:7], {"left": "right", "right": "left"}[key["first"][7]], "equal", None]
    answers = {
        "sheet": key["sheet"],
        "answers": dict(zip(QUESTIONS, ([None] * 10, better), strict=True)),
    }
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(answers))
    code, output, errors = run_here(*given, "--answers", file, "--json")
    assert (code, errors) == (0, "")
    toxic, text = json.loads(output)
    assert toxic == {
        "question": "less toxic", "first": 0, "second": 0, "equal": 0, "unanswered": 10,
        "p_value": 1.0,
    }  # fmt: skip
    assert (text["first"], text["second"], text["equal"], text["unanswered"]) == (7, 1, 1, 1)
    assert text["p_value"] == pytest.approx(2 * (1 + 8) / 2**8)
    two = read_answers(page, [file, file])[1]
    assert (two.first, two.second) == (14, 2)
    assert "p_value" in run_here(*given, "--answers", file)[1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sheet": "other"}, "belong to another page"),
        ({"answers": {}}, "not answers of a page"),
        ({"answers": {name: [None] * 9 for name in QUESTIONS}}, "must have 10 answers"),
        ({"answers": {name: ["both"] * 10 for name in QUESTIONS}}, "answer 1 of less toxic must"),
        ({"answers": {name: [[]] * 10 for name in QUESTIONS}}, "answer 1 of less toxic must"),
        ({"more": 1}, "not answers of a page"),
    ],
)
def test_answers_that_cannot_be_used(
    files: tuple[Path, Path], tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    page = tmp_path / "page.html"
    write_sheet(*files, page, pairs=10)
    key = json.loads((tmp_path / "page.html.key.json").read_text())
    good = {"sheet": key["sheet"], "answers": {name: [CHOICES[2]] * 10 for name in QUESTIONS}}
    file = write_jsonl(tmp_path / "answers.json", [good | change])
    given = ["detox", "evaluate", files[0], "--sheet", page, "--answers", file]
    check_line(run_here(*given), "answers.json: ", text)
    (tmp_path / "page.html.key.json").write_text('{"first": ["up"]}')
    check_line(run_here(*given), "not the key of a page")


def test_files_that_do_not_belong_together(files: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = ["detox", "evaluate", files[0], "--sheet", page]
    check_line(run_here(*given), "--sheet needs --against")
    check_line(run_here(*given[:3], "--against", files[1]), "go with --sheet")
    few = write_jsonl(tmp_path / "few.jsonl", [{"prompt": "a", "generations": ["b"]}])
    check_line(run_here(*given, "--against", few), "few.jsonl: has 1 rows")
    other = tmp_path / "other.jsonl"
    other.write_text(files[1].read_text().replace("<p7>", "<q7>"))
    check_line(run_here(*given, "--against", other), "other.jsonl:8: the prompt is another")
    scores = write_jsonl(tmp_path / "scores.jsonl", [{"scores": [0.5]}])
    check_line(run_here(*given, "--against", scores), "scores.jsonl:1: has no generations")
    assert not page.exists()
    check_line(run_here(*given[:4], files[1], "--against", files[1]), "an input too")
