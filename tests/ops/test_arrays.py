"""Arrays of any layout, and ids that no int64 holds, in all ops that take arrays."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lmcore import _core
from lmcore.ops.false_negatives import FalseNegativeMemory, Reversed
from lmcore.ops.lcs import longest_common_subsequence
from lmcore.ops.negatives import Batch, SequenceSampler
from lmcore.ops.philox import random_bits
from lmcore.ops.ranking import rank_targets, ranking_metrics
from lmcore.ops.schedule import shift_timesteps
from lmcore.ops.vocabulary import rank_ids
from lmcore.reference import false_negatives as false_negatives_reference
from lmcore.reference import negatives as negatives_reference
from lmcore.reference import ranking as ranking_reference
from lmcore.reference._arguments import check_int, id_in_range
from parity import agree

Layout = Callable[[NDArray[Any]], NDArray[Any]]


def unaligned(array: NDArray[Any]) -> NDArray[Any]:
    """The same values at an odd address."""
    packed = np.zeros(array.nbytes + 1, np.uint8)
    moved = packed[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned or array.itemsize == 1 or array.size == 0
    return moved


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Layout] = {
    "unaligned": unaligned,
    "swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned and swapped": lambda array: unaligned(array.astype(array.dtype.newbyteorder())),
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "backwards": lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    "columns": np.asfortranarray,
    "frozen": frozen,
}


def rank_all(layout: Layout) -> Any:
    scores = np.arange(12, dtype=np.float32).reshape(3, 4) % 5
    targets = (np.array([1, 0, 3]), np.array([0, 2, 2, 3]), np.array([0, 2, 1]))
    ranks, ties = rank_targets(layout(scores), *map(layout, targets))
    assert rank_targets(layout(scores.astype(float)), *targets).ranks.tolist() == ranks.tolist()
    return ranks.tolist(), ties.tolist(), ranking_metrics(layout(ranks))


def sample_all(layout: Layout) -> Any:
    offsets, items = layout(np.array([0, 3, 5])), layout(np.array([1, 2, 4, 3, 1]))
    for distribution in ("uniform", "popularity"):
        sampler = SequenceSampler(
            offsets, items, 9, batch_size=2, max_length=3, distribution=distribution
        )
    users, exclude = layout(np.array([1, 2])), layout(np.array([[5, 6], [7, 8]]))
    return sampler.sample(0, 0).negatives.tolist(), sampler.candidates(
        users, 9, exclude=exclude
    ).tolist()


def remember_all(layout: Layout) -> Any:
    memory, users = FalseNegativeMemory(threshold=0), layout(np.array([1, 2]))
    positives = layout(np.array([[0, 3], [3, 4]]))
    flat_indices = layout(np.array([1, 2, 3]))
    scores = layout(np.array([[[0.0, 1, -1]] * 2] * 2, np.float32))
    mask = layout(np.array([[True, False]] * 3))
    seen = []
    for _ in range(2):
        negatives = np.arange(1, 9).reshape(2, 2, 2)
        reversed_ = memory.inject(users, positives, negatives)
        coordinates = layout(reversed_.coordinates)
        reversed_ = Reversed(coordinates, reversed_.counts, reversed_.blocks)
        shown = negatives if layout is LAYOUTS["swapped"] else layout(negatives)
        if shown.dtype != np.int64:
            shown = negatives
        memory.observe(users, positives, shown, scores, reversed_)
        packed = negatives.reshape(4, 2)[1:].copy()
        reversed_ = memory.inject_packed(users, flat_indices, 2, packed)
        memory.observe_packed(users, flat_indices, 2, packed, mask, reversed_)
        seen.append((negatives.tolist(), packed.tolist(), coordinates.tolist()))
    state = memory.state_dict()
    memory.load_state_dict(
        {name: layout(part) if part.ndim else part for name, part in state.items()}
    )
    return seen, {name: part.tolist() for name, part in memory.state_dict().items()}


USES: dict[str, Callable[[Layout], Any]] = {
    "philox": lambda layout: random_bits(1, 2, layout(np.arange(6).reshape(2, 3)), 3).tolist(),
    "philox unsigned": lambda layout: random_bits(
        1, 2, layout(np.arange(6, dtype=np.uint64)), 3
    ).tolist(),
    "lcs": lambda layout: longest_common_subsequence(
        layout(np.array([1, 2, 3, 1])), layout(np.array([3, 1, 3]))
    ).tolist(),
    "ranking": rank_all,
    "negatives": sample_all,
    "false_negatives": remember_all,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("use", USES)
def test_layouts_change_nothing(use: str, layout: str) -> None:
    assert USES[use](LAYOUTS[layout]) == USES[use](lambda array: array)


def test_the_core_refuses_what_it_cannot_borrow() -> None:
    """No address that is no multiple of eight becomes a slice: that is undefined behaviour."""
    good = np.arange(3)
    lcs = _core.longest_common_subsequence_integers
    for array, kind, text in (
        (unaligned(good), ValueError, "a must be aligned: copy the array"),
        (good.astype(">i8"), TypeError, "a must be an array of int64: got >i8"),
        (good.astype("i4"), TypeError, "a must be an array of int64: got int32"),
        ([1, 2], TypeError, "a must be an array of int64: got list"),
        (good.reshape(3, 1), ValueError, "a must have 1 dimensions: got 2"),
    ):
        with pytest.raises(kind) as caught:
            lcs(array, good)  # type: ignore[arg-type]
        assert str(caught.value) == text
    with pytest.raises(ValueError, match=r"^items must be aligned: copy the array$"):
        _core.random_bits(1, 0, unaligned(good.astype(np.uint64)), 0, 1)
    with pytest.raises(ValueError, match=r"^scores must be aligned: copy the array$"):
        _core.rank_targets(
            unaligned(np.zeros((1, 3))), good[:1], good[:2] * 0, good[:0], "average", 1
        )


def test_the_core_names_the_dtypes_that_it_takes() -> None:
    ids, users = np.arange(1, 2), np.zeros((1, 1), np.int64)
    memory = _core.FalseNegativeMemory(None, None)
    sampler = SequenceSampler([0, 3], [1, 2, 4], 5, batch_size=1, max_length=3, negative_count=2)
    pair = np.ones((1, 1, 1), np.int64), np.zeros((0, 3), np.int64)

    def rank(scores: Any) -> Any:
        return _core.rank_targets(scores, ids, np.zeros(2, np.int64), ids[:0], "average", 1)

    def sample(given: Any) -> Any:
        return sampler._core.sample(0, 0, given, users, users, users, ids[:0])

    for call, name, given, dtypes in (
        (rank, "scores", np.zeros((1, 1), np.float16), "float32 or float64: got float16"),
        (rank, "scores", [[0.0]], "float32 or float64: got list"),
        (sample, "users", ids.astype(np.int16), "int64 or int32: got int16"),
        (
            lambda n: memory.inject(ids, users + 1, n),
            "negatives",
            pair[0].astype(np.uint64),
            "int64 or int32: got uint64",
        ),
        (
            lambda n: memory.observe(ids, users + 1, n, np.zeros((1, 1, 1), np.uint8), pair[1]),
            "negatives",
            pair[0].astype(">i8"),
            "int64 or int32: got >i8",
        ),
        (
            lambda z: memory.observe(ids, users + 1, pair[0], z, pair[1]),
            "scores",
            np.zeros((1, 1, 1), bool),
            "float32, float64 or uint8: got bool",
        ),
    ):
        with pytest.raises(TypeError) as caught:
            call(given)
        assert str(caught.value) == f"{name} must be an array of {dtypes}"


@pytest.mark.parametrize("value", [True, np.True_, 1.0, "1", None])
def test_what_is_no_int_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^count must be an int: got "):
        check_int("count", value, 0, 5)
    with pytest.raises(TypeError, match=r"^count must be an int or None: got "):
        check_int("count", value, 0, 5, optional=True)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        ({"least": 1}, [1, 2**70], [0, -(2**70)], "at least 1"),
        ({"least": 0, "end": 5}, [0, 4], [-1, 5], "at least 0 and below 5"),
        ({"least": 1, "most": 5}, [1, 5], [0, 6], "at least 1 and at most 5"),
        ({"least": 0, "end": 1 << 24}, [2**24 - 1], [2**24], "at least 0 and below 2**24"),
        ({"least": 0, "end": 1 << 23}, [0], [2**23], "at least 0 and below 8388608"),
    ],
    ids=str,
)
def test_ranges_are_described_as_in_the_core(
    bounds: dict[str, int], inside: list[int], outside: list[int], text: str
) -> None:
    """`tests/check.rs` has the same table."""
    for number in inside:
        assert check_int("n", np.int64(number) if number < 2**63 else number, **bounds) == number
        id_in_range("ids", 7, number, **bounds)
    for number in outside:
        with pytest.raises(ValueError, match=f"^{re.escape(f'n must be {text}: got {number}')}$"):
            check_int("n", number, **bounds)
        message = f"ids[7] must be {text}: got {number} (row 2)"
        with pytest.raises(IndexError, match=f"^{re.escape(message)}$"):
            id_in_range("ids", 7, number, **bounds, row=2)


def test_what_is_written_must_be_laid_out_as_the_core_writes() -> None:
    sampler = SequenceSampler([0, 3], [1, 2, 4], 5, batch_size=1, max_length=3, negative_count=2)
    arrays = [np.zeros(shape, np.int64) for shape in (1, (1, 3), (1, 3), (1, 3, 2))]
    with pytest.raises(ValueError, match=r"out\.negatives must be a writeable array .* aligned"):
        sampler.sample(0, 0, out=Batch(*arrays[:3], unaligned(arrays[3])))
    memory, negatives = FalseNegativeMemory(), unaligned(np.array([[[7, 9]]]))
    with pytest.raises(ValueError, match="negatives must be contiguous, aligned and writeable"):
        memory.inject([1], [[5]], negatives)
    core = sampler._core
    for fault, text in (
        (unaligned(arrays[3]), "negatives must be aligned: copy the array"),
        (np.asfortranarray(np.zeros((3, 3, 2), np.int64)), "must be contiguous, in C order"),
        (frozen(arrays[3]), "negatives must be writeable"),
        (arrays[2], "negatives is in use: another argument or call writes into it"),
    ):
        with pytest.raises(ValueError, match=text):
            core.sample(0, 0, *arrays[:3], fault, np.zeros(0, np.int64))


# Ids beyond int64.

BEYOND: list[Any] = [
    np.array([2**63], np.uint64),
    [2**63],
    [2**64 + 1],
    [-(2**63) - 1],
    np.array([2**64 - 1], np.uint64),
    np.array([2**70], dtype=object),
]


def remember(memory_class: Callable[[], Any], users: Any, flat_indices: Any) -> Any:
    return memory_class().inject_packed(users, flat_indices, 2, np.array([[7, 9]])).coordinates


@pytest.mark.parametrize("ids", BEYOND, ids=str)
def test_ids_beyond_int64_are_index_errors(ids: Any) -> None:
    """One kind of error, with the true number, also in the definitions."""
    number = int(ids[0])
    base: dict[str, Any] = {"offsets": [0, 3, 5], "items": [1, 2, 4, 3, 1], "item_count": 5}
    scores = [[0.5, 0.25, 0.125]]

    def ranks(targets: Any, offsets: Any, excluded: Any) -> Any:
        return rank_targets(scores, targets, offsets, excluded)

    samplers = negatives_reference.SequenceSampler, SequenceSampler
    memories = false_negatives_reference.FalseNegativeMemory, FalseNegativeMemory
    pairs: dict[str, tuple[Any, Any]] = {
        f"targets[0] must be at least 0 and below 3: got {number}": (
            lambda: ranking_reference.rank_targets(scores, ids, [0, 0], []),
            lambda: ranks(ids, [0, 0], []),
        ),
        f"excluded[0] must be at least 0 and below 3: got {number} (row 0)": (
            lambda: ranking_reference.rank_targets(scores, [1], [0, 1], ids),
            lambda: ranks([1], [0, 1], ids),
        ),
        f"items[0] must be at least 1 and at most 5: got {number}": tuple(
            lambda make=make: make([0, 1], ids, 5) for make in samplers
        ),
        f"users[0] must be at least 1 and at most 2: got {number}": tuple(
            lambda make=make: make(**base).candidates(ids, 1) for make in samplers
        ),
        f"exclude[0] must be at least 0 and at most 5: got {number}": tuple(
            lambda make=make: make(**base).candidates([1], 1, exclude=ids) for make in samplers
        ),
        f"users must be at least 1 and below 2**24: got {number} at row 0": tuple(
            lambda make=make: remember(make, ids, [0]) for make in memories
        ),
        f"flat_indices must be at least 0 and below 2: got {number} at index 0": tuple(
            lambda make=make: remember(make, [1], ids) for make in memories
        ),
    }
    for text, calls in pairs.items():
        error = agree(*calls)
        assert (type(error), str(error)) == (IndexError, text)


def test_offsets_beyond_int64_are_value_errors() -> None:
    text = f"offsets[1] must be at least -2**63 and below 2**63: got {2**63}"
    for call in (
        lambda: SequenceSampler([0, 2**63], [1], 5),
        lambda: rank_targets([[0.5]], [0], [0, 2**63], []),
        lambda: ranking_reference.rank_targets([[0.5]], [0], [0, 2**63], []),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            call()


@pytest.mark.parametrize("kind", ["uint64", "uint32", "int8", ">i4", "O"])
def test_ids_of_any_kind_that_fit(kind: str) -> None:
    def cast(values: list[int]) -> Any:
        return np.array(values).astype(kind)

    assert rank_targets([[0.5, 0.25]], cast([1])).ranks.tolist() == [1.0]
    sampler = SequenceSampler(cast([0, 3]), cast([1, 2, 4]), 5)
    assert sampler.candidates(cast([1]), 2, exclude=cast([3])).tolist() == [[5, 5]]
    negatives = np.array([[7, 9]])
    assert len(FalseNegativeMemory().inject_packed(cast([1]), cast([0]), 1, negatives)) == 0
    assert random_bits(1, 0, cast([7]), 1).tolist() == random_bits(1, 0, [7], 1).tolist()


# More than memory holds.


def run_with_memory(code: str, megabytes: int) -> str:
    """Runs code in a process that may take so much address space besides its start."""
    start = (
        "import resource, numpy as np\n"
        "from lmcore import _core\n"
        "from lmcore.ops import false_negatives, negatives, philox, ranking\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        f"limit = pages * resource.getpagesize() + ({megabytes} << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "def refused(call, *arguments):\n"
        "    try: call(*arguments)\n"
        "    except MemoryError as error: print(type(error).__name__, error)\n"
        "    else: print('returned')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


VIEWS = """
one, half = np.ones(1, np.int64), np.ones(1)
view = np.broadcast_to(one, 2**40)
"""


@pytest.mark.parametrize(
    "call",
    [
        "_core.list_excluded, 2**53, one, np.array([0, 1]), one",
        "_core.list_excluded, 2**63, one, np.array([0, 1]), one",
        "_core.list_excluded, 5, view, view, view",
        "_core.rank_targets, np.broadcast_to(half, (1, 2**40)), one, one[:0], one, 'average', 1",
        "_core.rank_targets, np.ones((2**40, 0)), view, view, one, 'average', 1",
        "_core.SequenceSampler, view, one, None, 5, 1, 1, 1, 0, 'shuffle', 1",
        "_core.SequenceSampler, one, view, None, 5, 1, 1, 1, 0, 'shuffle', 1",
        "_core.random_bits, 1, 0, np.broadcast_to(one.view(np.uint64), 2**40), 0, 2",
        "_core.random_bits, 1, 0, one.view(np.uint64), 0, 2**33",
        "_core.random_bits, 1, 0, np.broadcast_to(one.view(np.uint64), 2**40), 0, 2**33",
        "_core.ranking_metrics, np.broadcast_to(half, 2**40), [1]",
        "ranking.rank_targets, np.broadcast_to(half, (1, 2**40)), [1]",
        "ranking.rank_targets, np.broadcast_to(half, (2**40, 1)), view",
        "ranking.ranking_metrics, np.broadcast_to(half, 2**40)",
        "negatives.SequenceSampler, view, one, 5",
        "negatives.SequenceSampler, [0, 3], view, 5",
        "philox.random_bits, 1, 0, view, 2",
        "philox.random_uniform, 1, 0, [1, 2], 2**33",
        "false_negatives.FalseNegativeMemory().inject, view, [[1]], one.reshape(1, 1, 1)",
    ],
)
def test_more_than_memory_holds_is_an_error(call: str) -> None:
    assert run_with_memory(f"{VIEWS}refused({call})", 1000).startswith(("MemoryError", "_ArrayM"))


@pytest.mark.parametrize("sample", ["sample", "sample_packed"])
def test_batches_larger_than_addresses(sample: str) -> None:
    """2**45 values and 2**93: none is a wrong value."""
    for size in (2**15, 2**31 - 1):
        shape = f"batch_size={size}, max_length={size}, negative_count={size}"
        made = f"s = negatives.SequenceSampler([0, 3], [1, 2, 4], 5, {shape})\n"
        assert "MemoryError" in run_with_memory(f"{made}refused(s.{sample}, 0, 0)", 1000)


def test_rows_are_counted_before_they_are_listed() -> None:
    """A view of 2**40 rows that belongs to one target is told so, and needs no memory."""
    view = np.broadcast_to(np.ones((1, 1)), (2**40, 1))
    with pytest.raises(ValueError, match=r"^targets and scores must have the same length"):
        rank_targets(view, [0], [0, 0], [])


@pytest.mark.parametrize(
    "call",
    [
        "philox.random_bits(1, 0, np.arange(2), 2**24)",
        "philox.random_uniform(1, 0, 7, 2**25)",
        "philox.random_below(1, 0, np.arange(2**25, dtype=np.uint64), 1, 9)",
    ],
)
def test_draws_take_the_memory_of_their_result(call: str) -> None:
    """256 MiB come out; a copy beside them would need as much again."""
    items = 256 if "2**25, dtype" in call else 0
    assert run_with_memory(f"print({call}.nbytes >> 20)", items + 350) == "256\n"


@pytest.mark.parametrize("call", [rank_ids, lambda view: shift_timesteps(view, 9, seed=0, step=0)])
def test_a_view_of_more_objects_than_there_can_be(call: Callable[[Any], Any]) -> None:
    """Each of them would be looked at, one after the other."""
    view = np.broadcast_to(np.array([0], dtype=object), (2**40,))
    with pytest.raises(MemoryError, match=f"not enough memory for {2**40} values"):
        call(view)
