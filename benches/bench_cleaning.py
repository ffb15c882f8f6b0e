"""Cleaning in the core against its definition and against regular expressions, on one core.

The texts are those of `LMCORE_DATA/corpora`, repeated under new numbers, where it names them, and
else made here. Rates are in the files: milliseconds of so many megabytes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from lmcore.openba.cleaned_files import clean_files
from lmcore.openba.cleaning import CleanConfig, Duplicates, clean_texts, remove_duplicates
from lmcore.ops import cleaning
from lmcore.reference import cleaning as reference
from timing import Row, compare, print_conditions, save, scale

MEGABYTES = 10
#: The definition runs on a part of the texts, and its time is scaled.
PART = 50
FILES = {"English": "en/tinyshakespeare.txt", "Chinese": "zh/hongloumeng.txt"}
SENTENCES = {
    "English": "It rains in the north today, and {} of us stay at home with a book of {} pages. ",
    "Chinese": "今天北方下雨，我们{}个人都在家里看书，没有人出去，书有{}页。",
}


def find_texts(language: str) -> tuple[list[str], str]:
    """Returns texts of about 10 MB, a tenth with what rules remove, and where they are from."""
    file = Path(os.environ.get("LMCORE_DATA", "."), "corpora", FILES[language])
    if file.is_file():
        lines = file.read_text(encoding="utf-8").split("\n\n" if language == "English" else "\n")
        parts = [line.replace("\n", " ") for line in lines if line.strip()]
    else:
        parts = [SENTENCES[language].format(k, k + 1) * 4 for k in range(1000)]
    texts, size = [], 0
    while size < MEGABYTES * 10**6:
        number = len(texts)
        text = f"{parts[number % len(parts)]} {number}"
        if number % 10 == 0:
            text = f"<p>{text}</p> see https://a.org/x?y={number} or mail a{number}@b.com"
        texts.append(text)
        size += len(text.encode())
    return texts, file.name if file.is_file() else "made"


def clean_rows(language: str, texts: list[str], case: str) -> list[Row]:
    """Times the rules on texts in memory, against the definition."""
    some = texts[::PART]
    expected = [found.text for found in reference.clean_texts(some)]
    assert cleaning.clean_texts(texts, threads=1).texts[::PART] == expected
    rows = compare(
        "cleaning",
        f"{case}, all rules but languages",
        (f"the definition, scaled from every {PART}th text", lambda: reference.clean_texts(some)),
        ("1 thread", lambda: cleaning.clean_texts(texts, threads=1), ""),
        rounds=3,
    )
    return [scale(row, len(texts) / len(some)) for row in rows]


def clean_file_rows(texts: list[str], case: str, folder: Path) -> list[Row]:
    """Times from file to file, with duplicates, against the same in memory."""
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    file, out = folder / "a.jsonl", folder / "out"
    file.write_text("\n".join(rows), encoding="utf-8")

    def in_memory() -> list[str | None]:
        config, seen = CleanConfig(), Duplicates()
        cleaned = clean_texts(texts, config, threads=1)
        return remove_duplicates(cleaned.texts, seen, config, threads=1).texts

    def from_file_to_file() -> list[str]:
        clean_files([file], out, threads=1)
        lines = (out / "a.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines]

    assert [text for text in in_memory() if text is not None] == from_file_to_file()
    megabytes = file.stat().st_size / 10**6
    found = compare(
        "cleaning",
        f"{case} and duplicates, {megabytes:.1f} MB of JSONL",
        ("in memory, 1 thread", in_memory),
        ("from file to file, 1 thread", lambda: clean_files([file], out, threads=1), ""),
        rounds=3,
        repeats=1,
    )
    for row in found:
        print(f"{megabytes / row.opponent_median * 1000:.1f} MB/s in memory", end=", ")
        print(f"{megabytes / row.ours_median * 1000:.1f} MB/s from file to file")
    return found


def language_rows(texts: list[str], case: str) -> list[Row]:
    """Times the filter of languages, whose library has a speed of its own, against none."""
    config = CleanConfig(languages=("en", "zh"))
    some = texts[::PART]
    try:
        clean_texts(some[:1], config)
    except ImportError as error:
        print(error)
        return []
    megabytes = sum(len(text.encode()) for text in some) / 10**6
    found = compare(
        "cleaning",
        f"{case}, every {PART}th text, {megabytes:.2f} MB",
        ("with languages by py3langid", lambda: clean_texts(some, config, threads=1)),
        ("all rules but languages", lambda: clean_texts(some, threads=1), ""),
        rounds=3,
    )
    print(f"{megabytes / found[0].opponent_median * 1000:.1f} MB/s with languages")
    return found


def main() -> None:
    """Runs all cases."""
    print_conditions()
    kept = []
    for language in FILES:
        texts, origin = find_texts(language)
        megabytes = sum(len(text.encode()) for text in texts) / 10**6
        case = f"{megabytes:.0f} MB of {language} ({origin})"
        kept += clean_rows(language, texts, case)
        with tempfile.TemporaryDirectory() as folder:
            kept += clean_file_rows(texts, case, Path(folder))
        kept += language_rows(texts, case)
    if "--dry" not in sys.argv[1:]:
        save("cleaning", kept)


if __name__ == "__main__":
    main()
