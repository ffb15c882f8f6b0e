"""Random calls of everything that `lmcore._core` and `lmcore.ops` offer.

A call is a function of (target, seed): arguments that belong together, of which some are changed
or exchanged for something else. It must return or raise one of a few kinds of error; a panic,
another kind, an abort or no answer is a failure. Calls are made in a process of their own, with
bounded memory, so that its end is seen and told.

    python tests/random_calls.py --examples 1000 --seed 1 [--only negatives]
"""

import argparse
import contextlib
import importlib
import inspect
import json
import math
import os
import pkgutil
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lmcore.ops
from lmcore import _core
from lmcore.ops.entities import SCHEMES
from lmcore.ops.negatives import DISTRIBUTIONS, ORDERS, Batch, PackedBatch
from lmcore.ops.ranking import TIES

# Address space that a process of calls may take besides what it starts with.
MEMORY_BYTES = 3 << 30
TIMEOUT_SECONDS = 120

CORE_ERRORS = (TypeError, ValueError, IndexError, OverflowError, MemoryError, OSError)
# In Python a wrong type is what lacks an attribute or a key; a number too large is a wrong value.
OPS_ERRORS = (TypeError, ValueError, IndexError, MemoryError, OSError, AttributeError, KeyError)

Arguments = tuple[list[Any], dict[str, Any]]


class Target(NamedTuple):
    """What is called, and by which class it is a method or a property."""

    name: str
    owner: type | None
    function: Any
    errors: tuple[type[Exception], ...]


def find_targets() -> dict[str, Target]:
    """Returns all that can be called, found by looking: nothing can be left out."""
    targets: dict[str, Target] = {}

    def add(prefix: str, name: str, value: Any, errors: tuple[type[Exception], ...]) -> None:
        targets[f"{prefix}.{name}"] = Target(f"{prefix}.{name}", None, value, errors)
        if not inspect.isclass(value):
            return
        for method, function in vars(value).items():
            is_used = callable(function) or inspect.isdatadescriptor(function)
            if method[0] != "_" and is_used:
                full = f"{prefix}.{name}.{method}"
                targets[full] = Target(full, value, function, errors)

    for name in _core.__all__:
        if name[0] != "_":
            add("_core", name, getattr(_core, name), CORE_ERRORS)
    for found in pkgutil.iter_modules(lmcore.ops.__path__):
        if found.name[0] == "_":
            continue
        module = importlib.import_module(f"lmcore.ops.{found.name}")
        for name, value in vars(module).items():
            is_own = getattr(value, "__module__", None) == module.__name__
            is_record = isinstance(value, type) and issubclass(value, tuple)
            if name[0] != "_" and is_own and callable(value) and not is_record:
                add(found.name, name, value, OPS_ERRORS)
    return targets


# Arguments that belong together, for each target.

WORDS = ["a", "b", "The", "cat", "é", "北京", "U.S.", "", "(", "İ", "👍🏽", " "]
LABELS = ["O", "O", "B-x", "I-x", "B-y", "I-y"]


def sentence(source: random.Random, size: int | None = None) -> list[str]:
    size = source.randrange(8) if size is None else size
    return [source.choice(WORDS) for _ in range(size)]


def labels(source: random.Random, size: int) -> list[str]:
    return [source.choice(LABELS) for _ in range(size)]


def generation(source: random.Random, words: list[str]) -> str:
    return " ".join(f"{w}({source.choice(LABELS)})" for w in words if source.random() < 0.9)


def threads(source: random.Random) -> int | None:
    return source.choice([None, 1, 2, 3])


def row(source: random.Random) -> dict[str, Any]:
    words = sentence(source)
    return {
        "words": words,
        "labels": labels(source, len(words)),
        "label_list": ["x", "y"],
        "prediction": generation(source, words),
    }


def tokenize(source: random.Random) -> Any:
    return source.choice([None, None, lambda words: words, lambda words: words[1:], lambda _: 1])


def write_rows(source: random.Random) -> str:
    name = f"rows{source.randrange(4)}.jsonl"
    lines = [json.dumps(row(source)) for _ in range(source.randrange(5))]
    if source.random() < 0.3:
        lines.append(source.choice(["{", "[]", "nul", '{"words": 1}', "\x00", "[" * 3000]))
    Path(name).write_text("\n".join(lines), encoding="utf-8")
    return name


def integers(source: random.Random, shape: Any, least: int, end: int, dtype: Any = np.int64) -> Any:
    generator = np.random.default_rng(source.randrange(2**32))
    return generator.integers(least, end, shape).astype(dtype)


def histories(source: random.Random) -> tuple[Any, Any, int]:
    item_count = source.choice([5, 64, 200, 5000, 2**31 - 1])
    sizes = [source.randrange(5) for _ in range(source.randrange(1, 5))]
    items = integers(source, sum(sizes), 1, item_count + 1)
    return np.cumsum([0, *sizes]), items, item_count


SAMPLER = {"batch_size": 3, "max_length": 4, "negative_count": 5}


def sampler_arguments(source: random.Random) -> list[Any]:
    offsets, items, item_count = histories(source)
    weights = None
    if item_count <= 5000 and source.random() < 0.3:
        weights = integers(source, item_count, 0, 9, np.uint32)
    order = source.choice(ORDERS)
    settings = [*SAMPLER.values(), source.randrange(2**64), order, threads(source)]
    return [offsets, items, weights, item_count, *settings]


def batch_arrays(source: random.Random, *, packed: bool) -> list[Any]:
    rows, length, count = SAMPLER.values()
    kind = source.choice([np.int64, np.int32])
    arrays = [np.full(shape, 7, kind) for shape in ((rows,), (rows, length), (rows, length))]
    if packed:
        return [*arrays, np.full(rows * length, 7), np.full((rows * length, count), 7, kind)]
    return [*arrays, np.full((rows, length, count), 7, kind)]


def memory_batch(source: random.Random, *, packed: bool) -> list[Any]:
    rows, length, count = source.randrange(4), source.randrange(1, 5), source.randrange(4)
    users = integers(source, rows, 1, 5)
    starts = integers(source, (rows, 1), 0, length + 1)
    positives = np.where(np.arange(length) >= starts, 9, 0)
    kind = source.choice([np.int64, np.int32])
    negatives = integers(source, (rows, length, count), 1, 9, kind)
    if packed:
        places = np.flatnonzero(positives)
        return [users, places, length, negatives.reshape(rows * length, count)[places].copy()]
    return [users, positives, negatives]


def memory_scores(source: random.Random, negatives: Any, *, raw: bool) -> Any:
    shape = (*negatives.shape[:-1], negatives.shape[-1] + 1)
    scores = integers(source, shape, 0, 4, source.choice([np.float32, np.float64]))
    if source.random() < 0.3:
        mask = scores[..., 1:] > scores[..., :1]
        return np.ascontiguousarray(mask).view(np.uint8) if raw else mask
    return scores


def observed_batch(source: random.Random, *, packed: bool) -> list[Any]:
    batch = memory_batch(source, packed=packed)
    scores = memory_scores(source, batch[-1], raw=True)
    coordinates = integers(source, (source.choice([0, 0, 0, 1]), 3), 0, 3)
    return [*batch, scores, coordinates]


def memory_state(source: random.Random) -> list[Any]:
    size, counts = source.randrange(4), source.randrange(5)
    keys = np.unique(integers(source, size, 256, 2000, np.uint32))
    offsets = np.cumsum([0, *([2] * len(keys))])
    items = integers(source, 2 * len(keys), 1, 9, np.uint32)
    held = np.unique(integers(source, counts, 1, 9, np.uint64)) + np.uint64(2**40)
    times = integers(source, len(held), 1, 9, np.uint32)
    return [keys, offsets, items, held, times, source.randrange(3)]


def ranking_arguments(source: random.Random) -> list[Any]:
    users, width = source.choice([0, 1, 3, 300]), source.choice([1, 3, 64, 65])
    scores = integers(source, (users, width), 0, 9, source.choice([np.float32, np.float64]))
    sizes = integers(source, users, 0, 3)
    offsets = np.cumsum([0, *sizes])
    targets = integers(source, users, 0, width)
    return [scores, targets, offsets, integers(source, offsets[-1], 0, width)]


def draw_arguments(source: random.Random) -> list[Any]:
    items = integers(source, (source.randrange(4),) * source.randrange(3), 0, 2**63, np.uint64)
    return [source.randrange(2**64), source.randrange(2**32), items, source.randrange(9)]


def words_of(source: random.Random, count: int) -> list[Any]:
    return [source.randrange(2**32) for _ in range(count)]


def tagged(source: random.Random) -> list[Any]:
    words = sentence(source)
    return [words, labels(source, len(words)), labels(source, len(words))]


def batch_of(source: random.Random, make: Callable[[random.Random], list[Any]]) -> list[Any]:
    rows = [make(source) for _ in range(source.choice([0, 1, 3, 300]))]
    return [list(column) for column in zip(*rows, strict=True)] or [[], [], []]


def matched(source: random.Random) -> list[Any]:
    words = sentence(source)
    return [words, generation(source, words), ["x", "y"]]


def lower(words: list[str]) -> list[str]:
    return [word.lower() for word in words]


def core_arguments() -> dict[str, Callable[[random.Random], list[Any]]]:
    """Returns what makes the arguments of each function and method of the compiled module."""

    def scheme(s: random.Random) -> str:
        return s.choice(SCHEMES)

    def skip(s: random.Random) -> bool:
        return s.random() < 0.5

    def rows(s: random.Random) -> list[Any]:
        return [row(s) for _ in range(s.randrange(4))]

    def progress(s: random.Random) -> Any:
        return s.choice([None, lambda _: None])

    def files(s: random.Random) -> list[Any]:
        return [scheme(s), threads(s), s.randrange(3), skip(s), tokenize(s), progress(s)]

    def below(s: random.Random) -> list[Any]:
        seed, stream, items, count = draw_arguments(s)
        return [seed, stream, items, s.randrange(9), count]

    def places(s: random.Random) -> list[Any]:
        scores, *rest = ranking_arguments(s)
        return [scores.shape[1], *rest]

    return {
        "most_threads": lambda s: [],
        "split_words": lambda s: [" ".join(sentence(s))],
        "locate_words": lambda s: (lambda w: [" ".join(w), w])(sentence(s)),
        "normalize_text": lambda s: [" ".join(sentence(s))],
        "longest_common_subsequence_strings": lambda s: [sentence(s), sentence(s)],
        "longest_common_subsequence_integers": lambda s: [
            integers(s, s.choice([0, 3, 65, 300]), 0, 9) for _ in range(2)
        ],
        "parse_generation": lambda s: [generation(s, sentence(s))],
        "align_words": lambda s: [sentence(s), sentence(s)],
        "match_labels": lambda s: (lambda m: [*m, s.choice([None, lower(m[0])]), skip(s)])(
            matched(s)
        ),
        "match_labels_batch": lambda s: [*batch_of(s, matched), None, threads(s)],
        "decode_spans": lambda s: [labels(s, s.randrange(9)), scheme(s)],
        "count_entities": lambda s: [*tagged(s), scheme(s)],
        "classify_errors": lambda s: [*tagged(s)[1:], scheme(s)],
        "count_entities_batch": lambda s: [*batch_of(s, tagged), scheme(s), threads(s)],
        "compute_quality": lambda s: [s.randrange(9), s.randrange(9), s.randrange(9), scheme(s)],
        "score_examples": lambda s: [rows(s), *files(s)[:-1]],
        "score_files": lambda s: [[write_rows(s)], *files(s)],
        "align_file": lambda s: [write_rows(s), "aligned.jsonl", *(f := files(s))[:2], *f[3:]],
        "align_row": lambda s: [json.dumps(row(s)), scheme(s)],
        "philox4x32": lambda s: [words_of(s, 4), words_of(s, 2)],
        "random_bits": below,
        "random_uniform": below,
        "random_below": lambda s: [*below(s), s.randrange(1, 99)],
        "rank_targets": lambda s: [*ranking_arguments(s), s.choice(TIES), threads(s)],
        "list_excluded": places,
        "ranking_metrics": lambda s: [integers(s, s.randrange(1, 9), 0, 9, np.float64), [1, 5]],
        "SequenceSampler": sampler_arguments,
        "SequenceSampler.sample": lambda s: [
            *(s.randrange(3), 0, *batch_arrays(s, packed=False)),
            integers(s, s.choice([0, 3]), 0, 2),
        ],
        "SequenceSampler.sample_packed": lambda s: [
            *(s.randrange(3), 0, *batch_arrays(s, packed=True))
        ],
        "SequenceSampler.candidates": lambda s: [
            np.array([1, 1]), integers(s, s.choice([0, 2, 4]), 0, 5), s.randrange(2**64),
            np.zeros((2, s.randrange(70)), np.int64),
        ],
        "FalseNegativeMemory": lambda s: [s.choice([None, 0, 5]), s.choice([None, 1, 9])],
        "FalseNegativeMemory.inject": lambda s: memory_batch(s, packed=False),
        "FalseNegativeMemory.inject_packed": lambda s: memory_batch(s, packed=True),
        "FalseNegativeMemory.observe": lambda s: observed_batch(s, packed=False),
        "FalseNegativeMemory.observe_packed": lambda s: observed_batch(s, packed=True),
        "FalseNegativeMemory.state": lambda _: [],
        "FalseNegativeMemory.load": memory_state,
    }  # fmt: skip


def ops_arguments() -> dict[str, Callable[[random.Random], Arguments]]:
    """Returns what makes the arguments of each function and method of `lmcore.ops`."""
    from lmcore.ops.entities import EntityCounts

    core = core_arguments()

    def as_core(name: str, *keywords: str) -> Callable[[random.Random], Arguments]:
        def make(source: random.Random) -> Arguments:
            values = core[name](source)
            cut = len(values) - len(keywords)
            return values[:cut], dict(zip(keywords, values[cut:], strict=True))

        return make

    def draws(source: random.Random) -> Arguments:
        return draw_arguments(source), {"position": source.randrange(9)}

    def sampler(source: random.Random) -> Arguments:
        offsets, items, item_count = histories(source)
        changes = {"distribution": source.choice(DISTRIBUTIONS), "exponent": 0.75}
        if item_count > 5000:
            changes = {}
        more = {"seed": 1, "order": source.choice(ORDERS), "threads": threads(source)}
        return [offsets, items, item_count], SAMPLER | changes | more

    def sample(source: random.Random, kind: Any) -> Arguments:
        packed = kind is PackedBatch
        out = kind(*batch_arrays(source, packed=packed)) if source.random() < 0.7 else None
        return [source.randrange(3), 0], {"out": out}

    def reversed_rows(coordinates: Any) -> Any:
        from lmcore.ops.false_negatives import Reversed

        size = len(coordinates)
        return Reversed(coordinates, np.ones(size, np.uint32), np.zeros(size, np.int64))

    def observed(source: random.Random, *, packed: bool) -> Arguments:
        batch = memory_batch(source, packed=packed)
        scores = memory_scores(source, batch[-1], raw=False)
        return [*batch, scores, reversed_rows(integers(source, (0, 3), 0, 3))], {}

    def state(source: random.Random) -> Arguments:
        names = ("hard_keys", "hard_offsets", "hard_items", "count_keys", "counts")
        *arrays, evicted = memory_state(source)
        given = dict(zip(names, arrays, strict=True))
        return [{**given, "evicted_count": np.array(evicted)}], {}

    files = ("scheme", "threads", "worst", "skip_bad_rows", "back_tokenize", "progress")
    memory = "FalseNegativeMemory"
    return {
        "words.split_words": as_core("split_words"),
        "words.locate_words": as_core("locate_words"),
        "lcs.longest_common_subsequence": lambda s: as_core(
            f"longest_common_subsequence_{s.choice(['strings', 'integers'])}"
        )(s),
        "matching.parse_generation": as_core("parse_generation"),
        "matching.align_words": as_core("align_words"),
        "matching.match_labels": as_core("match_labels", "comparison_words", "split_generated"),
        "matching.match_labels_batch": as_core(
            "match_labels_batch", "comparison_words", "threads"
        ),
        "entities.decode_spans": as_core("decode_spans"),
        "entities.normalize_text": as_core("normalize_text"),
        "entities.count_entities": as_core("count_entities"),
        "entities.classify_errors": as_core("classify_errors"),
        "entities.count_entities_batch": lambda s: (
            lambda v: ([v[1], v[2], v[0]], {"threads": threads(s)})
        )(batch_of(s, tagged)),
        "entities.compute_quality": lambda s: (
            [EntityCounts(*(s.randrange(9) for _ in range(3))), s.choice(SCHEMES)],
            {},
        ),
        "predictions.score_examples": as_core("score_examples", *files[:-1]),
        "predictions.score_files": as_core("score_files", *files),
        "predictions.align_file": as_core("align_file", *files[:2], *files[3:]),
        "predictions.align_row": lambda s: ([row(s), s.choice(SCHEMES)], {}),
        "philox.philox4x32": as_core("philox4x32"),
        "philox.random_bits": draws,
        "philox.random_uniform": draws,
        "philox.random_below": lambda s: (lambda a, k: ([*a, s.randrange(1, 99)], k))(*draws(s)),
        "ranking.rank_targets": as_core("rank_targets", "ties", "threads"),
        "ranking.ranking_metrics": as_core("ranking_metrics"),
        "negatives.SequenceSampler": sampler,
        "negatives.SequenceSampler.sample": lambda s: sample(s, Batch),
        "negatives.SequenceSampler.sample_packed": lambda s: sample(s, PackedBatch),
        "negatives.SequenceSampler.candidates": lambda s: (
            [[1, 1], s.randrange(70)],
            {"seed": s.choice([None, 5]), "exclude": integers(s, (2, s.randrange(3)), 0, 5)},
        ),
        f"false_negatives.{memory}": lambda s: (
            [],
            dict(zip(("threshold", "max_keys"), core[memory](s), strict=True)),
        ),
        f"false_negatives.{memory}.inject": as_core(f"{memory}.inject"),
        f"false_negatives.{memory}.inject_packed": as_core(f"{memory}.inject_packed"),
        f"false_negatives.{memory}.observe": lambda s: observed(s, packed=False),
        f"false_negatives.{memory}.observe_packed": lambda s: observed(s, packed=True),
        f"false_negatives.{memory}.state_dict": lambda _: ([], {}),
        f"false_negatives.{memory}.load_state_dict": state,
    }  # fmt: skip


def find_arguments() -> dict[str, Callable[[random.Random], Arguments]]:
    """Returns what makes the arguments of each target that is no property."""

    def without_keywords(make: Callable[[random.Random], list[Any]]) -> Any:
        return lambda source: (make(source), {})

    core = {f"_core.{name}": without_keywords(make) for name, make in core_arguments().items()}
    return core | ops_arguments()


# What arguments are exchanged for.

EXTREMES = sorted(
    {s * (2**k + d) for k in (0, 1, 7, 8, 16, 24, 31, 32, 33, 40, 45, 53, 61, 62, 63, 64, 70)
     for d in (-1, 0, 1) for s in (-1, 1)}
)  # fmt: skip
DTYPES = ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32",
          "float64", "bool", "complex64", "O", "U3", "S2", "M8[s]", "i4,f8"]  # fmt: skip
TEXTS = ["", "a", "\ud800", "\0", "gner", "shuffle", "average", "B-x", "(", "x" * 5000, "İ\u0301"]


class Shorter(list[Any]):
    """A list that says it is longer than it is."""

    def __len__(self) -> int:
        return super().__len__() + 3


class Failing:
    """Something whose items cannot be had."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        raise ValueError("no items here")


class Text(str):
    """A kind of `str`."""

    __slots__ = ()


def wild_array(source: random.Random) -> Any:
    """Returns an array of any kind, shape and layout."""
    shape = tuple(source.choice([0, 1, 2, 3, 5, 64]) for _ in range(source.randrange(4)))
    array = np.zeros(shape, source.choice(DTYPES))
    with contextlib.suppress(TypeError, ValueError):
        array[...] = integers(source, shape, -2, 9)
    if source.random() < 0.6:
        with contextlib.suppress(TypeError, ValueError):
            return change_layout(source, array)
    return array


def change_layout(source: random.Random, array: Any) -> Any:
    """Returns the same values, or a view of 2**40 of them, laid out in another way."""
    match source.randrange(8):
        case 0:
            packed = np.zeros(array.nbytes + 1, np.uint8)
            if array.dtype.hasobject:
                return array
            unaligned = packed[1:].view(array.dtype).reshape(array.shape)
            unaligned[...] = array
            return unaligned
        case 1:
            return array.astype(array.dtype.newbyteorder())
        case 2:
            array = array.copy()
            array.flags.writeable = False
            return array
        case 3:
            return np.asfortranarray(array)
        case 4:
            return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
        case 5:
            return array[::-1] if array.ndim else array
        case 6:
            size = source.choice([2**33, 2**40, 2**45])
            shape = source.choice([(size,), (size, 1), (1, size), (size // 4, 2, 2), array.shape])
            whole = array.reshape(-1)[:1] if array.size else np.zeros(1, array.dtype)
            return np.broadcast_to(whole.reshape((1,) * len(shape)), shape)
        case _:
            return array.T


def wild(source: random.Random) -> Any:
    """Returns anything."""
    match source.randrange(12):
        case 0 | 1 | 2:
            return source.choice(EXTREMES)
        case 3 | 4 | 5:
            return wild_array(source)
        case 6:
            return source.choice([0.5, math.nan, math.inf, -math.inf, 1e300, -0.0])
        case 7:
            return source.choice(TEXTS)
        case 8:
            return [wild(source) for _ in range(source.randrange(3))]
        case 9:
            return source.choice(EXTREMES) * source.choice([1, 1.5])
        case 10:
            return np.array(source.choice(EXTREMES), dtype=object).reshape(source.choice([(), 1]))
        case _:
            return source.choice(
                [
                    *(None, True, False, b"x", object(), int, {}, {"words": ["a"]}, range(3)),
                    *(np.int64(3), np.uint64(2**64 - 1), Shorter(["a"]), Failing(), Text("a"), ()),
                    *([Text("a"), "b"], [["a"], ["b", 1]], iter(["a"]), [[1], [2, 3]], 1j),
                ]
            )


def change(source: random.Random, value: Any) -> Any:
    """Returns something like the value."""
    if isinstance(value, np.ndarray) and source.random() < 0.8:
        # Not every dtype and shape can be made of every other, and views can be too large.
        with contextlib.suppress(TypeError, ValueError, OverflowError, MemoryError):
            return change_array(source, value)
        return value
    if isinstance(value, list) and source.random() < 0.8:
        value = list(value)
        place = source.randrange(len(value) + 1)
        if source.random() < 0.3 or place == len(value):
            value.insert(place, wild(source))
        elif source.random() < 0.3:
            del value[place]
        else:
            value[place] = change(source, value[place])
        return value
    if isinstance(value, str) and source.random() < 0.8:
        place = source.randrange(len(value) + 1)
        return value[:place] + source.choice(TEXTS) + value[place + source.randrange(2) :]
    if isinstance(value, dict) and value and source.random() < 0.8:
        key = source.choice(sorted(value))
        if source.random() < 0.3:
            return {name: held for name, held in value.items() if name != key}
        return value | {key: change(source, value[key])}
    if isinstance(value, (Batch, PackedBatch)) and source.random() < 0.8:
        fields = [getattr(value, name) for name in value.__slots__]
        place = source.randrange(len(fields))
        fields[place] = change(source, fields[place])
        return type(value)(*fields)
    return wild(source)


def change_array(source: random.Random, array: Any) -> Any:
    match source.randrange(6):
        case 0 | 1:
            return change_layout(source, array)
        case 2:
            return array.astype(source.choice(DTYPES[:10]))
        case 3:
            shape = [max(0, n + source.choice([-1, 0, 0, 1])) for n in array.shape]
            return np.resize(array, shape)
        case 4:
            return array[None] if source.random() < 0.5 else array.reshape(-1)
        case _:
            array = array.copy()
            if array.size:
                place = source.randrange(array.size)
                with contextlib.suppress(OverflowError):
                    array.reshape(-1)[place] = source.choice([*EXTREMES, 0, 1, 2])
            return array


# Calls.


class Call(NamedTuple):
    """A target with its arguments, and where methods find their object."""

    target: Target
    arguments: list[Any]
    keywords: dict[str, Any]
    source: random.Random


class Calls:
    """Calls of all targets, as functions of (target, seed)."""

    def __init__(self) -> None:
        self.targets = find_targets()
        self.arguments = find_arguments()

    def make(self, name: str, seed: int) -> Call:
        """Returns a call; methods get their object when they are called."""
        source, target = random.Random(f"{name} {seed}"), self.targets[name]
        if name not in self.arguments:
            return Call(target, [], {}, source)
        arguments, keywords = self.arguments[name](source)
        for _ in range(source.choice([0, 0, 1, 1, 1, 2, 3])):
            place = source.randrange(len(arguments) + len(keywords) + 1)
            alter = (lambda _, value: change(source, value)) if source.random() < 0.6 else _wild
            if place < len(arguments):
                arguments[place] = alter(source, arguments[place])
            elif place < len(arguments) + len(keywords):
                key = sorted(keywords)[place - len(arguments)]
                keywords[key] = alter(source, keywords[key])
        if source.random() < 0.02:
            arguments = arguments[1:] if source.random() < 0.5 else [*arguments, wild(source)]
        return Call(target, arguments, keywords, source)

    def run(self, call: Call) -> str:
        """Returns "returned" or the kind of error, which is one of those that may come."""
        target, errors = call.target, call.target.errors
        try:
            if target.owner is None:
                target.function(*call.arguments, **call.keywords)
            else:
                held = self._make_object(target, call.source)
                if callable(target.function):
                    target.function(held, *call.arguments, **call.keywords)
                self._look_at(target, held)
        except errors as error:
            return type(error).__name__
        return "returned"

    def _make_object(self, target: Target, source: random.Random) -> Any:
        """Returns an object in use: with arguments that fit, after some calls that fit."""
        owner = target.name.rpartition(".")[0]
        while True:
            arguments, keywords = self.arguments[owner](source)
            with contextlib.suppress(*target.errors):
                held = self.targets[owner].function(*arguments, **keywords)
                break
        others = [name for name in self.arguments if name.startswith(f"{owner}.")]
        for _ in range(source.randrange(4)):
            other = source.choice(others)
            arguments, keywords = self.arguments[other](source)
            with contextlib.suppress(*target.errors):
                self.targets[other].function(held, *arguments, **keywords)
        return held

    def _look_at(self, target: Target, held: Any) -> None:
        """Reads all properties, and what else takes no arguments: what was done left no harm."""
        owner = target.name.rpartition(".")[0]
        for name, other in self.targets.items():
            if name.startswith(f"{owner}.") and inspect.isdatadescriptor(other.function):
                getattr(held, name.rpartition(".")[2])
        for name in ("state", "state_dict"):
            if hasattr(held, name):
                getattr(held, name)()


def _wild(source: random.Random, _: Any) -> Any:
    return wild(source)


def describe(value: Any) -> str:
    """Returns a value as a line that says what it is, arrays with their layout."""
    if isinstance(value, np.ndarray):
        flags = "".join(
            letter
            for letter, is_set in (
                ("C", value.flags.c_contiguous),
                ("A", value.flags.aligned),
                ("W", value.flags.writeable),
            )
            if is_set
        )
        shown = value.reshape(-1)[:20].tolist() if value.size < 1 << 20 else "..."
        return f"array({shown}, {value.dtype.str}, {value.shape}, {flags})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, (Batch, PackedBatch)):
        return f"Batch({', '.join(describe(getattr(value, name)) for name in value.__slots__)})"
    return repr(value)[:300]


# The process that makes the calls.


class Outcome(NamedTuple):
    """How a call ended: "returned", a kind of error, or what must not be."""

    kind: str
    failure: str


def serve() -> None:
    """Makes the calls that are asked for on standard input, one a line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    calls = Calls()
    start = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = start + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    requests = iter(sys.stdin.readline, "")
    for line in requests:
        name, seed = line.split()
        call = calls.make(name, int(seed))
        try:
            outcome = Outcome(calls.run(call), "")
        except BaseException as error:
            outcome = Outcome(type(error).__name__, f"{type(error).__name__}: {error}")
        print(json.dumps(outcome), file=answers, flush=True)


class Worker:
    """A process that makes calls; it is started again when it ends."""

    def __init__(self, before: str = "") -> None:
        """Starts nothing yet; `before` is code that the process runs before its calls."""
        tests = str(Path(__file__).resolve().parent)
        start = f"import sys; sys.path.insert(0, {tests!r}); import random_calls"
        self._code = f"{start}\n{before}\nrandom_calls.serve()"
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    def call(self, name: str, seed: int) -> Outcome:
        """Returns how a call ended, also if the process ended with it."""
        process = self._process
        if process is None:
            self._folder = tempfile.TemporaryDirectory()  # some arguments are paths
            process = self._process = subprocess.Popen(
                [sys.executable, "-c", self._code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=self._folder.name,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{name} {seed}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], TIMEOUT_SECONDS)[0]:
            self.close()
            return Outcome("no answer", f"no answer for {TIMEOUT_SECONDS} s")
        answer = process.stdout.readline()
        if answer:
            return Outcome(*json.loads(answer))
        code = process.wait()
        self.close()
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Outcome("died", f"the process ended with {how}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def explain(calls: Calls, name: str, seed: int) -> str:
    """Returns the arguments of a call, and how to make it again."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        call = calls.make(name, seed)
    parts = [describe(value) for value in call.arguments]
    parts += [f"{key}={describe(value)}" for key, value in call.keywords.items()]
    again = f"python tests/random_calls.py --only {name} --seed {seed} --examples 1"
    return f"{name}({', '.join(parts)})\n    {again}"


def main() -> int:
    """Makes many calls, and tells how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1000, help="calls of each target")
    parser.add_argument("--seed", type=int, default=0, help="the first call's number")
    parser.add_argument("--only", default="", help="targets that hold this text")
    options = parser.parse_args()
    calls, worker, failures = Calls(), Worker(), 0
    begin = time.monotonic()
    for name in sorted(calls.targets):
        if options.only not in name:
            continue
        kinds: Counter[str] = Counter()
        for seed in range(options.seed, options.seed + options.examples):
            outcome = worker.call(name, seed)
            kinds[outcome.kind] += 1
            if outcome.failure:
                failures += 1
                print(f"{outcome.failure}\n    {explain(calls, name, seed)}", flush=True)
        ends = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        print(f"{name}: {kinds.total()} calls: {ends}", flush=True)
    worker.close()
    print(f"{failures} failures, {time.monotonic() - begin:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
