"""Rows of predictions: drawn ones, generated ones, and JSON written in any style."""

import itertools
import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from strategies import PECULIAR_WORDS, TYPES, bio_labels, generations, sentences, write_generation

VALID = {
    "label_list": ["x", "y"],
    "words": ["in", "New", "York"],
    "labels": ["O", "B-x", "I-x"],
    "prediction": "in(O) New(B-x) York(I-x)",
}


@dataclass(frozen=True)
class Raw:
    """JSON as it stands, and an object that may hold a key twice."""

    text: str = ""
    pairs: tuple[tuple[str, Any], ...] = ()


# Values under keys that nobody reads.
UNREAD = [
    *("0", "-1", "17", "1.5", "-0.0", "1e5", "1E-7", "123456789012345678901234567890", "1e999"),
    *("true", "false", "null", "[]", "{}", "[1, [2, [3]], {}]", '{"words": [1], "a": {"b": null}}'),
    *(r'"\u00e9\n\"\\\/\b\f\r\t"', r'"\ud83d\ude00"', r'"\ud800"', r'["\udc00x", "\ud800\ud800"]'),
    *('""', '"]}"', '"words"', '[["x"], "}"]', '"' + "long " * 50 + '"', "[" * 60 + "]" * 60),
]
# Values of the wrong type, with the name that an error gives them.
WRONG_TEXTS = ["null", "true", "1", "-1.5", "[]", '["a"]', "{}", '{"a": 1}']
WRONG_LISTS = [
    *("null", "false", "0", "1.5", '"a"', '""', "{}", '{"0": "a"}'),
    *("[1]", '["a", null]', '["a", "b", true]', '[["a"]]', '["a", {"b": 1}, 2]', "[2.5]"),
]


def write_json(value: Any, source: random.Random, plain: bool = False) -> str:
    """Writes JSON as `json.dumps` does, or with white space and escapes wherever JSON allows."""
    if plain:
        return _write(value, lambda: "", lambda text: json.dumps(text, ensure_ascii=False))
    ascii_only = source.random() < 0.5

    def space() -> str:
        return source.choice(["", "", "", " ", " ", "  ", "\t", "\r", " \t "])

    def string(text: str) -> str:
        if source.random() < 0.6:
            return json.dumps(text, ensure_ascii=ascii_only)
        return '"' + "".join(map(_escape, text)) + '"'

    def _escape(character: str) -> str:
        if source.random() < 0.2:
            units = character.encode("utf-16-be")
            pairs = (units[k : k + 2].hex() for k in range(0, len(units), 2))
            return "".join(
                rf"\u{unit if source.random() < 0.5 else unit.upper()}" for unit in pairs
            )
        if character == "/" and source.random() < 0.5:
            return r"\/"
        return json.dumps(character, ensure_ascii=ascii_only)[1:-1]

    return _write(value, space, string)


def _write(value: Any, space: Any, string: Any) -> str:
    match value:
        case Raw(text=text) if text:
            return text
        case Raw() | dict():
            pairs = value.pairs if isinstance(value, Raw) else value.items()
            entries = [
                f"{string(key)}{space()}:{space()}{_write(item, space, string)}"
                for key, item in pairs
            ]
            return f"{{{space()}{f'{space()},{space()}'.join(entries)}{space()}}}"
        case list():
            items = [_write(item, space, string) for item in value]
            return f"[{space()}{f'{space()},{space()}'.join(items)}{space()}]"
        case str():
            return str(string(value))
        case _:
            return json.dumps(value)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Usable rows with flat keys."""
    words = draw(sentences(max_size=10))
    label_list = draw(st.lists(st.sampled_from(TYPES), max_size=4))
    size = len(words)
    row: dict[str, Any] = {
        draw(st.sampled_from(["types", "label_list"])): label_list,
        "words": words,
        "labels": draw(bio_labels(size, label_list)) if label_list else ["O"] * size,
        "prediction": draw(
            st.one_of(
                generations(words, label_list),
                st.just(write_generation([(word, "O") for word in words])),
                st.just(""),
            )
        ),
    }
    dataset = draw(st.sampled_from([None, None, "one", "two", "北", "a\nb", ""]))
    return row if dataset is None else {"dataset": dataset, **row}


@st.composite
def objects(draw: st.DrawFn, row: dict[str, Any], usable: bool) -> Raw:
    """The row as an object: nested or flat, keys in any order, and unread ones.

    One that need not be usable may have keys twice, and in both places.
    """
    outer = dict(row)
    pairs: list[tuple[str, Any]] = []
    if draw(st.booleans()):
        moved = draw(st.sampled_from([["words"], ["labels"], ["words", "labels"]]))
        inner = [(key, outer.pop(key)) for key in moved if key in outer]
        if not usable and draw(st.booleans()):  # which of the two counts cannot be known
            pairs += [(key, Raw(draw(st.sampled_from(WRONG_LISTS)))) for key in moved]
        unread = ["id", "text"]
        pairs.append(("instance", Raw(pairs=tuple(draw(_disturbed(inner, unread, usable))))))
    pairs += outer.items()
    unread = ["split", "score", "meta", "Words", ""]
    return Raw(pairs=tuple(draw(_disturbed(pairs, unread, usable))))


@st.composite
def _disturbed(
    draw: st.DrawFn, pairs: list[tuple[str, Any]], unread: list[str], usable: bool
) -> list[tuple[str, Any]]:
    pairs = draw(st.permutations(pairs))
    for key in draw(st.lists(st.sampled_from(unread), max_size=2)):
        place = draw(st.integers(0, len(pairs)))
        pairs.insert(place, (key, Raw(draw(st.sampled_from(UNREAD)))))
    if pairs and not usable and draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(pairs) - 1))
        wrong = draw(st.sampled_from([*WRONG_LISTS, *WRONG_TEXTS, '["x"]', '"x"']))
        pairs.insert(draw(st.integers(0, len(pairs))), (pairs[place][0], Raw(wrong)))
    return pairs


@st.composite
def lines(draw: st.DrawFn, row: dict[str, Any] | None = None, usable: bool = True) -> bytes:
    """A usable row as a line of JSON in any style."""
    value = draw(objects(draw(rows()) if row is None else row, usable))
    source = random.Random(draw(st.integers(0, 2**32)))
    return write_json(value, source, plain=draw(st.booleans())).encode()


@st.composite
def bad_lines(draw: st.DrawFn) -> bytes:
    """A line with one or more faults; a lone surrogate only as the single one."""
    row: dict[str, Any] = draw(rows())
    if draw(st.integers(0, 4)) == 0:
        keys = ["dataset", "types", "label_list", "words", "labels", "prediction"]
        key = draw(st.sampled_from(keys))
        half = draw(st.sampled_from([r"\ud800", r"\udfff", r"\ud83d\n", r"\ud800\u0041"]))
        text = f'"a{half}b"'
        for name in {"types", "label_list"} - {key} if key in ("types", "label_list") else ():
            row.pop(name, None)
        row[key] = Raw(text if key in ("dataset", "prediction") else f"[{text}]")
        return write_json(row, random.Random(0), plain=draw(st.booleans())).encode()
    for key in draw(st.lists(st.sampled_from(sorted(row)), max_size=2)):
        if draw(st.booleans()):
            row.pop(key, None)
        else:
            wrong = WRONG_TEXTS if key in ("dataset", "prediction") else WRONG_LISTS
            row[key] = Raw(draw(st.sampled_from(wrong)))
    if isinstance(row.get("labels"), list) and draw(st.booleans()):
        labels = draw(st.sampled_from(["O", "B-unknown", "o", "", "'", '"', "'\"", "\\", "\x1f"]))
        row["labels"] = [*row["labels"][1:], *[labels] * draw(st.integers(0, 2))]
    line = draw(lines(row, usable=False))
    match draw(st.integers(0, 5)):
        case 0:
            place = draw(st.integers(0, len(line)))
            line = line[:place] + draw(st.binary(max_size=2)) + line[place:]
        case 1:
            line = line[: draw(st.integers(0, len(line)))]
    return line.replace(b"\n", b" ")


def make_rows(count: int, seed: int = 0, datasets: Sequence[str] = ("one",)) -> list[Any]:
    """Returns rows of which a third are faithful, a third damaged and a third worse."""
    source = random.Random(seed)
    pool = [f"word{k}" for k in range(200)] + [w for w in PECULIAR_WORDS if w]
    made = []
    for _ in range(count):
        words = source.choices(pool, k=source.randrange(30))
        labels = [source.choice(["O", "O", "O", "B-x", "I-x", "B-y"]) for _ in words]
        pairs = list(zip(words, labels, strict=True))
        for _ in range(source.choice([0, 1, 8])):
            place = source.randint(0, len(pairs))
            pair = (source.choice(pool), source.choice(["O", "B-x", "B-y", "I-z"]))
            pairs[place : place + source.randrange(2)] = [pair]
            if place < len(words):
                pairs[place] = (words[place], source.choice(["O", "B-x", "B-y"]))
        made.append(
            {
                "dataset": source.choice(datasets),
                "label_list": source.choice([["x", "y"], ["y", "x"], ["x", "y", "unused"]]),
                "words": words,
                "labels": labels,
                "prediction": write_generation(pairs),
            }
        )
    return made


def write_rows(path: Path, made: Iterable[Any]) -> Path:
    """Writes one object per line; bytes are written as they are."""
    with path.open("wb") as file:
        for row in made:
            line = row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()
            file.write(line + b"\n")
    return path


def interrupt_reader(
    process: subprocess.Popen[str], pipe: Path, number: int = signal.SIGINT
) -> tuple[str, str]:
    """Feeds a process that reads a named pipe, sends a signal, and returns what it printed.

    The pipe is fed as long as it is read: it stands for a file of any size.
    """
    reading = threading.Event()

    def feed() -> None:
        chunk = (json.dumps(VALID) + "\n").encode() * 1000
        try:
            with pipe.open("wb", buffering=0) as file:
                for written in itertools.count():
                    file.write(chunk)
                    if written == 20:  # some blocks
                        reading.set()
        except BrokenPipeError:
            pass

    threading.Thread(target=feed, daemon=True).start()
    try:
        assert reading.wait(timeout=60)
        began = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 5
    finally:
        process.kill()
        process.communicate()
    return output, errors
