"""Claim: how what is kept was chosen hardly matters once a model has recovered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Plot, Size
from lmcore.reproduce.compression.importance import plot_methods
from lmcore.reproduce.compression.recovering import GROUP, SIZES, Whole, train_whole

if TYPE_CHECKING:
    from lmcore.compression import Plan, Sizes

_POINTS = {"cut": "right after the cut", "recovered": "after recovery"}
# A quarter of the range is "hardly".
_LEFT = 0.25


def _score(method: str) -> Callable[[Whole, int, Plan, Sizes], Plan]:
    def choose(whole: Whole, seed: int, plan: Plan, sizes: Sizes) -> Plan:
        from lmcore.compression import add_chosen_stage, score_model
        from lmcore.compression.importance import Calibration

        scores = None
        if method != "random":
            calibration = Calibration(text=whole.text, device="cpu")
            scores = score_model(whole.folder, method, calibration, plan=plan).scores
        return add_chosen_stage(plan, sizes, scores=scores, method=method, seed=seed)[0]

    return choose


def _learn(whole: Whole, seed: int, plan: Plan, sizes: Sizes) -> Plan:
    """By gates that are learned down to as many parameters, on the texts that others score with."""
    from lmcore.compression import add_chosen_stage, learn_masks, read_scores
    from lmcore.compression.choosing import LEARNED
    from lmcore.compression.recipes import tiny_masks
    from lmcore.cost import count_parameters
    from lmcore.training.config import change

    shape = add_chosen_stage(plan, sizes, seed=seed)[1]
    scale, steps = whole.sizes.scale, whole.sizes.mask_steps
    changes = {
        "target": f"params={count_parameters(shape).distinct}",
        "dimensions": ("heads", "ffn", "hidden"),
        "warmup_steps": steps // 2,
        "batch_size": scale.batch_size,
        "micro_batch_size": scale.batch_size,
        "heads_divisor": 1,
        "ffn_divisor": 1,
        "hidden_divisor": 1,
        "loop.steps": steps,
        "loop.validate_every_steps": steps,
        "loop.seed": seed,
        "device.device": "cpu",
        "device.threads": 1,
    }
    out = whole.find_place()
    learn_masks(change(tiny_masks(), changes), whole.text, out, model=whole.folder)
    scores = read_scores(out / "masks.scores").scores
    return add_chosen_stage(plan, sizes, scores=scores, method=LEARNED, seed=seed)[0]


# Each makes a plan of (whole model, seed, empty plan, sizes to leave).
_METHODS: dict[str, Callable[[Whole, int, Any, Any], Any]] = {
    **{method: _score(method) for method in ("random", "magnitude", "activation", "taylor")},
    "learned": _learn,
}


def measure_methods(seed: int, size: Size) -> Measurement:
    """Returns the losses of a small OpenBA whose widths were cut, before and after recovery.

    Args:
        seed: of the texts, of training and of what is drawn.
        size: of the model, and how many steps.

    Returns:
        Values named `cut/<method>` and `recovered/<method>`, and `whole`: nats per target token,
        the mean of all seven denoisers; `range/<point>`, the largest minus the smallest over the
        methods; `left`, the second range over the first one.
    """
    from lmcore.compression import Sizes, start_plan

    sizes = SIZES[size]
    values = {}
    with train_whole(seed, sizes) as whole:
        values["whole"] = whole.losses["loss"]
        plan = start_plan(whole.folder)
        shape = plan.shape
        left = Sizes(
            heads=shape.heads // 2, ffn=shape.inner_size // 2, hidden=shape.hidden_size * 3 // 4
        )
        for method, choose in _METHODS.items():
            small = whole.cut(choose(whole, seed, plan, left))
            values[f"cut/{method}"] = whole.measure(small)["loss"]
            values[f"recovered/{method}"] = whole.recover(small).losses["loss"]
    for point in _POINTS:
        losses = [values[f"{point}/{method}"] for method in _METHODS]
        values[f"range/{point}"] = max(losses) - min(losses)
    values["left"] = values["range/recovered"] / values["range/cut"]
    return Measurement(values=values)


def choice_hardly_matters(estimates: Estimates) -> bool:
    """Returns whether at most a quarter of the range over the methods is left.

    Args:
        estimates: the numbers of `measure_methods`.
    """
    left = estimates["left"]
    return left.mean + left.spread <= _LEFT


def _describe(estimates: Estimates) -> str:
    lines = [f"nats per target token, before: {estimates['whole'].format(3)}"]
    for point, name in _POINTS.items():
        losses = (f"{m} {estimates[f'{point}/{m}'].format(3)}" for m in _METHODS)
        lines.append(f"{name}: {', '.join(losses)}; range {estimates[f'range/{point}'].format(3)}")
    lines.append(f"of the range is left: {estimates['left'].format(2)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    return plot_methods(estimates, _METHODS, _POINTS, "Loss by how what is kept was chosen", "")


CLAIMS = (
    Claim(
        id="importance_recovered",
        system="compression",
        statement="Once a model has recovered, it hardly matters how what is kept was chosen.",
        source="OpenBA-V2, arXiv 2405.05957, section 4",
        paper="draws what is kept; that criteria matter little is cited from others, no numbers",
        setting=(
            "A small OpenBA trained from nothing on a generated English and Chinese corpus; half "
            "of its heads and inner units and a quarter of its channels are cut at once, chosen by "
            "each method, and it recovers for 120 steps with the seven denoisers in equal parts. "
            "Learned masks are gates that come down to as many parameters in 100 steps; those of "
            "each dimension that are open the furthest stay."
        ),
        measure=measure_methods,
        describe=_describe,
        rule="Of the range of losses over the methods right after the cut at most a quarter is "
        "left after recovery, its spread included.",
        expected="reproduced",
        sizes=("tiny", "full"),
        group=GROUP,
        holds=choice_hardly_matters,
        plot=_plot,
    ),
)  # fmt: skip
