"""`ops.denoising` against the authors' samples, the laws of its draws, and its definition."""

import json
import threading
from collections import Counter
from dataclasses import fields, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoised import as_lists, both, texts_of
from lmcore.ops import denoising
from lmcore.ops.denoising import (
    EXCESS_RULES,
    KINDS,
    Denoiser,
    SpecialIds,
    o_ul2,
    ul2,
)
from lmcore.reference import denoising as reference

Cases = dict[str, Any]


@pytest.fixture(scope="module")
def cases(golden_dir: Path) -> Cases:
    read: Cases = json.loads((golden_dir / "ul2" / "cases.json").read_text(encoding="utf-8"))
    return read


def ids_of(cases: Cases) -> SpecialIds:
    given = cases["ids"]
    return SpecialIds(
        vocabulary_size=given["X"] + 1,
        first_sentinel=given["sentinels"][1],
        eos=given["eos"],
        bos=given["bos"],
        pad=given["pad"],
    )


def mask_of(case: Cases) -> list[bool]:
    if case.get("prefix_len") is not None:
        return [place >= case["prefix_len"] for place in range(case["length"])]
    return [mark == "1" for mark in case["mask"]]


def lengths_of(mask: list[bool]) -> list[int]:
    return [len(list(run)) for _, run in groupby(mask)]


Spans = list[tuple[int, ...]]


def spans_of(denoiser: Denoiser, length: int, count: int) -> tuple[Spans, Spans]:
    """Kept and noise lengths of many samples, as their ids show them."""
    packed = denoising.denoise_packed(
        np.full((1, length), 7),
        range(count),
        seed=11,
        rows=[0] * count,
        denoisers=[replace(denoiser, prefix=1)],
    )
    # Whatever is no 7 stands before, between or after spans.
    kept, noise = (
        [
            tuple((np.diff(np.flatnonzero(row[start:end] != 7)) - 1).tolist())
            for start, end in pairwise(ends.tolist())
        ]
        for row, ends in (
            (packed.encoder, packed.encoder_offsets),
            (packed.labels, packed.decoder_offsets),
        )
    )
    return [row[:-1] for row in kept], noise


def is_uniform(counts: NDArray[Any]) -> bool:
    """Chi-square within five standard deviations."""
    expected = counts.sum() / len(counts)
    assert expected > 5
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return bool(abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom) + 5)


# Golden: what the authors' code makes of a mask.


def test_samples_are_the_authors(cases: Cases) -> None:
    ids = ids_of(cases)
    rows = [*cases["ul2"], *({**row, "type": "X"} for row in cases["oul2"])]
    assert len(rows) == 46
    for case in rows:
        given = {"prefix": cases["ids"][case["type"]], "ids": ids}
        mask = mask_of(case)
        for sample in (
            reference.apply_mask(case["tokens"], mask, **given),
            denoising.apply_spans(case["tokens"], lengths_of(mask), **given),
        ):
            assert sample.encoder.tolist() == case["enc"]
            assert sample.decoder.tolist() == case["dec"]
            assert sample.labels.tolist() == case["labels"]
        assert reference.reconstruct(case["enc"], case["labels"], **given) == case["tokens"]


def test_numbers_of_spans_are_the_authors(cases: Cases) -> None:
    for case in cases["ul2"]:
        denoiser = ul2()[case["denoiser"] - 1]
        lengths = reference.draw_lengths(denoiser, case["length"], SpecialIds(), 0, 0)
        if denoiser.kind == "spans":
            assert sum(lengths[1::2]) == case["num_noise"] == case["mask"].count("1")
            assert len(lengths) // 2 == case["num_spans"] == len(lengths_of(mask_of(case))) // 2
    for case in cases["oul2"]:
        assert case["num_noise"] == round(case["length"] / 2)
        assert lengths_of(mask_of(case))[-1] >= round(0.2 * case["num_noise"])


def test_lengths_are_the_authors(cases: Cases) -> None:
    """What the file says of S is a range of its maker's; its samples lie in that of the paper."""
    for key, (encoder, decoder) in cases["lengths"].items():
        task, length = (int(part) for part in key.split("|"))
        if task == 3:
            continue
        plan = denoising.plan_batch([length] * 3, range(3), seed=7, tasks=[task - 1] * 3)
        assert plan.encoder_lengths.tolist() == [encoder] * 3
        assert plan.decoder_lengths.tolist() == [decoder] * 3
    for case in cases["ul2"]:
        if case["type"] == "S":
            assert 1 <= case["length"] - case["prefix_len"] <= round(case["length"] / 4)


# Laws.


LENGTHS = [2, 3, 4, 5, 7, 16, 63, 64, 65, 128, 129, 568, 1_700, 2_048]
MIXTURES = {"ul2": ul2(), "o_ul2": o_ul2(), "without prefixes": ul2(None, None, None)}


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("length", LENGTHS)
def test_texts_come_back(mixture: str, length: int) -> None:
    denoisers = MIXTURES[mixture]
    texts, tasks = texts_of(28, length), np.arange(28) % len(denoisers)
    given = {"seed": 5, "denoisers": denoisers, "tasks": tasks}
    batch = denoising.denoise_batch(texts, range(28), **given)
    plan = denoising.plan_batch([length] * 28, range(28), **given)
    packed = denoising.denoise_packed(texts, range(28), **given)
    assert batch.encoder_lengths.tolist() == plan.encoder_lengths.tolist()
    assert batch.decoder_lengths.tolist() == plan.decoder_lengths.tolist()
    assert batch.encoder.shape[1] == plan.encoder_lengths.max()
    assert batch.decoder.shape == batch.labels.shape == (28, plan.decoder_lengths.max())
    reads, writes = batch.masks()
    for row, task in enumerate(tasks.tolist()):
        denoiser = denoisers[task]
        source, labels = batch.encoder[row, reads[row]], batch.labels[row, writes[row]]
        back = reference.reconstruct(source, labels, prefix=denoiser.prefix)
        assert back == texts[row, : denoiser.max_length].tolist()
        assert batch.decoder[row, writes[row]].tolist() == [0, *labels[:-1].tolist()]
        assert (batch.encoder[row, ~reads[row]] == 0).all()
        assert (batch.decoder[row, ~writes[row]] == 0).all()
        assert (batch.labels[row, ~writes[row]] == -100).all()
        first, last = packed.encoder_offsets[row : row + 2]
        assert packed.encoder[first:last].tolist() == source.tolist()
        first, last = packed.decoder_offsets[row : row + 2]
        assert packed.labels[first:last].tolist() == labels.tolist()
        assert packed.decoder[first:last].tolist() == [0, *labels[:-1].tolist()]


def test_lengths_of_ul2() -> None:
    """The table of the paper's 570 and 380."""
    plan = denoising.plan_batch([568] * 700, range(700), seed=2, tasks=np.arange(700) % 7)
    found = [
        sorted({*zip(plan.encoder_lengths[task::7], plan.decoder_lengths[task::7], strict=True)})
        for task in range(7)
    ]
    expected = [(513, 114), (496, 97), None, (381, 380), (322, 321), (486, 87), (290, 289)]
    for row, pair in zip(found, expected, strict=True):
        assert pair is None or row == [pair]
    assert all(pair[0] + pair[1] == 573 for pair in found[2])
    assert plan.encoder_lengths.max() <= 570
    assert plan.decoder_lengths.max() <= 380


def test_samples_depend_on_their_place_alone() -> None:
    texts, given = texts_of(40, 100), {"seed": 9, "encoder_width": 110, "decoder_width": 110}
    whole = denoising.denoise_batch(texts, range(40), **given)
    order = np.random.default_rng(1).permutation(40)
    mixed = denoising.denoise_batch(texts, order, rows=order, **given)
    weighted = [replace(one, weight=one.weight + place) for place, one in enumerate(ul2())]
    forced = denoising.denoise_batch(
        texts, range(40), tasks=whole.tasks, denoisers=weighted, **given
    )
    for field in fields(whole):
        before = getattr(whole, field.name)
        assert np.array_equal(before[order], getattr(mixed, field.name))
        assert np.array_equal(before, getattr(forced, field.name))
    for index in (0, 17, 39):
        alone = denoising.denoise_batch(texts[index : index + 1], [index], **given)
        assert alone.encoder[0].tolist() == whole.encoder[index].tolist()
    other = denoising.denoise_batch(texts, range(40, 80), **given)
    assert not np.array_equal(other.tasks, whole.tasks)
    other = denoising.denoise_batch(texts, range(40), **{**given, "seed": 10})
    assert not np.array_equal(other.tasks, whole.tasks)


def test_any_number_of_threads_writes_the_same() -> None:
    """Enough tokens that several threads do start."""
    texts = texts_of(900, 568)
    batches = [
        as_lists(denoising.denoise_packed(texts, range(900), seed=1, threads=threads))
        for threads in (1, 2, 5, None)
    ]
    assert texts.size > 3 * 2**17
    assert all(batch == batches[0] for batch in batches[1:])


def test_several_python_threads_at_once() -> None:
    texts = texts_of(60, 568)
    expected = as_lists(denoising.denoise_packed(texts, range(60), seed=1))
    found: list[Any] = []

    def run() -> None:
        found.extend(as_lists(denoising.denoise_packed(texts, range(60), seed=1)) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(batch == expected for batch in found)


def test_tasks_follow_the_weights() -> None:
    plan = denoising.plan_batch([16] * 70_000, range(70_000), seed=3)
    assert is_uniform(np.bincount(plan.tasks, minlength=7))
    weights = [0.02, 0.02, 0.8, 0.1, 0.0, 0.04, 0.02]
    denoisers = [replace(one, weight=10 * w) for one, w in zip(ul2(), weights, strict=True)]
    plan = denoising.plan_batch([16] * 70_000, range(70_000), seed=3, denoisers=denoisers)
    counts = np.bincount(plan.tasks, minlength=7)
    assert counts[4] == 0
    spread = np.sqrt(70_000 * np.array(weights) * (1 - np.array(weights)))
    assert (np.abs(counts - 70_000 * np.array(weights)) <= 4.5 * spread).all()


@pytest.mark.parametrize(("length", "most"), [(568, 142), (16, 4), (10, 2), (7, 2), (2, 1), (3, 1)])
def test_suffixes_are_uniform(length: int, most: int) -> None:
    plan = denoising.plan_batch([length] * 60_000, range(60_000), seed=1, tasks=[2] * 60_000)
    counts = np.bincount(plan.decoder_lengths - 2)
    assert len(counts) == most + 1
    assert counts[0] == 0
    assert most == 1 or is_uniform(counts[1:])


@pytest.mark.parametrize(("mean_span", "length"), [(3, 12), (3, 20), (2, 12), (1, 9), (5, 24)])
def test_compositions_are_uniform(mean_span: float, length: int) -> None:
    """Pairs of the compositions of noise and of what is kept: all are alike."""
    denoiser = Denoiser(name="", kind="spans", density=0.5, mean_span=mean_span)
    kept, noise = spans_of(denoiser, length, 60_000)
    assert all(sum(row) == round(length / 2) for row in noise)
    for rows, size in ((noise, round(length / 2)), (kept, length - round(length / 2))):
        found = Counter(rows)
        spans = len(rows[0])
        possible = 1
        for place in range(spans - 1):
            possible = possible * (size - 1 - place) // (place + 1)
        assert len(found) == possible
        assert possible == 1 or is_uniform(np.array(list(found.values())))
    pairs = Counter(zip(noise, kept, strict=True))
    assert len(pairs) == len(set(noise)) * len(set(kept))
    assert len(pairs) == 1 or is_uniform(np.array(list(pairs.values())))


def test_long_compositions_are_uniform() -> None:
    """Each place between two tokens of the noise is chosen as often."""
    denoiser = ul2()[3]
    noise = spans_of(denoiser, 568, 4_000)[1]
    ends = np.cumsum(noise, axis=1)
    assert ends.shape == (4_000, 95)
    counts = np.bincount(ends[:, :-1].ravel(), minlength=284)
    assert counts[0] == 0
    # 94 of 283 places are taken together: less spread than that of as many draws.
    assert np.abs(counts[1:] - 4_000 * 94 / 283).max() < 4.5 * np.sqrt(4_000 * 94 / 283 * 189 / 283)


def test_mixes_are_those_of_the_paper() -> None:
    mix = o_ul2()[1]
    shipped = replace(o_ul2(as_shipped=True)[1], weight=1)
    for denoiser in (mix, shipped):
        kept, noise = spans_of(denoiser, 2_048, 20_000)
        assert {sum(row) for row in noise} == {850}
        assert {sum(row) for row in kept} == {850}
        assert [len(row) for row in kept] == [len(row) for row in noise]
        suffixes = np.array([row[-1] for row in noise])
        spans = np.array([len(row) for row in noise])
        if denoiser is mix:
            assert (spans.min(), spans.max()) == (93, 100)
        else:
            assert (spans.min(), spans.max()) == (93, 106)
            assert abs((spans > 100).mean() - 0.418) < 0.02
            assert abs(spans.mean() - 99.7) < 0.2
        # What rounding leaves of the spans goes to the suffix, or comes from it.
        assert 168 <= suffixes.min() <= 171
        assert 254 <= suffixes.max() <= 257
        assert abs(suffixes.mean() - 212.5) < 1
        # Spans are in no order: the first is as long as the one before the last.
        others = [np.mean([row[place] for row in noise]) for place in (0, 1, -3, -2)]
        assert np.ptp(others) < 0.6


def test_as_shipped_is_always_the_suffix() -> None:
    plan = denoising.plan_batch([2_048] * 500, range(500), seed=1, denoisers=o_ul2(as_shipped=True))
    assert not plan.tasks.any()
    assert {*plan.encoder_lengths.tolist()} == {1_027}
    assert {*plan.decoder_lengths.tolist()} == {1_026}
    assert o_ul2(as_shipped=True)[1].prefix == 250_201
    assert o_ul2()[1].prefix == 250_202


@pytest.mark.parametrize("kind", ["spans", "mix"])
def test_spans_that_outnumber_sentinels(kind: str) -> None:
    texts, ids = texts_of(9, 400), SpecialIds(sentinel_count=5)
    made = {}
    for excess in ("cap", "run_on"):
        denoiser = Denoiser(name="", kind=kind, density=0.5, mean_span=3, excess=excess)
        made[excess] = denoising.denoise_packed(
            texts, range(9), seed=1, denoisers=[denoiser], ids=ids
        )
        assert sum(len(row) for row in texts) == 3_600
    lowest = {
        excess: int(batch.encoder[batch.encoder > 60_000].min()) for excess, batch in made.items()
    }
    assert lowest["cap"] == ids.first_sentinel - 4
    assert lowest["run_on"] < ids.first_sentinel - 20
    refused = [Denoiser(name="", kind=kind, density=0.5, mean_span=3, excess="refuse")]
    with pytest.raises(
        ValueError, match=r"^tokens\[0\] must be at most 5 noise spans, one for each"
    ):
        denoising.denoise_batch(texts, range(9), seed=1, denoisers=refused, ids=ids)
    low = SpecialIds(first_sentinel=9, sentinel_count=5)
    run_on = [replace(refused[0], excess="run_on")]
    with pytest.raises(ValueError, match=r"^tokens\[0\] must be at most 10 noise spans, one for"):
        denoising.plan_batch([400], [0], seed=1, denoisers=run_on, ids=low)


def test_batches_without_samples() -> None:
    batch = denoising.denoise_batch(np.zeros((0, 9), np.int64), [], seed=1)
    assert batch.encoder.shape == batch.labels.shape == (0, 0)
    packed = denoising.denoise_packed([], [], seed=1)
    assert packed.encoder_offsets.tolist() == packed.decoder_offsets.tolist() == [0]
    pairs = denoising.pair_batch([], [], encoder_width=9, decoder_width=9)
    assert pairs.encoder.shape == (0, 9)


def test_pairs_are_cut_where_there_is_no_room() -> None:
    ids = SpecialIds(vocabulary_size=250_204)
    for source in (0, 1, 6, 7, 8, 20):
        for target in (0, 1, 5, 6, 7, 20):
            x, y = texts_of(2, max(source, target), seed=1)
            x, y = x[:source], y[:target]
            batch = denoising.pair_batch([x], [y], encoder_width=10, decoder_width=8, ids=ids)
            read, fed, asked = x[:7].tolist(), y[:6].tolist(), y[:7].tolist()
            encoder = [250_201, *read, 250_199, 1]
            assert batch.encoder[0].tolist() == encoder + [0] * (10 - len(encoder))
            decoder = [0, 250_199, *fed]
            assert batch.decoder[0].tolist() == decoder + [0] * (8 - len(decoder))
            assert batch.labels[0].tolist() == [250_199, *asked] + [-100] * (7 - len(asked))
            assert batch.encoder_lengths.tolist() == [len(encoder)]
            assert batch.decoder_lengths.tolist() == [len(decoder)]
            assert batch.dropped.tolist() == [[source - len(read), target - len(asked)]]


# Parity.


@st.composite
def special_ids(draw: st.DrawFn) -> SpecialIds:
    size = draw(st.sampled_from([12, 300, 250_203, 2**31 - 1]))
    first = draw(st.integers(0, size - 1))
    inside = st.integers(0, size - 1)
    return SpecialIds(
        vocabulary_size=size,
        first_sentinel=first,
        sentinel_count=draw(st.integers(1, min(first + 1, 120))),
        eos=draw(inside),
        bos=draw(inside),
        pad=draw(inside),
        label_padding=draw(st.integers(-(2**31), 2**31 - 1)),
    )


def denoisers_of(ids: SpecialIds) -> st.SearchStrategy[list[Denoiser]]:
    one = st.builds(
        Denoiser,
        name=st.just(""),
        kind=st.sampled_from(KINDS),
        density=st.one_of(st.sampled_from([0.15, 0.25, 0.5]), st.floats(1e-9, 1, exclude_max=True)),
        prefix=st.one_of(st.none(), st.integers(0, ids.vocabulary_size - 1)),
        mean_span=st.one_of(st.sampled_from([1.0, 3, 8, 64]), st.floats(1, 1e300)),
        weight=st.one_of(st.just(1.0), st.just(0.0), st.floats(1e-300, 1e300)),
        max_length=st.one_of(st.none(), st.integers(2, 200)),
        excess=st.sampled_from(EXCESS_RULES),
    )
    return st.lists(one, min_size=1, max_size=4)


@given(st.data(), special_ids(), st.integers(0, 2**64 - 1))
def test_batches_agree(data: st.DataObject, ids: SpecialIds, seed: int) -> None:
    denoisers = data.draw(denoisers_of(ids))
    sizes = data.draw(
        st.lists(st.sampled_from([0, 1, *[2, 3, 4, 5, 9, 31, 64, 65, 130] * 4]), max_size=4)
    )
    rows = [(np.arange(size) * 7 % ids.vocabulary_size).tolist() for size in sizes]
    if sizes and sizes[0] and data.draw(st.integers(0, 9)) == 0:
        rows[0][-1] = data.draw(st.sampled_from([-1, ids.vocabulary_size, 2**40]))
    count = len(rows)
    indices = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count))
    tasks = data.draw(
        st.none() | st.lists(st.integers(0, len(denoisers) - 1), min_size=count, max_size=count)
    )
    settings = {"seed": seed, "denoisers": denoisers, "ids": ids, "tasks": tasks}
    widths = {
        name: data.draw(st.none() | st.integers(1, 200))
        for name in ("encoder_width", "decoder_width")
    }
    both("plan_batch", sizes, indices, **settings)
    both("denoise_batch", rows, indices, **settings)
    both("denoise_batch", rows, indices, **settings, **widths)
    both("denoise_packed", rows, indices, **settings)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("length", [568, 2_048, 4_000])
def test_longer_batches_agree(mixture: str, length: int) -> None:
    """Samples over many groups of words."""
    denoisers = MIXTURES[mixture]
    indices = [2**64 - 1 - row for row in range(2 * len(denoisers))]
    tasks = [row % len(denoisers) for row in range(len(indices))]
    both(
        "denoise_batch",
        texts_of(len(indices), length),
        indices,
        seed=2**64 - 1,
        denoisers=denoisers,
        tasks=tasks,
    )


def test_very_many_spans_agree() -> None:
    """More spans than are written between two looks at whether the caller stops, twice over."""
    denoiser = Denoiser(name="", kind="spans", density=0.5, mean_span=1, excess="run_on")
    ids = SpecialIds(vocabulary_size=65_000, first_sentinel=64_999)
    given: dict[str, Any] = {"seed": 5, "denoisers": [denoiser], "ids": ids}
    texts = texts_of(1, 20_000)
    both("denoise_batch", texts, [3], **given)
    read = denoising.denoise_batch(texts, [3], **given).encoder[0]
    assert len({*read.tolist()} - {*texts[0].tolist()}) > 2 * 4_096


@given(special_ids(), st.data())
def test_given_spans_agree(ids: SpecialIds, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(-1, 9), max_size=9))
    size = max(sum(lengths) + data.draw(st.integers(-1, 12)), 0)
    tokens = [place * 5 % ids.vocabulary_size for place in range(size)]
    if tokens and data.draw(st.integers(0, 5)) == 0:
        tokens[-1] = ids.vocabulary_size
    prefix = data.draw(st.none() | st.integers(-1, ids.vocabulary_size))
    both("apply_spans", tokens, lengths, prefix=prefix, ids=ids)


@given(special_ids(), st.data())
def test_pairs_agree(ids: SpecialIds, data: st.DataObject) -> None:
    inside = st.lists(st.integers(0, ids.vocabulary_size - 1), max_size=20)
    token = st.lists(st.sampled_from([1, -1, ids.vocabulary_size]), max_size=2)
    texts = st.lists(st.one_of(inside, inside, inside, token), max_size=3)
    sources = data.draw(texts)
    targets = [data.draw(inside) for _ in sources] if data.draw(st.booleans()) else data.draw(texts)
    widths = {
        "encoder_width": data.draw(st.integers(2, 20)),
        "decoder_width": data.draw(st.integers(1, 20)),
    }
    prefix = data.draw(st.none() | st.integers(0, ids.vocabulary_size))
    both("pair_batch", sources, targets, prefix=prefix, ids=ids, **widths)
