"""Arguments that belong together, for each target of `random_calls`."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmcore.ops.denoising import EXCESS_RULES, KINDS, DenoisedBatch, Denoiser, SpecialIds
from lmcore.ops.entities import SCHEMES
from lmcore.ops.negatives import DISTRIBUTIONS, ORDERS, Batch, PackedBatch
from lmcore.ops.ngrams import SMOOTHINGS
from lmcore.ops.ranking import TIES
from lmcore.ops.schedule import SCHEDULES
from wild_values import integers

Arguments = tuple[list[Any], dict[str, Any]]

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


def histories(source: random.Random) -> tuple[Any, Any, int]:
    item_count = source.choice([5, 64, 200, 5000, 2**31 - 1])
    sizes = [source.randrange(5) for _ in range(source.randrange(1, 5))]
    items = integers(source, sum(sizes), 1, item_count + 1)
    return np.cumsum([0, *sizes]), items, item_count


LOSS_TOTAL = 4
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


def denoising_settings(source: random.Random) -> list[Any]:
    kinds = [
        (source.choice(KINDS), source.choice([0.15, 0.5, 0.9]), source.choice([1.0, 3.0, 64.0]),
         source.choice([None, 102]), 1.0, source.choice([None, 9]), source.choice(EXCESS_RULES))
        for _ in range(source.randrange(1, 4))
    ]  # fmt: skip
    return [kinds, (103, 99, source.choice([1, 40, 100]), 1, 0, 0, source.choice([-100, -1]))]


def denoised_texts(source: random.Random) -> tuple[Any, Any, Any]:
    """Tokens, and where texts start and end."""
    sizes = [source.choice([2, 3, 9, 64]) for _ in range(source.randrange(4))]
    ends = np.cumsum([0, *sizes])
    kind = source.choice([np.uint16, np.int32, np.uint32, np.int64])
    return integers(source, int(ends[-1]), 2, 60, kind), ends[:-1].copy(), ends[1:].copy()


def denoised_plan(source: random.Random) -> list[Any]:
    rows = source.randrange(4)
    tasks = source.choice([None, np.zeros(rows, np.int64)])
    lengths, indices = integers(source, rows, 2, 99), integers(source, rows, 0, 9, np.uint64)
    return [lengths, indices, source.randrange(2**64), tasks, *(np.zeros(rows, int) for _ in "123")]


def denoised_rows(source: random.Random, rows: int, kind: Any = np.int64) -> list[Any]:
    """Encoder, decoder and labels with their offsets."""
    steps = np.arange(rows + 1) * 150
    return [np.zeros(rows * 150, kind), steps, *(np.zeros(rows * 150, kind) for _ in "12"), steps]


def denoised_write(source: random.Random) -> list[Any]:
    tokens, starts, ends = denoised_texts(source)
    rows = len(starts)
    indices, tasks = integers(source, rows, 0, 9, np.uint64), np.zeros(rows, np.int64)
    out = denoised_rows(source, rows, source.choice([np.int64, np.int32]))
    return [tokens, starts, ends, indices, source.randrange(2**64), tasks, *out, threads(source)]


def denoised_spans(source: random.Random) -> list[Any]:
    lengths = [source.randrange(5) + place % 2 for place in range(2 * source.randrange(4))]
    tokens = integers(source, sum(lengths) + source.randrange(3), 2, 60)
    return [tokens, np.array(lengths, np.int64), source.choice([None, 7])]


def denoised_pairs(source: random.Random) -> list[Any]:
    rows = source.randrange(4)
    texts = []
    for _ in range(2):
        ends = np.cumsum([0, *(source.randrange(9) for _ in range(rows))])
        texts += [integers(source, int(ends[-1]), 2, 60), ends]
    found = [np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros((rows, 2), np.int64)]
    return [*texts, source.choice([None, 7]), *denoised_rows(source, rows), *found]


def draw_arguments(source: random.Random) -> list[Any]:
    items = integers(source, (source.randrange(4),) * source.randrange(3), 0, 2**63, np.uint64)
    return [source.randrange(2**64), source.randrange(2**32), items, source.randrange(9)]


def betas_of(source: random.Random) -> Any:
    return integers(source, source.randrange(1, 9), 1, 99) / 100


def batch_of_steps(source: random.Random) -> list[int]:
    """Seed, step and first row."""
    return [source.randrange(2**64), source.randrange(2**64), source.randrange(2**20)]


def neighbour_maps(source: random.Random) -> list[Any]:
    """Timesteps, and where their windows end."""
    total = source.randrange(1, 9)
    steps = np.arange(total)
    up = np.where(integers(source, total, 0, 3) > 0, np.minimum(steps + 2, total - 1), -1)
    down = np.where(integers(source, total, 0, 3) > 0, np.maximum(steps - 2, 0), -1)
    return [integers(source, source.randrange(9), 0, total), up, down]


def loss_histories(source: random.Random) -> list[Any]:
    total, length = source.randrange(1, 9), source.randrange(1, 4)
    counts = np.full(total, length if source.random() < 0.7 else 0)
    return [integers(source, (total, length), 0, 9, np.float64), counts]


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


def example_rows(s: random.Random) -> list[Any]:
    count = s.randrange(4)
    words = [sentence(s) for _ in range(count)]
    tags = [labels(s, len(row)) for row in words]
    return [
        [""] * count, [sentence(s) for _ in range(count)], words, tags,
        s.choice([None, tags]), s.choice([None, sentence(s)[:count]]),
        [s.choice(["types", "sentence", "dataset"]) for _ in range(s.randrange(5))],
        s.choice([None, 0, 1]), threads(s),
    ]  # fmt: skip


def lower(words: list[str]) -> list[str]:
    return [word.lower() for word in words]


def dirty_texts(source: random.Random) -> list[str]:
    pieces = [
        "<b>",
        "<p",
        ">",
        "http://a.org",
        "a@b.org",
        "138 0013 8000",
        "哈哈哈哈哈",
        ". ",
        "\n",
    ]
    parts = [*pieces, "It rains in the north", "今天下雨。", "北", "Mr", "\0"]
    return [
        "".join(source.choices(parts, k=source.randrange(9))) for _ in range(source.randrange(5))
    ]


def clean_rules(source: random.Random) -> tuple[Any, ...]:
    return (*(source.random() < 0.7 for _ in range(4)), source.randrange(5), source.randrange(5))


def hash_key(source: random.Random) -> bytes:
    return source.randbytes(16)


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

    def names(s: random.Random) -> Any:
        return s.choice([None, [("shown", "named")]])

    def below(s: random.Random) -> list[Any]:
        seed, stream, items, count = draw_arguments(s)
        return [seed, stream, items, s.randrange(9), count]

    def places(s: random.Random) -> list[Any]:
        scores, *rest = ranking_arguments(s)
        return [scores.shape[1], *rest]

    def ids_of(s: random.Random) -> Any:
        kind = s.choice([np.uint16, np.int32, np.int64, np.uint32])
        return integers(s, s.choice([0, 3, 17, 300]), 0, 9, kind)

    def line_texts(s: random.Random, count: int) -> list[str]:
        return [" ".join(sentence(s)) for _ in range(count)]

    def segmented(s: random.Random) -> list[Any]:
        lengths, size = [s.randrange(6) for _ in range(s.randrange(4))], s.randrange(1, 4)
        offsets = np.cumsum([0, *lengths])
        labels = integers(s, sum(max(0, length - size + 1) for length in lengths), 0, 2)
        return [integers(s, sum(lengths), 0, 9), offsets, size, labels]

    def table(s: random.Random) -> list[Any]:
        lines = [[s.choice(["a", "b", "é"]), s.choice("ab"), s.choice(["1", "-20"])]] * 3
        text = "\n".join(",".join(s.sample(line, 3)) for line in lines).encode()
        return [
            text,
            s.choice([0, 0, 6]),
            ",",
            s.random() < 0.5,
            3,
            [0, 1],
            s.choice([None, 2]),
            threads(s),
        ]

    def rows_of(s: random.Random) -> list[Any]:
        count = s.randrange(9)
        users, items = (integers(s, count, 1, 5).astype(np.int32) for _ in range(2))
        return [users, items, s.choice([None, integers(s, count, -9, 9)]), 5, 5]

    def remapped(s: random.Random) -> list[Any]:
        ids = ids_of(s)
        out = np.zeros(ids.shape, s.choice([np.uint16, np.int32, np.int64]))
        table = integers(s, 9, -1, 9)
        return [ids, table, s.choice([None, 0, 5]), s.random() < 0.5, out, threads(s)]

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
        "write_examples_batch": example_rows,
        "decode_spans": lambda s: [labels(s, s.randrange(9)), scheme(s)],
        "count_entities": lambda s: [*tagged(s), scheme(s)],
        "classify_errors": lambda s: [*tagged(s)[1:], scheme(s)],
        "count_entities_batch": lambda s: [*batch_of(s, tagged), scheme(s), threads(s)],
        "compute_quality": lambda s: [s.randrange(9), s.randrange(9), s.randrange(9), scheme(s)],
        "score_examples": lambda s: [rows(s), *files(s)[:-1]],
        "score_files": lambda s: [[write_rows(s)], names(s), *files(s)],
        "align_file": lambda s: [write_rows(s), "aligned.jsonl", *(f := files(s))[:2], *f[3:]],
        "align_row": lambda s: [json.dumps(row(s)), scheme(s)],
        "philox4x32": lambda s: [words_of(s, 4), words_of(s, 2)],
        "random_bits": below,
        "random_uniform": below,
        "random_below": lambda s: [*below(s), s.randrange(1, 99)],
        "rank_targets": lambda s: [*ranking_arguments(s), s.choice(TIES), threads(s)],
        "list_excluded": places,
        "ranking_metrics": lambda s: [integers(s, s.randrange(1, 9), 0, 9, np.float64), [1, 5]],
        "count_ids": lambda s: [ids_of(s), np.zeros(9, np.int64), True, threads(s)],
        "rank_ids": lambda s: [integers(s, s.randrange(9), 0, 9)],
        "remap_ids": lambda s: remapped(s),
        "clean_texts": lambda s: [dirty_texts(s), clean_rules(s), threads(s)],
        "hash_texts": lambda s: [dirty_texts(s), hash_key(s), threads(s)],
        "Duplicates": lambda s: [hash_key(s), s.choice([None, 0, 2_100_000]), s.random() < 0.5],
        "Duplicates.memory_bytes": lambda _: [],
        "Duplicates.add": lambda s: [dirty_texts(s), threads(s)],
        "Duplicates.remove": lambda s: [
            dirty_texts(s), s.random() < 0.5, s.randrange(4), clean_rules(s), threads(s)
        ],
        "Duplicates.take_added": lambda _: [],
        "Duplicates.load": lambda s: [s.randbytes(s.choice([0, 10, 30, 31]))],
        "read_columns": table,
        "group_by_user": rows_of,
        "list_segments": lambda s: segmented(s)[:3],
        "mask_segments": lambda s: (lambda a: [*a[:2], a[3], 5, a[2], threads(s)])(segmented(s)),
        "make_betas": lambda s: [s.choice(list(SCHEDULES)), s.randrange(21, 99)],
        "find_neighbours": lambda s: [betas_of(s), s.choice([0.01, 0.05, 0.5])],
        "draw_neighbours": lambda s: [
            *neighbour_maps(s), s.random() < 0.5, *batch_of_steps(s)
        ],
        "shift_timesteps": lambda s: [
            integers(s, s.randrange(9), 0, 9), 9, s.randrange(12), *batch_of_steps(s)
        ],
        "draw_timesteps": lambda s: [s.randrange(1, 99), s.randrange(9), *batch_of_steps(s)],
        "weigh_timesteps": lambda s: [*loss_histories(s), 0.001],
        "draw_by_loss": lambda s: [
            *loss_histories(s), 0.001, s.randrange(9), *batch_of_steps(s)
        ],
        "add_losses": lambda s: (lambda h, n: [
            *h, integers(s, n, 0, len(h[1])), integers(s, n, 0, 9, np.float64)
        ])(loss_histories(s), s.randrange(9)),
        "sentence_bleu": lambda s: [
            *(lambda n: (line_texts(s, n), [line_texts(s, s.randrange(1, 4)) for _ in range(n)]))(
                s.randrange(4)
            ),
            *(s.randrange(1, 17), s.choice(SMOOTHINGS), threads(s)),
        ],
        "self_bleu": lambda s: [
            *(lambda n: (line_texts(s, n), integers(s, s.randrange(4), 0, n)))(s.randrange(2, 6)),
            *(s.randrange(1, 17), s.choice(SMOOTHINGS)),
        ],
        "choose_candidates": lambda s: [
            [line_texts(s, s.randrange(1, 12)) for _ in range(s.randrange(4))],
            *(s.randrange(1, 17), s.choice(SMOOTHINGS), threads(s)),
        ],
        "count_ngrams": lambda s: [line_texts(s, s.randrange(5)), s.randrange(1, 17)],
        "Denoising": denoising_settings,
        "Denoising.plan": denoised_plan,
        "Denoising.write": denoised_write,
        "Denoising.apply_spans": denoised_spans,
        "Denoising.write_pairs": denoised_pairs,
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

    def cleaned(source: random.Random) -> dict[str, Any]:
        names = ("html", "links", "emails", "phone_numbers", "most_repeats", "minimum_words")
        rules = dict(zip(names, clean_rules(source), strict=True))
        return {**rules, "threads": threads(source)}

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

    def denoised(source: random.Random, *names: str) -> Arguments:
        rows = source.randrange(4)
        tokens = integers(source, (rows, 12), 2, 60, source.choice([np.uint16, np.int64]))
        settings, numbers = denoising_settings(source)
        keys = ("kind", "density", "mean_span", "prefix", "weight", "max_length", "excess")
        names_of_ids = ("vocabulary_size", "first_sentinel", "sentinel_count")
        more = {
            "seed": source.randrange(2**64),
            "denoisers": [Denoiser(name="", **dict(zip(keys, s, strict=True))) for s in settings],
            "ids": SpecialIds(**dict(zip(names_of_ids, numbers[:3], strict=True))),
            "tasks": source.choice([None, [0] * rows]),
        }
        if not names:
            return [[12] * rows, integers(source, rows, 0, 9)], more
        given = {
            "rows": source.choice([None, [0] * rows]),
            "encoder_width": source.choice([None, 30]),
            "out": source.choice([None, DenoisedBatch(
                *(np.zeros((rows, 30), np.int32) for _ in range(3)),
                *(np.zeros(rows, np.int64) for _ in range(3)),
            )]),
            "threads": threads(source),
        }  # fmt: skip
        return [tokens, integers(source, rows, 0, 9)], more | {name: given[name] for name in names}

    def pairs(source: random.Random) -> Arguments:
        rows = source.randrange(4)
        texts = [[integers(source, source.randrange(9), 2, 60) for _ in range(rows)] for _ in "12"]
        widths = {"encoder_width": source.randrange(3, 20), "decoder_width": source.randrange(2, 9)}
        return texts, {**widths, "prefix": source.choice([None, 7])}

    def tensor(source: random.Random, *shape: int) -> Any:
        return torch.tensor(integers(source, shape, -2, 3, np.float32))

    def gate(source: random.Random, groups: int) -> Any:
        made = tensor(source, groups)
        return source.choice([None, made, made > 0])

    def gated_linear(source: random.Random) -> Arguments:
        inputs, weight, bias = (tensor(source, *shape) for shape in ((2, 4), (6, 4), (6,)))
        gates = {"output_gate": gate(source, 3), "input_gate": gate(source, 2)}
        return [inputs, weight, source.choice([None, bias])], gates

    def gated_swiglu(source: random.Random) -> Arguments:
        shapes = ((2, 4), (12, 4), (4, 6))
        return [tensor(source, *shape) for shape in shapes], {"inner_gate": gate(source, 3)}

    def pruned_columns(source: random.Random) -> Arguments:
        kept = [
            source.choice([None, torch.tensor([source.randrange(size) for _ in range(3)])])
            for size in (4, 6)
        ]
        return [tensor(source, 4, 6), *kept], {}

    def latents(source: random.Random) -> Arguments:
        rows, words, size = (source.randrange(1, 4) for _ in range(3))
        mask = source.choice([None, tensor(source, rows) > 0])
        return [tensor(source, rows, size), tensor(source, words, size), mask], {}

    def attended(source: random.Random) -> Arguments:
        rows, groups, share, size, keys = (source.randrange(1, 4) for _ in range(5))
        queries = source.randrange(1, keys + 1)
        heads = groups * share
        lengths = integers(source, rows, 0, keys + 1)
        return [
            tensor(source, rows, heads, queries, 2 * size),
            *(tensor(source, rows, groups, keys, 2 * size) for _ in range(2)),
        ], {
            "query_lengths": None,
            "key_lengths": source.choice([None, torch.from_numpy(lengths)]),
            "query_starts": None,
            "key_starts": source.choice([None, torch.from_numpy(lengths)]),
            "causal": source.random() < 0.5,
            "scale": source.choice([None, 0.5]),
            "head_mask": source.choice([None, tensor(source, heads) > 0]),
            "bias": source.choice([None, tensor(source, heads, queries + keys - 1)]),
            "rope": source.choice([None, (tensor(source, keys, 2 * size),) * 2]),
            "dropout": source.choice([0.0, 0.1]),
            "seed": source.randrange(1 << 64),
        }

    def sampled(source: random.Random) -> Arguments:
        rows, samples, items, size = (source.randrange(1, 4) for _ in range(4))
        ids = torch.tensor(integers(source, (rows, 1 + samples), 0, items))
        given = [tensor(source, rows, size), tensor(source, items, size), ids[:, 0], ids[:, 1:]]
        return given, {
            "bias": source.choice([None, tensor(source, items)]),
            "mask": source.choice([None, tensor(source, rows) > 0]),
            "padding_index": source.choice([None, 0]),
            "deterministic": source.choice([None, True]),
        }

    def head(source: random.Random) -> Arguments:
        rows, entries, size = (source.randrange(1, 4) for _ in range(3))
        targets = torch.tensor(integers(source, rows, 0, entries))
        targets[0] = source.choice([-100, int(targets[0])])
        return [tensor(source, rows, size), tensor(source, entries, size), targets], {
            "bias": source.choice([None, tensor(source, entries)]),
            "kept": source.choice([None, torch.arange(entries)]),
            "reduction": source.choice(["mean", "sum", "none"]),
        }

    def spec(source: random.Random) -> Any:
        return source.choice(["adp_5", "x2_7", "ddim4", "3,4", [3, 4], (5,), np.array([2, 3])])

    def kept(source: random.Random) -> list[Any]:
        betas = betas_of(source)
        return [betas, source.sample(range(len(betas)), source.randrange(1, len(betas) + 1))]

    def neighbours(source: random.Random) -> Arguments:
        from lmcore.ops.schedule import NoiseNeighbours

        steps, up, down = neighbour_maps(source)
        more = {"far": source.random() < 0.5, **steps_of(source)}
        return [steps, NoiseNeighbours(up, down)], more

    def steps_of(source: random.Random) -> dict[str, int]:
        return dict(zip(("seed", "step", "first_row"), batch_of_steps(source), strict=True))

    def choices_file(source: random.Random) -> Arguments:
        Path("choices.json").write_text(source.choice(["[]", "[]", "[{}]"]))
        return ["choices.json"], {}

    def loss_state(source: random.Random) -> Arguments:
        counts = integers(source, LOSS_TOTAL, 0, 2)
        history = np.where(counts[:, None] > np.arange(1), 0.5, 0)
        return [{"history": history, "counts": counts}], {}

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
        "examples.write_examples_batch": lambda s: (
            lambda v: ([*v[:4], v[6]], {"target_labels": v[4], "datasets": v[5], "context": v[7]})
        )(example_rows(s)),
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
        "predictions.score_files": as_core("score_files", "names", *files),
        "predictions.align_file": as_core("align_file", *files[:2], *files[3:]),
        "predictions.align_row": lambda s: ([row(s), s.choice(SCHEMES)], {}),
        "philox.philox4x32": as_core("philox4x32"),
        "philox.random_bits": draws,
        "philox.random_uniform": draws,
        "philox.random_below": lambda s: (lambda a, k: ([*a, s.randrange(1, 99)], k))(*draws(s)),
        "pruning_mask.masked_linear": gated_linear,
        "pruning_mask.masked_swiglu": gated_swiglu,
        "pruning_mask.prune_columns": pruned_columns,
        "attention.attention": attended,
        "nearest_embedding.nearest_embedding": latents,
        "sampled_logits.sampled_logits": sampled,
        "sampled_logits.sampled_loss": lambda s: (
            lambda given, more: (given, {
                **more, "kind": s.choice(["bce", "softmax"]),
                "log_q": s.choice([None, tensor(s, len(given[1]))]),
                "reduction": s.choice(["mean", "sum", "none"]),
            })
        )(*sampled(s)),
        "cross_entropy.cross_entropy": head,
        "ranking.rank_targets": as_core("rank_targets", "ties", "threads"),
        "ranking.ranking_metrics": as_core("ranking_metrics"),
        "tuning.read_choices": choices_file,
        "tuning.write_choices": choices_file,
        "vocabulary.count_ids": lambda s: (
            [integers(s, s.randrange(9), 0, 9), s.randrange(1, 12)],
            {"unknown": s.random() < 0.5, "threads": threads(s)},
        ),
        "vocabulary.rank_ids": as_core("rank_ids"),
        "vocabulary.remap_ids": lambda s: (
            [integers(s, s.randrange(9), 0, 9), integers(s, 9, -1, 9)],
            {"fill": s.choice([None, 3]), "report": s.random() < 0.5, "threads": threads(s)},
        ),
        "interactions.read_columns": lambda s: (
            lambda a: (
                [a[0], a[2], a[4], a[5], a[6]],
                {"quoted": a[3], "start": a[1], "threads": a[7]},
            )
        )(core["read_columns"](s)),
        "interactions.group_by_user": as_core("group_by_user"),
        "segments.list_segments": as_core("list_segments", "size"),
        "segments.mask_segments": as_core("mask_segments", "size", "threads"),
        "cleaning.clean_texts": lambda s: ([dirty_texts(s)], cleaned(s)),
        "duplicates.hash_texts": as_core("hash_texts", "key", "threads"),
        "duplicates.Duplicates": lambda s: (
            [], dict(zip(("key", "max_memory", "keeps_added"), core["Duplicates"](s), strict=True))
        ),
        "duplicates.Duplicates.add": as_core("Duplicates.add", "threads"),
        "duplicates.Duplicates.remove": lambda s: (
            [dirty_texts(s)],
            {"documents": s.random() < 0.5, "sentences": s.randrange(4), **cleaned(s)},
        ),
        "duplicates.Duplicates.take_added": lambda _: ([], {}),
        "duplicates.Duplicates.load": as_core("Duplicates.load"),
        "schedule.make_betas": as_core("make_betas"),
        "schedule.space_timesteps": lambda s: ([s.choice([20, 50]), spec(s)], {}),
        "schedule.adaptive_timesteps": lambda s: (
            [s.choice([50, 99]), s.randrange(1, 9), s.choice([[1.0], [0.5, 0.5], [0.1, 0.9]])],
            {},
        ),
        "schedule.order_timesteps": lambda s: ([9, s.sample(range(9), s.randrange(1, 9))], {}),
        "schedule.space_betas": lambda s: (kept(s), {}),
        "schedule.make_coefficients": lambda s: (kept(s), {}),
        "schedule.find_neighbours": as_core("find_neighbours"),
        "schedule.draw_neighbours": neighbours,
        "schedule.shift_timesteps": lambda s: (
            [integers(s, s.randrange(9), 0, 9), 9, s.randrange(12)], steps_of(s)
        ),
        "schedule.draw_timesteps": lambda s: ([9, s.randrange(9)], steps_of(s)),
        "schedule.LossAwareSampler": lambda s: (
            [LOSS_TOTAL], {"history": 1, "uniform_share": s.choice([0, 0.001, 1])}
        ),
        "schedule.LossAwareSampler.draw": lambda s: ([s.randrange(9)], steps_of(s)),
        "schedule.LossAwareSampler.update": lambda s: (lambda n: (
            [integers(s, n, 0, LOSS_TOTAL), integers(s, n, 0, 9, np.float64)], {}
        ))(s.randrange(9)),
        "schedule.LossAwareSampler.weigh": lambda _: ([], {}),
        "schedule.LossAwareSampler.state_dict": lambda _: ([], {}),
        "schedule.LossAwareSampler.load_state_dict": loss_state,
        "ngrams.sentence_bleu": as_core("sentence_bleu", "order", "smoothing", "threads"),
        "ngrams.self_bleu": as_core("self_bleu", "order", "smoothing"),
        "ngrams.choose_candidates": as_core("choose_candidates", "order", "smoothing", "threads"),
        "ngrams.count_ngrams": as_core("count_ngrams", "order"),
        "denoising.plan_batch": denoised,
        "denoising.denoise_batch": lambda s: denoised(s, "rows", "encoder_width", "out", "threads"),
        "denoising.denoise_packed": lambda s: denoised(s, "rows", "threads"),
        "denoising.apply_spans": as_core("Denoising.apply_spans", "prefix"),
        "denoising.pair_batch": pairs,
        "negatives.SequenceSampler": sampler,
        "negatives.SequenceSampler.sample": lambda s: sample(s, Batch),
        "negatives.SequenceSampler.sample_packed": lambda s: sample(s, PackedBatch),
        "negatives.SequenceSampler.candidates": lambda s: (
            [[1, 1], s.randrange(70)],
            {"seed": s.choice([None, 5]), "exclude": integers(s, (2, s.randrange(3)), 0, 5)},
        ),
        "negatives.SequenceSampler.draw": lambda s: (
            [[1, 1], integers(s, (2, s.randrange(4)), 0, 5)],
            {"count": s.choice([None, s.randrange(9)]), "seed": s.choice([None, 5])},
        ),
        "negatives.SequenceSampler.draw_weights": lambda _: ([], {}),
        "negatives.DrawWeights": lambda s: (
            [integers(s, s.randrange(9), 0, 5, np.float64) for _ in range(2)], {}
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
