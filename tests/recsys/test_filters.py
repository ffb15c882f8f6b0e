"""`recsys.filters`: the k-core is what a slow definition says, and a model's catalogue keeps it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.recsys import filters
from lmcore.recsys.filters import filter_interactions, keep_items
from lmcore.recsys.ids import IdMap
from lmcore.recsys.interactions import Interactions, make_interactions
from lmcore.recsys.reading import read_interactions

Pairs = list[tuple[int, int]]

random_pairs = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=60)
# Users and items in a row: for k = 2 each round takes only the two ends away.
chains = st.integers(1, 30).map(lambda n: [(u, u + more) for u in range(1, n) for more in (0, 1)])
some_pairs = random_pairs | st.tuples(random_pairs, chains).map(
    lambda both: both[0] + [(user + 20, item + 20) for user, item in both[1]]
)


def from_pairs(pairs: Pairs) -> Interactions:
    """Interactions whose times are the rows, so that it can be told which are kept."""
    rows = sorted(enumerate(pairs), key=lambda row: row[1][0])
    users = max(user for user, _ in pairs)
    counts = Counter(user for user, _ in pairs)
    offsets = np.cumsum([0, *(counts[user] for user in range(1, users + 1))])
    items = [item for _, (_, item) in rows]
    return make_interactions(offsets, items, times=[row for row, _ in rows])


def find_core(pairs: Pairs, of_user: int, of_item: int) -> list[int]:
    """Rows that stay, by the definition: drop all that have too few, again and again."""
    rows = list(range(len(pairs)))
    while True:
        users = Counter(pairs[row][0] for row in rows)
        items = Counter(pairs[row][1] for row in rows)
        kept = [r for r in rows if users[pairs[r][0]] >= of_user and items[pairs[r][1]] >= of_item]
        if kept == rows:
            return rows
        rows = kept


def rows_of(interactions: Interactions) -> list[tuple[int, int, int]]:
    """Time, original user and original item."""
    assert interactions.times is not None
    users = np.repeat(np.asarray(interactions.user_ids), np.diff(interactions.offsets))
    items = np.asarray(interactions.item_ids)[interactions.items - 1]
    return list(zip(interactions.times.tolist(), users.tolist(), items.tolist(), strict=True))


@given(pairs=some_pairs, of_user=st.integers(1, 4), of_item=st.integers(1, 4), peels=st.booleans())
def test_the_filter_keeps_the_largest_core(
    pairs: Pairs, of_user: int, of_item: int, peels: bool
) -> None:
    expected = find_core(pairs, of_user, of_item)
    interactions = from_pairs(pairs)
    with pytest.MonkeyPatch.context() as patch:
        if peels:  # what takes over where sweeps take little away
            patch.setattr(filters, "_SWEEP_SHARE", 2.0)
        if not expected:
            with pytest.raises(ValueError, match="no interaction is left where each user has at"):
                filter_interactions(interactions, min_user=of_user, min_item=of_item)
            return
        found, report = filter_interactions(interactions, min_user=of_user, min_item=of_item)
    # All of them, in their order.
    order = sorted(expected, key=lambda row: pairs[row][0])
    assert rows_of(found) == [(row, *pairs[row]) for row in order]
    assert report.interactions == (len(pairs), len(expected))
    assert report.users == (interactions.user_count, len({pairs[row][0] for row in expected}))
    assert report.items == (interactions.item_count, len({pairs[row][1] for row in expected}))
    assert found.filtered == report
    sizes = (found.report.users, found.report.items, found.report.interactions)
    assert sizes == (report.users[1], report.items[1], report.interactions[1])
    assert found.report.repeated == len(expected) - len({pairs[row] for row in expected})
    assert set(found.items.tolist()) == set(range(1, found.item_count + 1))
    # Once more changes nothing.
    again, _ = filter_interactions(found, min_user=of_user, min_item=of_item)
    assert rows_of(again) == rows_of(found)


@given(pairs=some_pairs, of_user=st.integers(1, 4), of_item=st.integers(1, 4))
def test_the_catalogue_of_a_filter_gives_what_the_filter_gave(
    pairs: Pairs, of_user: int, of_item: int
) -> None:
    if not find_core(pairs, of_user, of_item):
        return
    interactions = from_pairs(pairs)
    filtered, _ = filter_interactions(interactions, min_user=of_user, min_item=of_item)
    found = keep_items(interactions, filtered.id_map, of_user)
    assert rows_of(found) == rows_of(filtered)
    np.testing.assert_array_equal(found.items, filtered.items)
    np.testing.assert_array_equal(found.offsets, filtered.offsets)


def test_core_is_both_numbers_and_the_larger_one_counts() -> None:
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (3, 3)]
    interactions = from_pairs(pairs)

    def kept(**least: int) -> list[int]:
        return [row for row, _, _ in rows_of(filter_interactions(interactions, **least)[0])]

    assert kept(core=2) == [0, 1, 2, 3, 4, 5, 6, 7]  # repeated interactions count each time
    assert kept(core=2, min_item=3) == kept(min_user=2, min_item=3) == [0, 1, 2, 3, 4, 5]
    assert kept(core=1, min_user=3) == [4, 5, 6, 7]
    assert kept(core=1) == kept() == list(range(8))


def test_texts_keep_their_ids_and_order() -> None:
    rows = make_interactions([0, 2, 4, 5], [1, 3, 1, 3, 2])
    ids = IdMap(("cy", "ann", "bob"), ("z", "y", "a"))
    named = Interactions(rows.offsets, rows.items, ids, rows.report)
    found, report = filter_interactions(named, core=2)
    assert (found.user_ids, found.item_ids, found.times) == (("cy", "ann"), ("z", "a"), None)
    assert report.to_dict() == {"min_user": 2, "min_item": 2}
    kept = keep_items(named, found.id_map, 2)
    assert (kept.user_ids, kept.items.tolist()) == (("cy", "ann"), [1, 2, 1, 2])
    # Integers are known by how they would be printed.
    known = IdMap((), ("3", "x", "1"))
    assert keep_items(rows, known, 1).items.tolist() == [3, 1, 3, 1]


def test_bad_numbers() -> None:
    rows = make_interactions([0, 2], [1, 2])
    for name in ("core", "min_user", "min_item"):
        for value in (0, -1):
            with pytest.raises(ValueError, match=f"^{name} must be at least "):
                filter_interactions(rows, **{name: value})
        with pytest.raises(TypeError, match=f"^{name} must be an integer: got 2.5"):
            filter_interactions(rows, **{name: 2.5})  # type: ignore[arg-type]
    counts = "2 interactions of 1 user with 2 items"
    with pytest.raises(ValueError, match=f"^no interaction is left .*: there were {counts}$"):
        filter_interactions(rows, core=3)
    with pytest.raises(ValueError, match="no interaction is left of items that the model knows"):
        keep_items(rows, IdMap.identity(0, 0), 1)


def test_long_chains_end() -> None:
    """Each round takes two rows away: rounds over all rows would take as many times as long."""
    users = np.repeat(np.arange(5_000), 2)
    rows = make_interactions(np.arange(5_001) * 2, users + 1 + np.tile([0, 1], 5_000))
    with pytest.raises(ValueError, match="no interaction is left"):
        filter_interactions(rows, core=2)


def test_five_core_data_are_a_five_core(data_dir: object) -> None:
    path = f"{data_dir}/recsys/Beauty_5core_pairs.txt"
    interactions = read_interactions(path)
    found, report = filter_interactions(interactions, core=5)
    assert report.interactions == (198_502, 198_502)
    np.testing.assert_array_equal(found.items, interactions.items)
    six, report = filter_interactions(interactions, core=6)
    assert report.interactions[1] < 198_502
    assert np.diff(six.offsets).min() >= 6
    assert np.bincount(six.items)[1:].min() >= 6
