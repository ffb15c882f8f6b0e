"""All worlds have one shape, and choices know what they cost."""

import dataclasses
import importlib
import inspect
import itertools
import math
import pkgutil
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore import worlds
from lmcore.worlds.draws import (
    Choice,
    Draws,
    among,
    choose,
    combine,
    mixture,
    number,
    phrase,
    read_draws,
)

MODULES = [
    importlib.import_module(f"lmcore.worlds.{module.name}")
    for module in pkgutil.iter_modules(worlds.__path__)
    if module.name != "draws"
]
every_world = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


@every_world
def test_a_world_is_a_frozen_function_of_its_seed(module: ModuleType) -> None:
    seed, *others = inspect.signature(module.make_world).parameters.values()
    assert seed.name == "seed"
    assert {other.kind for other in others} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(other.default is not inspect.Parameter.empty for other in others)
    world = module.make_world(3)
    assert isinstance(world, module.World)
    assert isinstance(world, worlds.World)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(world, dataclasses.fields(world)[0].name, None)
    assert world.to_text() == module.make_world(3).to_text() != module.make_world(4).to_text()


class Walk:
    """A language world in a few lines: a walk on two words, from each to each as it likes."""

    words: Choice = staticmethod(mixture((0.9, choose(["up"])), (0.1, among("down left"))))

    def __init__(self, seed: int, length: int) -> None:
        draws = Draws(seed, 1, item=0)
        self.tokens = [self.words(draws) for _ in range(length)]
        self.surprisal = draws.surprisal / length

    def to_text(self) -> str:
        return " ".join(self.tokens)

    def entropy(self) -> float:
        return -0.9 * math.log(0.9) - 2 * 0.05 * math.log(0.05)


def test_a_language_world_says_what_no_model_can_save() -> None:
    world = Walk(seed=0, length=20_000)
    assert isinstance(world, worlds.LanguageWorld)
    languages = [m for m in MODULES if isinstance(m.make_world(0), worlds.LanguageWorld)]
    assert [module.__name__ for module in languages] == ["lmcore.worlds.openba"]
    assert world.surprisal == pytest.approx(world.entropy(), abs=0.02)
    counts = Counter(world.tokens)
    shares = {"up": 0.9, "down": 0.05, "left": 0.05}
    # Who believes other shares loses more, in the mean: the entropy is the least.
    loss = {
        share: -sum(n * math.log(p) for n, p in zip(counts.values(), share, strict=True)) / 20_000
        for share in itertools.permutations(shares.values())
    }
    assert min(loss.values()) == pytest.approx(world.surprisal)


CHOICES: list[tuple[Choice, dict[str, float]]] = [
    (choose(["a", "b", "b", "c"]), {"a": 0.25, "b": 0.5, "c": 0.25}),
    (among(" a b "), {"a": 0.5, "b": 0.5}),
    (number(9, 11), {"9": 1 / 3, "10": 1 / 3, "11": 1 / 3}),
    (combine(choose("ab"), choose("c")), {"ac": 0.5, "bc": 0.5}),
    (phrase(choose("ab"), choose("c")), {"a c": 0.5, "b c": 0.5}),
    (mixture((0.2, choose("a")), (0.5, choose("bc")), (0.3, choose("d"))),
     {"a": 0.2, "b": 0.25, "c": 0.25, "d": 0.3}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "shares"), CHOICES)
def test_choices_have_their_probabilities(choice: Choice, shares: dict[str, float]) -> None:
    count = 20_000
    found: Counter[str] = Counter()
    costs: dict[str, set[float]] = {}
    for draws in read_draws(0, 1, count):
        text = choice(draws)
        found[text] += 1
        costs.setdefault(text, set()).add(round(draws.surprisal, 9))
    assert found.keys() == shares.keys()
    for text, share in shares.items():
        assert abs(found[text] - share * count) < 5 * math.sqrt(count * share * (1 - share))
        (cost,) = costs[text]
        # "b" of the first can be chosen in two ways, each of which costs what one way costs.
        ways = 2 if shares == CHOICES[0][1] and text == "b" else 1
        assert math.exp(-cost) == pytest.approx(share / ways)


@given(seed=st.integers(0, 2**64 - 1), item=st.integers(0, 2**32), count=st.integers(0, 300))
def test_draws_depend_on_their_position_alone(seed: int, item: int, count: int) -> None:
    one, other = Draws(seed, 1, item), Draws(seed, 1, item)
    first = [one.uniform() for _ in range(count)]
    again = Draws(seed, 1, item, first)
    assert [again.uniform() for _ in range(count + 3)] == [
        *[other.uniform() for _ in range(count)],
        *[one.uniform() for _ in range(3)],
    ]
    assert one.surprisal == 0.0


@pytest.mark.parametrize("weights", [(), (0.5, 0.4), (1.5, -0.5), (1.0, 0.0), (math.nan, 0.5)])
def test_probabilities_add_up(weights: Any) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        mixture(*((weight, choose("a")) for weight in weights))
