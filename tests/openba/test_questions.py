"""Files of questions: each published form, which part counts, demonstrations, what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lmcore.openba import read_questions
from lmcore.openba.subjects import CATEGORIES, name_subject
from tiny_questions import (
    CEVAL,
    CMMLU,
    make_arc,
    make_belebele,
    make_data,
    make_pairs,
    write_json,
    write_lines,
    write_text,
)


def refuse(text: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        read_questions(*arguments, **options)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# Forms.


def test_pairs(tmp_path: Path) -> None:
    write_json(tmp_path / "law_test.json", make_pairs(3, demos=2))
    write_json(tmp_path / "art_test.json", make_pairs(2, demos=2, opt_num=3, ans="C"))
    found = read_questions(tmp_path, "mmlu", shots=1)
    assert [(q.subject, q.key) for q in found.questions] == [
        ("art", "1"), ("art", "2"), ("law", "1"), ("law", "2"), ("law", "3"),
    ]  # fmt: skip
    assert [len(q.options) for q in found.questions] == [3, 3, 4, 4, 4]
    assert found.questions[2].answer == 0
    assert [demo.text for demo in found.questions[2].demos] == ["Who is 100?"]
    assert read_questions(tmp_path, "arc").digest == read_questions(tmp_path, "mmlu").digest
    assert read_questions(tmp_path, "mmlu", shots=1).digest == found.digest
    assert read_questions(tmp_path, "mmlu", shots=2).digest != found.digest


def test_ceval(tmp_path: Path) -> None:
    """A mark of byte order, line ends of Windows, and quoted line breaks are no matter."""
    rows = "\ufeff" + CEVAL + '0,"甲\n乙",a,b,c,d,B\n1,丙,"a,b",b,c,d,D\n'
    write_text(tmp_path / "val" / "law_val.csv", rows.replace("\n", "\r\n"))
    write_text(tmp_path / "dev" / "law_dev.csv", CEVAL + "0,丁,a,b,c,d,A\n1,戊,a,b,c,d,C\n")
    found = read_questions(tmp_path, "ceval", shots=2)
    assert [(q.key, q.text, q.answer) for q in found.questions] == [
        ("0", "甲\r\n乙", 1),
        ("1", "丙", 3),
    ]
    assert found.questions[1].options[0] == "a,b"
    assert found.questions[1].place.endswith("law_val.csv:4")
    assert [demo.text for demo in found.questions[0].demos] == ["丁", "戊"]
    assert (found.split, found.held_out, found.shots) == ("val", 0, 2)
    assert read_questions(tmp_path, "ceval", split="dev").questions[0].text == "丁"
    text = "law_dev.csv: expected 3 questions with answers to show, got 2"
    refuse(text, tmp_path, "ceval", shots=3)


def test_secret_answers(tmp_path: Path) -> None:
    """C-Eval's test has none: it is predicted. It is read where it is asked for."""
    write_text(tmp_path / "law_test.csv", "id,question,A,B,C,D\n0,甲,a,b,c,d\n")
    refuse("no files of the split 'val': found test", tmp_path, "ceval")
    [question] = read_questions(tmp_path, "ceval", split="test").questions
    assert question.answer is None
    refuse("expected 1 questions with answers to show", tmp_path, "ceval", split="test", shots=1)


def test_cmmlu(tmp_path: Path) -> None:
    write_text(tmp_path / "test" / "arts.csv", CMMLU + "0,甲,a,b,c,d,C\n1,乙,a,b,c,d,A\n")
    write_text(tmp_path / "dev" / "arts.csv", CMMLU + "0,丙,a,b,c,d,D\n")
    found = read_questions(tmp_path, "cmmlu", shots=1)
    assert [(q.subject, q.key, q.answer) for q in found.questions] == [
        ("arts", "0", 2),
        ("arts", "1", 0),
    ]
    assert found.questions[0].demos[0].text == "丙"


def test_arc(tmp_path: Path) -> None:
    rows = [make_arc(1), make_arc(2, 3), make_arc(3, 5, numbered=True)]
    write_lines(tmp_path / "ARC-Easy" / "ARC-Easy-Test.jsonl", rows)
    write_lines(tmp_path / "ARC-Easy" / "ARC-Easy-Dev.jsonl", [make_arc(9)])
    found = read_questions(tmp_path, "arc", shots=1)
    assert [(q.subject, q.key, len(q.options), q.answer) for q in found.questions] == [
        ("ARC-Easy", "arc_1", 4, 3), ("ARC-Easy", "arc_2", 3, 2), ("ARC-Easy", "arc_3", 5, 4),
    ]  # fmt: skip
    assert found.questions[0].demos[0].key == "arc_9"


def test_piqa(tmp_path: Path) -> None:
    rows = [{"goal": f"To {n}", "sol1": "a", "sol2": "b"} for n in range(3)]
    write_lines(tmp_path / "j" / "valid.jsonl", rows)
    write_text(tmp_path / "j" / "valid-labels.lst", "1\n0\n1\n")
    text = "goal,sol1,sol2,label\n" + "".join(f"To {n},a,b,{(n + 1) % 2}\n" for n in range(3))
    write_text(tmp_path / "c" / "val.csv", text)
    for folder in ("j", "c"):
        found = read_questions(tmp_path / folder, "piqa").questions
        assert [(q.subject, q.text, q.answer) for q in found] == [
            ("piqa", "To 0", 1), ("piqa", "To 1", 0), ("piqa", "To 2", 1),
        ]  # fmt: skip
    write_text(tmp_path / "j" / "valid-labels.lst", "1\n0\n")
    refuse("valid-labels.lst: expected 3 labels, got 2", tmp_path / "j", "piqa")
    (tmp_path / "j" / "valid-labels.lst").unlink()
    assert read_questions(tmp_path / "j", "piqa").questions[0].answer is None


def test_belebele(tmp_path: Path) -> None:
    """Without a part that shows answers, the first questions are shown, and do not count."""
    write_lines(tmp_path / "eng_Latn.jsonl", [make_belebele(n) for n in range(4)])
    found = read_questions(tmp_path, "belebele", shots=1)
    assert [(q.subject, q.text, q.answer) for q in found.questions] == [
        ("eng_Latn", f"Ada met Otto. Who {n}?", 1) for n in (1, 2, 3)
    ]
    assert (found.held_out, found.split) == (1, None)
    assert {q.demos[0].text for q in found.questions} == {"Ada met Otto. Who 0?"}
    text = "expected 4 questions with answers to show and others to ask, got 4"
    refuse(text, tmp_path, "belebele", shots=4)


def test_bbh(tmp_path: Path) -> None:
    """Options in letters, options with dashes, and labels that are those of all targets."""
    lettered = {"input": "Which?\nOptions:\n(A) one\n(B) two\n(C) three", "target": "(B)"}
    dashed = {"input": "Is it?\nOptions:\n- Yes\n- No", "target": "No"}
    counted = [{"input": f"How many {n}?", "target": str(n)} for n in (10, 9, 2)]
    words = [{"input": f"Sort {n}", "target": f"word {n}"} for n in range(27)]
    for name, rows in (("a", [lettered]), ("b", [dashed]), ("c", counted), ("d", words)):
        write_json(tmp_path / f"{name}.json", {"canary": "x", "examples": rows})
    found = read_questions(tmp_path, "bbh")
    assert [(q.subject, q.text, q.options, q.answer) for q in found.questions] == [
        ("a", "Which?", ("one", "two", "three"), 1),
        ("b", "Is it?", ("Yes", "No"), 1),
        *(("c", f"How many {n}?", ("2", "9", "10"), a) for n, a in ((10, 2), (9, 1), (2, 0))),
    ]
    assert found.left_out == (
        f"{tmp_path}/d.json: 27 different targets and no options: no choice among them",
    )
    write_json(tmp_path / "a.json", {"examples": [lettered, {**lettered, "target": "(D)"}]})
    refuse("a.json:7: expected one of (A), (B), (C) under 'target', got '(D)'", tmp_path, "bbh")


def test_real_files(data_dir: Path) -> None:
    found = read_questions(data_dir / "eval" / "mmlu_5shot", "mmlu", shots=5)
    assert (len(found.questions), {len(q.demos) for q in found.questions}) == (587, {5})
    found = read_questions(data_dir / "eval" / "ceval", "ceval", shots=5)
    subjects = Counter(q.subject for q in found.questions)
    assert (len(found.questions), len(subjects)) == (1346, 52)
    assert set(subjects) == {s for part in CATEGORIES["ceval"].values() for s in part}
    assert Counter("ABCD"[q.answer or 0] for q in found.questions)["D"] == 354


def test_subjects() -> None:
    for suite, count in (("mmlu", 57), ("cmmlu", 67), ("ceval", 52)):
        subjects = {subject for part in CATEGORIES[suite].values() for subject in part}
        assert len(subjects) == count
        if suite != "mmlu":
            assert not any(name_subject(suite, subject).isascii() for subject in subjects)
    assert set(CATEGORIES["ceval"]["Hard"]) < set(CATEGORIES["ceval"]["STEM"])


# What is refused.


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ans": "E"}, "expected one of A, B, C, D under 'ans', got 'E'"),
        ({"ans": "a"}, "expected one of A, B, C, D under 'ans', got 'a'"),
        ({"ans": None}, "expected a text under 'ans', got None"),
        ({"ans": "D", "opt_num": 3}, "expected one of A, B, C under 'ans', got 'D'"),
        ({"opt_num": 5}, "expected a text under 'res5', got nothing"),
        ({"opt_num": 2**70}, "expected opt_num from 2 to 26"),
        ({"opt_num": True}, "expected opt_num from 2 to 26, got True"),
        ({"res2": " "}, "option B is empty"),
        ({"question": ["x"]}, "expected a text under 'question', got ['x']"),
    ],
)
def test_pairs_that_cannot_be_used(tmp_path: Path, changes: Any, text: str) -> None:
    bad = {"demo": [], "data": make_data(2, **changes)}
    file = write_json(tmp_path / "law.json", [*make_pairs(2), bad, *make_pairs(1)])
    starts = [n for n, line in enumerate(file.read_text().split("\n"), 1) if line == " {"]
    refuse(f"law.json:{starts[2]}: {text}", tmp_path, "mmlu")
    found = read_questions(tmp_path, "mmlu", skip_bad_rows=True)
    assert (len(found.questions), found.bad_rows) == (3, 1)
    assert text in found.listed_bad_rows[0]


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "law_val.csv"
    for content, text in (
        (CEVAL + "0,q,a,b,c,d,E\n", "law_val.csv:2: expected one of A, B, C, D under 'answer'"),
        (CEVAL + "0,q,a,b,c,d,A\n0,r,a,b,c,d,A\n", ":3: the id '0' stands twice, first in line 2"),
        (CEVAL + "0,q,a,b,c,A\n", "law_val.csv:2: expected 7 columns: got 6"),
        (CEVAL.replace(",C", ""), "law_val.csv:1: expected columns question and A and B and C"),
        (CEVAL, "law_val.csv: the file holds no rows"),
        ("", "law_val.csv: the file holds no rows"),
        (CEVAL + '0,"q', "law_val.csv:2: not a record of CSV"),
        (CEVAL + "0,q,a,,c,d,A\n", "law_val.csv:2: option B is empty"),
    ):
        write_text(file, content)
        refuse(text, tmp_path, "ceval")
    file.write_bytes(CEVAL.encode() + b"0,\xff,a,b,c,d,A\n")
    refuse("not UTF-8", tmp_path, "ceval")


def test_lines_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    two = make_arc(1)
    two["question"]["choices"][1]["label"] = "A"
    for task, row, text in (
        ("arc", make_arc(1, answerKey="F"), "expected one of A, B, C, D under 'answerKey'"),
        ("arc", make_arc(1, question="x"), "expected an object under 'question'"),
        ("arc", two, "a label stands twice: A, A, C, D"),
        ("arc", make_arc(1, 1), "expected from 2 to 26 options, got 1"),
        ("belebele", make_belebele(1, correct_answer_num="0"), "expected one of 1, 2, 3, 4"),
        ("belebele", make_belebele(1, mc_answer3=None), "expected a text under 'mc_answer3'"),
        ("piqa", {"goal": "g", "sol1": "a"}, "expected a text under 'sol2', got nothing"),
        ("piqa", {"goal": "g", "sol1": "a", "sol2": "b", "label": 2}, "expected one of 0, 1"),
    ):
        write_lines(file, [row])
        refuse(f"a.jsonl:1: {text}", tmp_path, task)
    write_text(file, '{"a": NaN}\n')
    refuse("a.jsonl:1: not valid JSON", tmp_path, "arc")


def test_bbh_beside_other_keys(tmp_path: Path) -> None:
    """The list is that under the key, whatever else has its name."""
    row = '{"input": "Is it?\\nOptions:\\n- Yes\\n- No", "target": "Yes"}'
    others = ('"a": "examples", "b": [1]', '"a": {"examples": [1]}', '"examples ": [1, 2]')
    for other in others:
        write_text(tmp_path / "a.json", f'{{{other}, "examples" :\n [{row},\n{row}]}}')
        places = [q.place.rpartition(":")[2] for q in read_questions(tmp_path, "bbh").questions]
        assert places == ["2", "3"], other
    write_text(tmp_path / "a.json", f'{{"e\\u0078amples": [\n\n{row}]}}')
    assert read_questions(tmp_path, "bbh").questions[0].place.endswith("a.json:3")


def test_files_that_hold_no_questions(tmp_path: Path) -> None:
    refuse("No such file or directory", tmp_path / "none", "mmlu")
    refuse("no questions of mmlu (*.json) in it", tmp_path, "mmlu")
    file = tmp_path / "law.json"
    for content, text in (
        ("[]", "law.json: it holds no questions"),
        ("{}", "law.json: not questions: expected a list"),
        ("[1]", "law.json:1: expected an object, got 1"),
        ("[" * 200_000, "law.json: not questions: lists or objects are nested too deeply"),
        ('[{"a": 1, "a": 2}]', "law.json: not questions: the key 'a' stands twice"),
        ("", "law.json: not questions: "),
        (r'[{"data": {"question": "\ud800"}}]', "law.json: not questions: holds a lone surrogate"),
    ):
        write_text(file, content)
        refuse(text, tmp_path, "mmlu")
    write_text(file, '{"examples": 1}')
    refuse("expected an object with a list 'examples'", tmp_path, "bbh")
    write_json(file, make_pairs(2, demos=1))
    refuse("law.json:2: expected 2 demonstrations under 'demo', got 1", tmp_path, "mmlu", shots=2)
    refuse("shots must be at least 0: got -1", tmp_path, "mmlu", shots=-1)
    refuse("task must be one of mmlu, cmmlu", tmp_path, "sat")
    refuse("split must be one of dev, train", tmp_path, "mmlu", split="all")
    text = "no files of the split 'val': the names of the files say none"
    refuse(text, tmp_path, "mmlu", split="val")
    refuse("expected a file of ceval (.csv, .json)", write_text(tmp_path / "a.txt", ""), "ceval")
    write_json(file, make_pairs(2, ans="E"))
    with pytest.raises(ValueError, match="there are no questions that can be used"):
        read_questions(file, "mmlu", skip_bad_rows=True)
