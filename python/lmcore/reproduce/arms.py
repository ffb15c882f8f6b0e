"""Arms of an experiment that go on from one and the same training run.

Where arms differ only from some step on, what comes before is one run: it is trained once, and
every arm starts from its state. Equal steps of equal arms see equal batches and random numbers,
since these are functions of the step.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class Run(Protocol):
    """What is trained: its step seeds what it draws, so that a step depends on its number."""

    def step(self, step: int) -> object:
        """Trains on the batch of a step, counted from 0 over the whole training."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Returns all that the next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of the run that the arms share; what it holds may be changed."""
        ...


_R = TypeVar("_R", bound=Run)
_S = TypeVar("_S")
_State = TypeVar("_State", bound=Run, contravariant=True)


class States(Protocol[_State, _S]):
    """Where runs are kept that may be killed; the run that all arms share is that of None."""

    def resume(self, arm: str | None, run: _State) -> tuple[int, dict[int, _S]]:
        """Returns how many steps a run has made and its scores; the run goes on from there.

        What was never kept is left as it is: 0 steps, and no scores.
        """
        ...

    def keep(self, arm: str | None, run: _State, steps: int, scores: Mapping[int, _S]) -> None:
        """Keeps all that the next step depends on, steps made and scores."""
        ...


@dataclass(kw_only=True, slots=True, frozen=True)
class Branches(Generic[_S]):
    """What the arms came to."""

    warm_steps: int
    """Steps of the run that they share."""
    scores: Mapping[str, Mapping[int, _S]]
    """Of each arm, by the number of its own steps; 0 is where they begin."""


def branch(
    make_run: Callable[[str | None], _R],
    arms: Sequence[str],
    warm_steps: int | Callable[[_R, int], bool],
    steps: int,
    score: Callable[[str, _R, int], _S],
    *,
    score_every: int | None = None,
    states: States[_R, _S] | None = None,
) -> Branches[_S]:
    """Returns the scores of arms that are trained from one state.

    Args:
        make_run: a new run of an arm; of what all arms share for None.
        arms: their names; without any nothing is trained.
        warm_steps: how many steps the arms share, or whether they end before that step of that
            run.
        steps: of each arm, at least 1.
        score: (arm, its run, how many steps it has made) to whatever is wanted of it.
        score_every: steps between two scores; each arm is scored at its start and end, too.
        states: where runs are kept after each score, and that of all arms as often and at its
            end; what is there goes on, so that killed arms come to what they would have come to.
            None: nowhere.

    Raises:
        ValueError: `steps` or `score_every` is less than 1.

    Example:
        >>> class Counter:
        ...     def __init__(self, size):
        ...         self.size, self.total = size, 0
        ...     def step(self, step):
        ...         self.total += self.size
        ...     def state_dict(self):
        ...         return {"total": self.total}
        ...     def load_state_dict(self, state):
        ...         self.total = state["total"]
        >>> sizes = {None: 1, "two": 2, "ten": 10}
        >>> make_run = lambda arm: Counter(sizes[arm])
        >>> branch(make_run, ["two", "ten"], 5, 2, lambda arm, run, step: run.total).scores
        {'two': {0: 5, 2: 9}, 'ten': {0: 5, 2: 25}}
    """
    every = steps if score_every is None else score_every
    for name, value in (("steps", steps), ("score_every", every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    if not arms:
        return Branches(warm_steps=0, scores={})
    trunk = make_run(None)
    is_warm = warm_steps if callable(warm_steps) else lambda _, step: step == warm_steps
    warm = kept = 0 if states is None else states.resume(None, trunk)[0]
    while not is_warm(trunk, warm):
        trunk.step(warm)
        warm += 1
        if states is not None and warm % every == 0:
            states.keep(None, trunk, warm, {})
            kept = warm
    if states is not None and kept < warm:
        states.keep(None, trunk, warm, {})
    state = dict(trunk.state_dict())

    scores: dict[str, dict[int, _S]] = {}
    for arm in arms:
        run = make_run(arm)
        first, scores[arm] = (0, {}) if states is None else states.resume(arm, run)
        if not first:
            run.load_state_dict(copy.deepcopy(state))  # an optimizer goes on in these very tensors
            scores[arm] = {0: score(arm, run, 0)}
        for done in range(first + 1, steps + 1):
            run.step(warm + done - 1)
            if done % every == 0 or done == steps:
                scores[arm][done] = score(arm, run, done)
                if states is not None:
                    states.keep(arm, run, done, scores[arm])
    return Branches(warm_steps=warm, scores=scores)


@contextmanager
def one_thread() -> Iterator[None]:
    """Yields while torch computes in one thread: sums of several depend on their number.

    The state of torch's random numbers is as before afterwards.
    """
    import torch

    from lmcore.training.processes import use_threads

    with use_threads(1), torch.random.fork_rng(devices=[]):
        yield
