"""Stages of a plan from a target in place of sizes."""

from __future__ import annotations

from collections.abc import Mapping

from lmcore.compression.choosing import Scores, Sizes
from lmcore.compression.families import Family
from lmcore.compression.plan import Plan
from lmcore.compression.planning import add_chosen_stage
from lmcore.compression.search import Candidate, Cost, search
from lmcore.compression.targets import Conditions, Target


def add_candidate_stages(
    plan: Plan,
    candidate: Candidate,
    *,
    scores: Scores | None = None,
    method: str = "random",
    seed: int = 0,
    layout: str = "spread",
    name: str = "",
) -> Plan:
    """Returns a plan with a stage more for each round of a candidate.

    Args:
        plan: that was searched.
        candidate: of it.
        scores: as for `lmcore.compression.planning.add_chosen_stage`.
        method: likewise.
        seed: likewise.
        layout: likewise.
        name: of the stages; where there are several, a number follows it.

    Raises:
        ValueError: as for `add_chosen_stage`.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> plan = Plan(model_type="openba", shape=OPENBA_V1)
        >>> best = search(plan, Target(kind="params", value=5e9))[0]
        >>> [stage.name for stage in add_candidate_stages(plan, best, name="small").stages]
        ['small 1', 'small 2']
    """
    for number, sizes in enumerate(candidate.rounds, 1):
        named = f"{name} {number}" if name and len(candidate.rounds) > 1 else name
        plan, _ = add_chosen_stage(
            plan, sizes, scores=scores, method=method, seed=seed, layout=layout, name=named
        )
    return plan


def add_searched_stages(
    plan: Plan,
    target: Target,
    *,
    fixed: Sizes | None = None,
    divisors: Mapping[str, int] | None = None,
    least: Mapping[str, int] | None = None,
    rounds: int | None = None,
    conditions: Conditions | None = None,
    cost: Cost | None = None,
    scores: Scores | None = None,
    method: str = "random",
    seed: int = 0,
    layout: str = "spread",
    name: str = "",
    family: Family | None = None,
) -> Plan:
    """Returns a plan with one or more stages more that come down to a target.

    There are several where more than half of the parameters go: each is for a recovery of its own.

    Args:
        plan: to add to.
        target: what to come down to.
        fixed: as for `lmcore.compression.search.search`, which finds the sizes.
        divisors: likewise.
        least: likewise.
        rounds: likewise; 1 cuts at once.
        conditions: likewise.
        cost: likewise.
        scores: as for `lmcore.compression.planning.add_chosen_stage`.
        method: likewise.
        seed: likewise.
        layout: likewise.
        name: of the stages; where there are several, a number follows it.
        family: that of the plan's model if None.

    Raises:
        TypeError: a number is no whole one.
        ValueError: as for `search` and `add_chosen_stage`.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> plan = Plan(model_type="openba", shape=OPENBA_V1)
        >>> plan = add_searched_stages(plan, Target(kind="params", value=8e9))
        >>> len(plan.stages[0].decoder_layers), len(plan.stages[0].hidden)
        (29, 3328)
    """
    best = search(
        plan, target, fixed=fixed, divisors=divisors, least=least, candidates=1, rounds=rounds,
        conditions=conditions, cost=cost, family=family,
    )[0]  # fmt: skip
    return add_candidate_stages(
        plan, best, scores=scores, method=method, seed=seed, layout=layout, name=name
    )
