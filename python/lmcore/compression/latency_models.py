"""Time as a target: measured on the device at hand, predicted between what was measured.

A model of each shape is made with random weights; nothing of the original is loaded. Four shapes
are timed first: what is there, half of its layers, half of its widths, and half of both. From them

    seconds of a token = a + b * decoder layers + c * weights that a token reads

with a, b and c at least 0, predicts all others, by which the search ranks. The candidates that it
finds are then measured themselves, and those that are above the target are left out; where none
is left the search goes on below by what the prediction was wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from lmcore._extras import optional_imports
from lmcore._json import read_json
from lmcore.compression.choosing import Sizes
from lmcore.compression.families import Family, find_family
from lmcore.compression.grids import make_grid
from lmcore.compression.plan import Plan, prune_shape
from lmcore.compression.pruning import describe_limits, prune_config
from lmcore.compression.search import Candidate, Cost, describe_sizes, make_sizes, search
from lmcore.compression.targets import Conditions, Target
from lmcore.cost import Shape, count_parameters
from lmcore.cost.configs import find_config

_ATTEMPTS = 3


@dataclass(kw_only=True, slots=True)
class Stopwatch:
    """Times of shapes, each measured once, and where.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> watch = Stopwatch(config={}, plan=Plan(model_type="openba", shape=OPENBA_V1))
        >>> watch.place, len(watch.times)
        ({}, 0)
    """

    config: dict[str, Any]
    """Of the original, as `config.json` holds it."""
    plan: Plan
    """The original and what is cut of it already."""
    conditions: Conditions = field(default_factory=Conditions)
    progress: Callable[[int], object] | None = None
    """Called with 1 after each round of each shape."""
    times: dict[Shape, float] = field(default_factory=dict)
    """Milliseconds of a token."""
    place: dict[str, Any] = field(default_factory=dict)
    """Device, type, threads and versions, once something is measured."""

    def measure(self, shape: Shape) -> float:
        """Returns the milliseconds of a token, measured.

        Args:
            shape: of the family's model.

        Raises:
            ImportError: torch or transformers is not installed.
            MemoryError: a model of this shape does not fit.
            ValueError: the configuration cannot say the shape, or it generates nothing.
        """
        if shape not in self.times:
            self.times[shape] = self._time(shape)
        return self.times[shape]

    def _time(self, shape: Shape) -> float:
        with optional_imports():
            import torch
            import transformers

            from lmcore.training.processes import find_device
        from lmcore.compression.latency import describe_place, time_model
        from lmcore.compression.loading import HEADS, find_kind

        if not shape.decoder_layers:
            raise ValueError("an encoder alone generates no tokens: expected another target")
        # The plan's own stages are no matter here: a shape of the original's family is timed.
        rows = shape.vocabulary_size
        whole = Plan(model_type=self.plan.model_type, shape=self.plan.shape)
        made = _cut(whole, replace(make_sizes(shape), vocabulary=None))
        settings = prune_config(self.config, made)
        settings |= dict.fromkeys(find_family(made.model_type).fields["vocabulary_size"], rows)
        for name, value in settings.items():  # which ids are special makes no difference to time
            if name.endswith("_token_id") and isinstance(value, int) and value >= rows:
                settings[name] = 0
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            if not isinstance(settings.get(name), int):  # texts begin with any token
                settings[name] = 0
        settings["dtype"] = settings.get("dtype") or settings.pop("torch_dtype", None) or "float32"
        place = find_device(self.conditions.device)
        try:
            config = transformers.AutoConfig.for_model(**settings)
            kind = find_kind(config)
            with torch.device(place):
                model = getattr(transformers, HEADS[kind]).from_config(
                    config, dtype=getattr(torch, str(settings["dtype"]), torch.float32)
                )
            told = self.conditions
            most = getattr(config, "max_position_embeddings", None)
            needed = told.prompt_tokens + (told.new_tokens if kind == "decoder" else 0)
            if isinstance(most, int) and needed > most:
                raise ValueError(f"the model reads at most {most} tokens: got {needed}")
            found = time_model(
                model.eval(), kind, prompt_tokens=told.prompt_tokens, new_tokens=told.new_tokens,
                rounds=told.repeats, cached=not describe_limits(made), progress=self.progress,
            )  # fmt: skip
        except (MemoryError, torch.OutOfMemoryError) as error:
            text = f"a model does not fit into memory to be timed: {describe_sizes(shape)}"
            raise MemoryError(text) from error
        self.place = describe_place(model)
        return (found.token_seconds or 0.0) * 1e3

    def describe(self) -> str:
        """Returns where and how times were measured, in one line."""
        told, place = self.conditions, self.place
        return (
            f"times: measured on {place['device']}, {place['dtype']}, {place['threads']} threads, "
            f"random weights, {told.prompt_tokens} + {told.new_tokens} tokens, medians of "
            f"{told.repeats}"
        )


def open_stopwatch(
    model: str | os.PathLike[str],
    plan: Plan,
    conditions: Conditions | None = None,
    progress: Callable[[int], object] | None = None,
) -> Stopwatch:
    """Returns what times shapes of a model's family.

    Args:
        model: a configuration or a model's folder; of it the configuration is read alone.
        plan: the original and what is cut of it already.
        conditions: device, tokens and repeats; the default ones if None.
        progress: called with 1 after each round of each shape.

    Raises:
        OSError: the configuration cannot be read.
        ValueError: it is none.

    Example:
        >>> import json, pathlib, tempfile
        >>> from lmcore.compression.planning import start_plan
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "config.json").write_text('{"model_type": "t5"}')
        ...     open_stopwatch(folder, start_plan(folder)).times
        {}
    """
    config = read_json(find_config(model), "a configuration")
    return Stopwatch(
        config=config, plan=plan, conditions=conditions or Conditions(), progress=progress
    )


def predict_times(time: Callable[[Shape], float], start: Shape, family: Family) -> Cost:
    """Returns what predicts the milliseconds of a token of any shape, from four measurements.

    Args:
        time: gives the milliseconds of a shape.
        start: the largest shape.
        family: of the model.

    Raises:
        ValueError: the family cannot say a smaller shape.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> predict = predict_times(
        ...     lambda shape: 2 + 3 * shape.decoder_layers, OPENBA_V1, find_family("openba"))
        >>> round(float(predict(OPENBA_V1)), 6)
        110.0
    """
    shapes = []
    grid = make_grid(start, family)
    hidden, heads = min(grid.pairs)
    narrow = replace(
        start, hidden_size=hidden, heads=heads, inner_size=grid.values["ffn"][0],
        groups=heads // (start.heads // start.groups),
    )  # fmt: skip
    for one in (start, narrow):
        layers = {
            name: max(min(getattr(start, name), 2), getattr(start, name) // 2)
            for name in ("encoder_layers", "decoder_layers")
        }
        shapes += [one, replace(one, **layers)]
    shapes = list(dict.fromkeys(shapes))
    rows = np.array([_find_features(shape) for shape in shapes], np.float64)
    times = np.array([time(shape) for shape in shapes])
    weights = _fit(rows, times)

    def predict(shape: Shape) -> Any:
        return sum(
            weight * feature for weight, feature in zip(weights, _find_features(shape), strict=True)
        )

    return predict


def search_times(
    model: str | os.PathLike[str],
    plan: Plan,
    target: Target,
    *,
    watch: Stopwatch | None = None,
    conditions: Conditions | None = None,
    **options: Any,
) -> list[Candidate]:
    """Returns sizes whose tokens take no longer than a target, each of them measured, best first.

    Args:
        model: a configuration or a model's folder; of it the configuration is read alone.
        plan: the original and what is cut of it already.
        target: of the kind `ms_per_token`.
        watch: what measures; one of its own if None.
        conditions: device, tokens and repeats.
        options: as for `lmcore.compression.search.search`.

    Raises:
        ImportError: torch or transformers is not installed.
        MemoryError: a model does not fit.
        OSError: the configuration cannot be read.
        ValueError: as for `search`.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> plan = Plan(model_type="openba", shape=OPENBA_V1)
        >>> search_times("config.json", plan, Target(kind="params", value=3))
        Traceback (most recent call last):
        ValueError: expected a target of ms_per_token: got params
    """
    if target.kind != "ms_per_token":
        raise ValueError(f"expected a target of ms_per_token: got {target.kind}")
    watch = watch or open_stopwatch(model, plan, conditions)
    start = prune_shape(plan)
    before = watch.measure(start)
    most = target.value * before if target.is_share else target.value
    if before <= most:
        raise ValueError(
            f"the model is under the target already: {before:.3f} ms per token, and at most "
            f"{most:.3f} ms per token are asked for"
        )
    predict = predict_times(watch.measure, start, find_family(plan.model_type))
    # What was predicted of the start must not come out below what is asked for.
    aim = min(most, 0.999 * float(predict(start)))
    nearest: Candidate | None = None
    for _ in range(_ATTEMPTS):
        found = search(
            plan, Target(kind="ms_per_token", value=aim), cost=predict,
            conditions=watch.conditions, **options,
        )  # fmt: skip
        timed = [replace(one, ms_per_token=watch.measure(one.shape)) for one in found]
        under = [one for one in timed if (one.ms_per_token or 0.0) <= most]
        if under:
            return under
        nearest = min(timed, key=lambda one: one.ms_per_token or 0.0)
        aim *= 0.98 * most / (nearest.ms_per_token or most)
    if nearest is None:
        raise AssertionError("a search gives at least one candidate")
    raise ValueError(
        f"no sizes come down to {most:.3f} ms per token; the nearest that was measured has "
        f"{nearest.ms_per_token:.3f} ms per token: {describe_sizes(nearest.shape)}"
    )


def _cut(plan: Plan, sizes: Sizes) -> Plan:
    from lmcore.compression.planning import add_chosen_stage

    return add_chosen_stage(plan, sizes)[0]


def _find_features(shape: Shape) -> list[Any]:
    counted = count_parameters(shape)
    read = counted.decoder_attention + counted.decoder_cross_attention
    read = read + counted.decoder_feed_forward + counted.embedding
    return [1.0, shape.decoder_layers, read / 1e6]


def _fit(rows: Any, times: Any) -> list[float]:
    """The weights of least squares that are at least 0: of three the few choices are tried."""
    best: tuple[float, list[float]] = (np.inf, [0.0, 0.0, 0.0])
    for size in (1, 2, 3):
        for chosen in combinations(range(3), size):
            found = np.linalg.lstsq(rows[:, chosen], times, rcond=None)[0]
            if (found < 0).any():
                continue
            weights = [0.0, 0.0, 0.0]
            for place, value in zip(chosen, found, strict=True):
                weights[place] = float(value)
            error = float(np.square(rows @ weights - times).sum())
            if error < best[0]:
                best = error, weights
    return best[1]
