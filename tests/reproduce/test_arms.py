"""`branch`: arms go on from one run, each as if it had been trained alone."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from lmcore.reproduce.arms import branch


class Walk:
    """What it is depends on every step, and on which run made it."""

    made: list[str | None] = []  # noqa: RUF012

    def __init__(self, arm: str | None) -> None:
        self.arm = arm
        self.path: list[tuple[str | None, int]] = []
        self.made.append(arm)

    def step(self, step: int) -> None:
        self.path.append((self.arm, step))

    def state_dict(self) -> dict[str, Any]:
        return {"path": self.path}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.path = state["path"]  # the very list: an arm goes on in it


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    Walk.made.clear()


def score(arm: str, run: Walk, step: int) -> list[tuple[str | None, int]]:
    assert run.arm == arm
    return list(run.path)


@pytest.mark.parametrize("warm", [0, 1, 3])
def test_arms_share_the_first_steps_and_no_more(warm: int) -> None:
    found = branch(Walk, ["a", "b"], warm, 2, score, score_every=1)
    shared: list[tuple[str | None, int]] = [(None, step) for step in range(warm)]
    assert found.warm_steps == warm
    assert found.scores == {
        arm: {
            0: shared,
            1: [*shared, (arm, warm)],
            2: [*shared, (arm, warm), (arm, warm + 1)],
        }
        for arm in "ab"
    }
    assert Walk.made == [None, "a", "b"]


@pytest.mark.parametrize(
    ("steps", "every", "scored"),
    [(1, None, [0, 1]), (7, None, [0, 7]), (7, 3, [0, 3, 6, 7]), (6, 3, [0, 3, 6]), (2, 5, [0, 2])],
)
def test_arms_are_scored_at_their_start_and_end(
    steps: int, every: int | None, scored: list[int]
) -> None:
    found = branch(Walk, ["a"], 4, steps, lambda _, run, step: step, score_every=every)
    assert found.scores == {"a": {step: step for step in scored}}


def test_the_shared_run_may_say_when_it_is_over() -> None:
    asked = []

    def is_warm(run: Walk, step: int) -> bool:
        asked.append((run.arm, step, len(run.path)))
        return step == 2

    assert branch(Walk, ["a"], is_warm, 1, score).warm_steps == 2
    assert asked == [(None, 0, 0), (None, 1, 1), (None, 2, 2)]


def test_without_arms_nothing_is_trained() -> None:
    assert branch(Walk, [], 10**9, 1, score).scores == {}
    assert Walk.made == []


class KilledError(Exception):
    pass


class Shelf:
    """Keeps runs in memory; a step that shall kill raises instead."""

    def __init__(self) -> None:
        self.kept: dict[str | None, tuple[Any, int, dict[int, Any]]] = {}
        self.steps = 0
        self.kill_at: int | None = None

    def make_run(self, arm: str | None) -> Walk:
        shelf = self

        class Mortal(Walk):
            def step(self, step: int) -> None:
                if shelf.steps == shelf.kill_at:
                    raise KilledError
                shelf.steps += 1
                super().step(step)

        return Mortal(arm)

    def resume(self, arm: str | None, run: Walk) -> tuple[int, dict[int, Any]]:
        if arm not in self.kept:
            return 0, {}
        path, steps, scores = copy.deepcopy(self.kept[arm])
        run.path = path
        return steps, scores

    def keep(self, arm: str | None, run: Walk, steps: int, scores: Mapping[int, Any]) -> None:
        self.kept[arm] = copy.deepcopy((run.path, steps, dict(scores)))


@pytest.mark.parametrize("kill_at", range(14))
def test_what_was_killed_comes_to_the_same(kill_at: int) -> None:
    """5 steps of warm-up and 4 of each of two arms, a score every 2 steps."""
    whole = branch(Walk, ["a", "b"], 5, 4, score, score_every=2)
    shelf = Shelf()
    if kill_at < 13:
        shelf.kill_at = kill_at
        with pytest.raises(KilledError):
            branch(shelf.make_run, ["a", "b"], 5, 4, score, score_every=2, states=shelf)
    shelf.kill_at = None
    assert branch(shelf.make_run, ["a", "b"], 5, 4, score, score_every=2, states=shelf) == whole
    # Not more than what came after the last score is done again.
    assert shelf.steps - 13 < 2
    assert branch(shelf.make_run, ["a", "b"], 5, 4, score, score_every=2, states=shelf) == whole
    assert shelf.steps - 13 < 2


def test_arms_that_come_later_begin_where_the_kept_run_ended() -> None:
    shelf = Shelf()
    branch(shelf.make_run, ["a"], 3, 1, score, states=shelf)
    assert shelf.steps == 4
    found = branch(shelf.make_run, ["b"], 3, 1, score, states=shelf)
    assert shelf.steps == 5
    assert found == branch(Walk, ["b"], 3, 1, score)


@pytest.mark.parametrize(("steps", "every", "name"), [(0, None, "steps"), (1, 0, "score_every")])
def test_numbers_out_of_range_raise(steps: int, every: int | None, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be at least 1: got 0"):
        branch(Walk, ["a"], 1, steps, score, score_every=every)
