"""Small files of questions, in the forms that suites are published in."""

import json
from pathlib import Path
from typing import Any

CEVAL = "id,question,A,B,C,D,answer\n"
CMMLU = ",Question,A,B,C,D,Answer\n"


def make_data(number: int, **changes: Any) -> dict[str, Any]:
    """A question of the authors' form."""
    words = ["Ada", "Otto", "Kelp", "met"]
    data = {f"res{n + 1}": words[(n + number) % 4] for n in range(4)}
    return {"question": f"Who is {number}?", **data, "ans": "ABCD"[number % 4], **changes}


def make_pairs(count: int, demos: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Questions with their demonstrations."""
    shown = [make_data(100 + number) for number in range(demos)]
    return [{"demo": shown, "data": make_data(n, **changes)} for n in range(count)]


def write_json(path: Path, value: Any) -> Path:
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=1))


def write_lines(path: Path, rows: list[Any]) -> Path:
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def make_arc(number: int, count: int = 4, numbered: bool = False, **changes: Any) -> dict[str, Any]:
    labels = "12345"[:count] if numbered else "ABCDE"[:count]
    choices = [{"text": f"answer {label}", "label": label} for label in labels]
    question = {"stem": f"Why {number}?", "choices": choices}
    return {"id": f"arc_{number}", "question": question, "answerKey": labels[-1], **changes}


def make_belebele(number: int, **changes: Any) -> dict[str, Any]:
    options = {f"mc_answer{n}": f"answer {n}" for n in range(1, 5)}
    row = {"link": "l", "question_number": 1, "flores_passage": "Ada met Otto.", **options}
    return {**row, "question": f"Who {number}?", "correct_answer_num": "2", **changes}
