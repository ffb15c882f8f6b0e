"""`recsys.splits`: parts are disjoint and complete, in order, and say what leaks."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lmcore.recsys.data import Split, leave_one_out, make_split
from lmcore.recsys.fingerprint import find_fingerprint
from lmcore.recsys.interactions import Interactions, make_interactions
from lmcore.recsys.rules import SplitRule, parse_time
from lmcore.recsys.splits import find_leakage, leave_last, split_by_time, split_interactions

Rows = list[list[tuple[int, int]]]
"""Time and item of each user, sorted by time."""

histories = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=9).map(
        lambda row: sorted(row, key=lambda pair: pair[0])
    ),
    min_size=1,
    max_size=8,
)


def from_rows(rows: Rows) -> Interactions:
    offsets = np.cumsum([0, *map(len, rows)])
    flat = [pair for row in rows for pair in row]
    return make_interactions(offsets, [i for _, i in flat], 9, times=[t for t, _ in flat])


def parts_of(split: Split) -> list[tuple[list[int], list[int], list[int]]]:
    """Each user's items in training, validation and test, targets or not."""
    items, offsets = split.interactions.items.tolist(), split.interactions.offsets.tolist()
    ends = (split.train_ends.tolist(), split.valid_ends.tolist(), offsets[1:])
    bounds = zip(offsets[:-1], *ends, strict=True)
    return [(items[a:b], items[b:c], items[c:d]) for a, b, c, d in bounds]


def targets_of(split: Split, part: str) -> list[list[int]]:
    targets = split.test_targets if part == "test" else split.valid_targets
    return [targets.items[a:b].tolist() for a, b in pairwise(targets.offsets.tolist())]


def check(split: Split, rows: Rows) -> None:
    """What holds of any split."""
    parts = parts_of(split)
    # Disjoint, complete and in order.
    assert [[*a, *b, *c] for a, b, c in parts] == [[item for _, item in row] for row in rows]
    bounds = split.train_offsets.tolist()
    parted = [split.train_items[a:b].tolist() for a, b in pairwise(bounds)]
    assert parted == [part[0] for part in parts]
    known = set(split.train_items.tolist())
    cold = 0
    for name, index in (("valid", 1), ("test", 2)):
        expected = []
        for part in parts:
            inputs = [item for own in part[:index] for item in own]
            held = list(dict.fromkeys(part[index])) if inputs else []
            cold += len(set(held) - known)
            drops = split.rule.cold_items == "drop"
            expected.append([item for item in held if item in known or not drops])
        assert targets_of(split, name) == expected
        users = [user for user, held in enumerate(expected, 1) if held]
        found = split.sequences(name, 4)
        offsets, columns = split.history(name)
        assert found.users.tolist() == users
        for m, user in enumerate(users):
            inputs = [item for own in parts[user - 1][:index] for item in own]
            assert [item for item in found.sequences[m].tolist() if item] == inputs[-4:]
            assert (columns[offsets[m] : offsets[m + 1]] + 1).tolist() == inputs
            held = found.targets[found.target_offsets[m] : found.target_offsets[m + 1]]
            assert held.tolist() == expected[user - 1]
        report = split.report.to_dict()
        assert report[f"{name}_users"] == len(users)
        assert report[f"{name}_targets"] == sum(map(len, expected)) == found.target_offsets[-1]
    assert split.report.cold_targets == cold
    assert split.report.training == len(split.train_items)
    assert split.report.users_without_input == sum(
        (not a and bool(b)) or (not a and not b and bool(c)) for a, b, c in parts
    )
    targets = zip(targets_of(split, "valid"), targets_of(split, "test"), strict=True)
    assert split.training_only_count == sum(not valid and not test for valid, test in targets)


@given(rows=histories, count=st.integers(1, 4), cold=st.sampled_from(["keep", "drop"]))
def test_leave_last(rows: Rows, count: int, cold: Any) -> None:
    split = leave_last(from_rows(rows), count, cold_items=cold)
    check(split, rows)
    for row, (_, valid, test) in zip(rows, parts_of(split), strict=True):
        held = count if len(row) > 2 * count else 0
        assert (len(valid), len(test)) == (held, held)


@given(rows=histories)
def test_leave_last_1_is_leave_one_out(rows: Rows) -> None:
    one, last = leave_one_out(from_rows(rows)), leave_last(from_rows(rows), 1)
    assert parts_of(one) == parts_of(last)
    for name in ("valid", "test"):
        np.testing.assert_array_equal(getattr(one, name), getattr(last, name))
    assert one.report == last.report
    check(one, rows)


@given(rows=histories, first=st.integers(-1, 21), more=st.integers(0, 9), cold=st.booleans())
def test_split_by_time(rows: Rows, first: int, more: int, cold: bool) -> None:
    interactions = from_rows(rows)
    times = [time for row in rows for time, _ in row]
    assume(times)
    bounds: dict[str, Any] = {"valid_from": first, "test_from": first + more}
    if min(times) >= first:
        with pytest.raises(ValueError, match=f"^valid_from {first} leaves no training item: the "):
            split_by_time(interactions, **bounds)
        return
    split = split_by_time(interactions, **bounds, cold_items="keep" if cold else "drop")
    check(split, rows)
    for row, (train, valid, test) in zip(rows, parts_of(split), strict=True):
        assert train == [item for time, item in row if time < first]
        assert valid == [item for time, item in row if first <= time < first + more]
        assert test == [item for time, item in row if time >= first + more]
    leakage = find_leakage(split)
    assert leakage is None or (leakage.later_share, leakage.mean_share) == (0, 0)
    # What it was resolved to gives the same split again.
    again = split_interactions(interactions, split.rule)
    assert (parts_of(again), again.rule) == (parts_of(split), split.rule)


@given(rows=histories, count=st.integers(1, 2))
def test_leakage_is_what_its_words_say(rows: Rows, count: int) -> None:
    split = leave_last(from_rows(rows), count)
    training, tested = [], []
    for row, (train, _, test) in zip(rows, parts_of(split), strict=True):
        training += [time for time, _ in row[: len(train)]]
        tested += [time for time, _ in row[len(row) - len(test) :]] if test else []
    found = find_leakage(split)
    if not training or not tested:
        assert found is None
        return
    assert found is not None
    shares = [np.mean(np.array(training) > time) for time in tested]
    assert found.later_share == pytest.approx(shares[int(np.argmin(tested))])
    assert found.mean_share == pytest.approx(np.mean(shares))


def test_quantiles_are_shares_of_the_interactions() -> None:
    rows = make_interactions([0, 50, 100], [1] * 100, times=[*range(50), *range(50, 100)])
    split = split_by_time(rows)
    assert (split.rule.valid_from, split.rule.test_from) == (80, 90)
    assert split.rule.valid_quantile is None
    split = split_by_time(rows, valid_quantile=0.29, test_from=70)
    assert (split.rule.valid_from, split.report.training) == (29, 29)
    assert split.rule == SplitRule(by="time", valid_from=29, test_from=70)
    # What has the same time is in the same part.
    tied = make_interactions([0, 5], [1, 2, 3, 1, 2], times=[1, 2, 2, 2, 3])
    split = split_by_time(tied, valid_quantile=0.5, test_quantile=0.9, cold_items="keep")
    assert parts_of(split) == [([1], [2, 3, 1], [2])]


def test_dates() -> None:
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"], "datetime64[D]")
    rows = make_interactions([0, 4], [1, 1, 1, 1], times=days)
    assert rows.times is not None
    assert rows.times.dtype == "datetime64[ns]"
    bounds: list[Any] = [
        "2020-01-03", np.datetime64("2020-01-03T00"), datetime(2020, 1, 3),
        datetime(2020, 1, 3, tzinfo=UTC),
    ]  # fmt: skip
    for bound in bounds:
        split = split_by_time(rows, valid_from=bound, test_from="2020-01-04 00:00:00")
        assert parts_of(split) == [([1, 1], [1], [1])]
        # Runs have it so in their recipes, and are held to it.
        assert split.rule.valid_from == "2020-01-03T00:00:00.000000000"
        assert split.rule.describe().startswith("by time, valid_from 2020-01-03, test_from 2020-")
        assert split_interactions(rows, split.rule).rule == split.rule
    assert split_by_time(rows, valid_quantile=0.5).rule.valid_from == split.rule.valid_from


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"valid_from": 30, "test_from": 20}, "valid_from must not be after test_from: got 30 an"),
        ({"valid_from": 10, "test_from": 20}, "valid_from 10 leaves no training item: the first"),
        ({"valid_from": "2020-01-01"}, "valid_from must be a number, as the times of the data ar"),
        ({"test_from": float("nan")}, "test_from must be "),
        ({"valid_from": 20, "valid_quantile": 0.5}, "valid_from and valid_quantile say the same"),
        ({"valid_quantile": 0.9, "test_quantile": 0.1}, "valid_from must not be after test_from"),
        ({"test_from": 5}, r"valid_from .* got \d+ \(at 0.8 of the interactions\) and 5$"),
        ({"valid_from": 99}, r"valid_from .* got 99 and \d+ \(at 0.9 of the interactions\)$"),
        ({"valid_quantile": 0.0}, "valid_quantile must be "),
        ({"test_quantile": 1.0}, "test_quantile must be "),
        ({"test_quantile": -0.1}, "test_quantile must be "),
        ({"test_quantile": float("nan")}, "test_quantile must be "),
        ({"cold_items": "last"}, "cold_items must be "),
    ],
)
def test_bad_times(arguments: Any, problem: str) -> None:
    rows = make_interactions([0, 3], [1, 2, 3], times=[10, 20, 30])
    with pytest.raises((TypeError, ValueError), match=f"^{problem}") as caught:
        split_by_time(rows, **arguments)
    assert "\n" not in str(caught.value)


def test_splits_without_times_or_rows() -> None:
    with pytest.raises(ValueError, match="a split by time needs times: the interactions have non"):
        split_by_time(make_interactions([0, 3], [1, 2, 3]), valid_from=1, test_from=2)
    with pytest.raises(ValueError, match="a split by time needs interactions: there are none"):
        split_by_time(make_interactions([0], [], times=[]))
    assert find_leakage(leave_one_out(make_interactions([0, 3], [1, 2, 3]))) is None
    dated = make_interactions([0, 2], [1, 2], times=np.array(["2020", "2021"], "datetime64[Y]"))
    for time in (5, "now", "NaT", "0001-01-01", "9999-01-01", ""):
        with pytest.raises(ValueError, match="valid_from must be a date, as the times of the"):
            split_by_time(dated, valid_from=time, test_from="2021-01-01")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"by": "random"}, "split must be by one of leave-one-out, leave-last, time: got 'random'"),
        ({"by": "leave-last"}, "last must be given where items are split by leave-last"),
        ({"by": "leave-last", "last": 0}, "last must be "),
        ({"last": 2}, "last is not for a split by leave-one-out"),
        ({"by": "time", "last": 2}, "last is not for a split by time"),
        ({"by": "leave-last", "last": 1, "valid_from": 3}, "valid_from is not for a split by leav"),
        ({"test_quantile": 0.5}, "test_quantile is not for a split by leave-one-out"),
    ],
)
def test_bad_rules(fields: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        SplitRule(**fields)


def test_parts_must_be_in_order() -> None:
    rows = make_interactions([0, 2, 4], [1, 2, 3, 4])
    for train, valid in (([2, 5], [2, 5]), ([2, 3], [1, 4]), ([2, 1], [2, 4]), ([2], [2])):
        with pytest.raises(ValueError, match="parts must be in order for each of the users"):
            make_split(rows, np.array(train), np.array(valid), SplitRule())


def test_times_must_fit_the_interactions() -> None:
    with pytest.raises(ValueError, match="times must ascend for each user: they fall after row 2"):
        make_interactions([0, 2, 4], [1, 2, 3, 4], times=[5, 6, 2, 1])
    with pytest.raises(ValueError, match=r"times must be 2, one for each interaction: got \(1,\)"):
        make_interactions([0, 2], [1, 2], times=[5])
    for times in ([1.0, np.nan], [np.inf, 1.0], np.array(["NaT", "2020"], "datetime64[s]")):
        with pytest.raises(ValueError, match="times must be finite"):
            make_interactions([0, 1, 2], [1, 2], times=times)
    with pytest.raises(ValueError, match="times must be finite and fit 64 bits: got 0001-01-01 at"):
        make_interactions([0, 1], [1], times=np.array(["0001-01-01"], "datetime64[D]"))
    with pytest.raises(TypeError, match="times must be numbers or dates: got <U1"):
        make_interactions([0, 1], [1], times=["a"])


def test_several_targets_are_not_taken_for_one() -> None:
    split = leave_last(make_interactions([0, 5], [1, 2, 3, 4, 5]), 2)
    for name in ("valid", "test"):
        with pytest.raises(ValueError, match=f"^a user has several {name} targets: take {name}_ta"):
            getattr(split, name)


def test_another_split_has_another_fingerprint() -> None:
    rows = make_interactions([0, 7], [1, 2, 3, 1, 2, 3, 4], times=range(7))
    splits = [
        leave_one_out(rows), leave_last(rows, 2), leave_last(rows, 3),
        leave_last(rows, 2, cold_items="drop"), split_by_time(rows, valid_from=5, test_from=6),
        split_by_time(rows, valid_from=4, test_from=6),
        split_by_time(rows, valid_from=4, test_from=5),
    ]  # fmt: skip
    found = [find_fingerprint(split) for split in splits]
    assert len(set(found)) == len(splits)
    # Times do not count but by what they split; runs of leave-one-out from before go on.
    assert find_fingerprint(leave_one_out(replace(rows, times=None))) == found[0]


@pytest.mark.parametrize("text", ["", "x", "1e9", "nan", "2014", "14-01-01", "2" * 30, "2014-07-1"])
def test_times_of_a_command_line(text: str) -> None:
    if text == "2014":
        assert parse_time("test_from", text) == 2014
        return
    with pytest.raises(ValueError, match=r"^test_from must be a number or a date such as"):
        parse_time("test_from", text)
