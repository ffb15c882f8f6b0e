"""Examples: functions of (seed, row), with orders and choices that are as likely as they should."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from lmcore.ner import ExampleConfig, ExampleReport, SampleConfig, build_examples, parse_generation
from lmcore.ner.examples import Example
from lmcore.ner.instructions import INSTRUCTIONS
from lmcore.ner.sampling import Sampler
from lmcore.ner.sentences import Sentence, make_sentence
from lmcore.reference.philox import Stream, random_bits
from lmcore.worlds.ner import generate_sentences

TYPES = ["person", "city", "river", "band"]


def sentence(count: int = 3, types: list[str] = TYPES, **more: Any) -> Sentence:
    words = [f"w{i}" for i in range(count)]
    return Sentence(words, ["B-city", *["O"] * (count - 1)], types, "letters", **more)


def build(sentences: Any, **options: Any) -> list[Example]:
    return list(build_examples(sentences, ExampleConfig(**options)))


def test_rows_hold_what_the_config_says() -> None:
    row = build([sentence(id="7", text="w0 w1 w2")], shuffle_types=False, name_dataset=True)[0]
    assert row.to_row() == {
        "dataset": "letters",
        "id": "7",
        "types": TYPES,
        "text": "w0 w1 w2",
        "words": ["w0", "w1", "w2"],
        "labels": ["B-city", "O", "O"],
        "instruction": row.instruction,
        "target": "w0(B-city) w1(O) w2(O)",
    }
    assert row.instruction.endswith(
        "tags: person, city, river, band and O.\nDataset: letters.\nSentence: w0 w1 w2"
    )
    other = build([sentence()], template="{types}|{sentence}", shuffle_types=False)[0]
    assert other.instruction == "person, city, river, band|w0 w1 w2"


def test_targets_are_read_back() -> None:
    sentences = generate_sentences("en", 40, seed=3) + generate_sentences("zh", 40, seed=3)
    made = [make_sentence(s.words, s.labels, s.label_list) for s in sentences]
    for example in build(made):
        parsed = parse_generation(example.target)
        assert (parsed.words, parsed.labels) == (
            [*example.sentence.words], [*example.sentence.labels],
        )  # fmt: skip


# Draws.


def test_orders_are_those_of_the_definition() -> None:
    """The types in the order of their draws, whatever rows stand beside them."""
    counts = [1, 4, 2, 30, 4]
    rows = [sentence(types=["city", *(f"t{i}" for i in range(count - 1))]) for count in counts]
    for row, example in enumerate(build(rows * 300, seed=5)):
        types = rows[row % 5].types
        keys = [random_bits(5, Stream.TYPE_ORDERS, row, i) for i in range(len(types))]
        assert example.types == [types[i] for i in sorted(range(len(types)), key=keys.__getitem__)]
        assert f"tags: {', '.join(example.types)} and O.\n" in example.instruction


def test_a_row_depends_on_its_number_alone() -> None:
    options = {"seed": 3, "types_per_row": 2, "drop_share": 0.3}
    whole = build([sentence(types=["city", *"abcdef"])] * 1200, **options)
    short = build([sentence(types=["city", *"abcdef"])] * 700, **options)
    assert whole[:700] == short
    assert build([sentence(types=["city", *"abcdef"])] * 1200, **options) == whole
    assert build([sentence(types=["city", *"abcdef"])] * 1200, **{**options, "seed": 4}) != whole


def test_orders_are_as_likely() -> None:
    count = 12_000
    found = Counter(tuple(row.types) for row in build([sentence(types=["city", "a", "b"])] * count))
    assert set(found) == set(permutations(["city", "a", "b"]))
    chi_square = sum((seen - count / 6) ** 2 / (count / 6) for seen in found.values())
    assert chi_square < 20.5  # one in a thousand, at 5 degrees of freedom


def test_chosen_types_do_not_show_by_their_place() -> None:
    """The type of the sentence is always named, each other as often, and each in any place."""
    count, types = 12_000, ["city", *"abcde"]
    rows = build([sentence(types=types)] * count, types_per_row=3)
    assert all(len(row.types) == 3 and "city" in row.types for row in rows)
    places = Counter(row.types.index("city") for row in rows)
    named = Counter(name for row in rows for name in row.types if name != "city")
    for seen, expected in [*((n, count / 3) for n in places.values()),
                           *((n, count * 2 / 5) for n in named.values())]:  # fmt: skip
        assert abs(seen - expected) < 4.5 * math.sqrt(expected)
    kept = build([sentence(types=types)] * 500, types_per_row=3, shuffle_types=False)
    assert all([t for t in types if t in row.types] == row.types for row in kept)


def test_types_of_the_sentence_are_named_beyond_the_number() -> None:
    report = ExampleReport()
    crowded = Sentence(["a", "b", "c"], ["B-city", "B-band", "B-river"], TYPES)
    (row,) = build_examples([crowded], ExampleConfig(types_per_row=2), report=report)
    assert {*row.types} == {"city", "band", "river"}
    assert report.crowded_rows == 1


def test_dropped_types() -> None:
    report = ExampleReport()
    count = 4000
    config = ExampleConfig(drop_share=0.25)
    rows = list(build_examples([sentence()] * count, config, report=report))
    dropped = [row for row in rows if "city" not in row.types]
    assert len(dropped) == report.dropped_entities
    assert abs(len(dropped) - count / 4) < 4.5 * math.sqrt(count * 3 / 16)
    for row in rows:
        assert row.types
        assert row.sentence.labels[0] == ("B-city" if "city" in row.types else "O")
        assert row.target.startswith(f"w0({row.sentence.labels[0]})")
    only = build([sentence(types=["city"])] * 50, drop_share=0.99)
    assert all(row.types == ["city"] for row in only)


# Context and boundaries.


def test_boundaries() -> None:
    words, labels = ["a", "b", "c", "d"], ["B-x", "I-x", "B-x", "O"]
    report = ExampleReport()
    made = {
        name: next(
            build_examples(
                [Sentence(words, labels, ["x"])], ExampleConfig(boundaries=name), report=report
            )
        )
        for name in ("bio", "bioes", "io")
    }
    assert made["bioes"].target == "a(B-x) b(E-x) c(S-x) d(O)"
    assert made["io"].target == "a(I-x) b(I-x) c(I-x) d(O)"
    assert report.joined_entities == 1
    for name, row in made.items():
        assert row.sentence.labels == labels
        assert row.instruction.partition("\n\n")[0] == INSTRUCTIONS[name].partition("\n\n")[0]


def test_empty_targets_are_counted() -> None:
    report = ExampleReport()
    none = Sentence(["a", "b"], ["O", "O"], ["x"])
    rows = list(build_examples([none, sentence()], ExampleConfig(context=1), report=report))
    assert [row.target for row in rows] == ["", "w0(B-city) w1(O)"]
    assert (report.empty_targets, report.rows, report.sentences) == (1, 2, 2)


def test_words_that_read_as_labels_are_counted() -> None:
    report = ExampleReport()
    rows = [Sentence([word, "b"], ["O", "O"], ["x"]) for word in ("(O)", "a(B-", "(I-x)", "(o)")]
    list(build_examples(rows, report=report))
    assert report.unreadable_words == 3


# Windows.


def test_windows_are_rows_of_their_own() -> None:
    report = ExampleReport()
    long = Sentence(
        ["In", "New", "York", ",", "yes"], ["O", "B-city", "I-city", "O", "O"], TYPES, "d", "7",
        "In New York, yes", [(0, 2), (3, 6), (7, 11), (11, 12), (13, 16)],
    )  # fmt: skip
    config = ExampleConfig(max_words=3, overlap=1)
    rows = list(build_examples([sentence(2), long], config, report=report))
    assert rows[0].window is None
    made = [(row.window, row.sentence.text, row.target) for row in rows[1:]]
    place = {"of": 5, "sentence": 1}
    assert made == [
        ({"start": 0, "stop": 3} | place, "In New York", "In(O) New(B-city) York(I-city)"),
        ({"start": 1, "stop": 4} | place, "New York,", "New(B-city) York(I-city) ,(O)"),
        ({"start": 3, "stop": 5} | place, ", yes", ",(O) yes(O)"),
    ]
    assert rows[2].sentence.offsets == [(0, 3), (4, 8), (8, 9)]
    assert (report.cut_sentences, report.cut_entities) == (1, 0)
    cut = Sentence(["a", "b", "c"], ["B-city", "I-city", "I-city"], TYPES)
    report = ExampleReport()
    rows = list(build_examples([cut], ExampleConfig(max_words=2), report=report))
    assert [row.target for row in rows] == ["a(B-city) b(I-city)", "c(B-city)"]
    assert report.cut_entities == 2


# Sampling.


def take(sizes: dict[str, int], **options: Any) -> dict[str, list[int]]:
    sentences = [
        Sentence([str(i)], ["O"], ["x"], name)
        for i in range(max(sizes.values()))
        for name, size in sizes.items()
        if i < size
    ]
    sampler = Sampler(SampleConfig(**options))
    taken: dict[str, list[int]] = {name: [] for name in sizes}
    for chosen in sampler.sample(sentences):
        taken[chosen.dataset].append(int(chosen.words[0]))
    assert sampler.read == sizes
    assert sampler.taken == {name: len(numbers) for name, numbers in taken.items()}
    return taken


def test_a_cap_for_each_data_set() -> None:
    taken = take({"a": 50, "b": 7}, cap=10)
    assert len(taken["a"]) == len({*taken["a"]}) == 10
    assert taken["a"] == sorted(taken["a"]) != list(range(10))
    assert taken["b"] == list(range(7))
    assert take({"a": 50, "b": 7}, cap=10) == taken
    assert take({"a": 50, "b": 7}, cap=10, seed=1) != taken
    assert take({"a": 50, "b": 7}, cap=10, sampling="first") == {
        "a": list(range(10)), "b": list(range(7)),
    }  # fmt: skip
    assert take({"a": 50}, cap=None) == {"a": list(range(50))}


def test_each_sentence_is_as_likely() -> None:
    found = Counter(n for seed in range(2000) for n in take({"a": 10}, cap=3, seed=seed)["a"])
    for seen in found.values():
        assert abs(seen - 600) < 4.5 * math.sqrt(600)


def test_over_sampling() -> None:
    taken = take({"a": 3, "b": 9}, cap=8, over_sample=True)
    assert taken["a"][:6] == [0, 1, 2] * 2
    assert len(taken["a"]) == 8
    assert taken["a"][6] < taken["a"][7]
    assert len({*taken["b"]}) == len(taken["b"]) == 8
    # The authors' rule: whole copies until there are enough.
    first = take({"a": 3, "b": 9, "c": 4}, cap=8, over_sample=True, sampling="first")
    assert first == {"a": [0, 1, 2] * 3, "b": list(range(8)), "c": [0, 1, 2, 3] * 2}


# What cannot be used.


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"context": -1}, "context must be"),
        ({"boundaries": "BIO"}, "boundaries must be one of bio, bioes, io: got 'BIO'"),
        ({"types_per_row": 0}, "types_per_row must be at least 1: got 0"),
        ({"drop_share": 1.0}, "drop_share must be at least 0 and below 1: got 1.0"),
        ({"drop_share": float("nan")}, "drop_share must be at least 0 and below 1: got nan"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**64}, "seed must be at least 0"),
        ({"overlap": 3}, "overlap goes with max_words"),
        ({"max_words": 0}, "max_words must be at least 1"),
        ({"template": "{types}"}, "a template must hold {sentence} once"),
    ],
)
def test_configs_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ExampleConfig(**options)
    with pytest.raises(ValueError, match=problem):
        replace(ExampleConfig(), **options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"cap": 0}, "cap must be at least 1"), ({"sampling": "all"}, "sampling must be one of"),
     ({"cap": None, "over_sample": True}, "over_sample goes with a cap"), ({"seed": -1}, "seed")],
)  # fmt: skip
def test_samples_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SampleConfig(**options)


def test_rows_are_named_by_number() -> None:
    row = {"words": ["a"], "labels": ["O"], "types": ["x"]}
    with pytest.raises(ValueError, match="row 1: types must name at least one"):
        list(build_examples([row, {**row, "types": []}]))
    with pytest.raises(TypeError, match="row 0: words must be a list of strings"):
        list(build_examples([{**row, "words": "a"}]))
