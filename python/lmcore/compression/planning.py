"""Plans from the sizes that are asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcore._json import read_json
from lmcore.compression.choosing import METHODS, SCORED, Scores, Sizes, choose_stage, draw_scores
from lmcore.compression.composition import add_stage
from lmcore.compression.families import find_family
from lmcore.compression.plan import Plan, check_shape, prune_shape
from lmcore.compression.pruning import check_plan
from lmcore.cost import Shape, read_shape
from lmcore.cost.configs import find_config

if TYPE_CHECKING:
    from lmcore.compression.counts import Counts


def start_plan(
    model: str | os.PathLike[str], plan: Plan | None = None, *, swiglu_rule: bool | None = None
) -> Plan:
    """Returns the plan of a model that cuts nothing yet, or one that is checked to be for it.

    Args:
        model: a configuration or a model's folder.
        plan: to go on with; an empty one if None.
        swiglu_rule: of OpenBA, where nothing tells.

    Raises:
        OSError: the configuration cannot be read.
        ValueError: it is of no family that is known, or the plan is for another model.

    Example:
        >>> import json, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "config.json").write_text('{"model_type": "t5"}')
        ...     start_plan(folder).shape.encoder_layers
        6
    """
    shape = read_shape(model, swiglu_rule=swiglu_rule)
    model_type = read_json(find_config(model), "a configuration")["model_type"]
    try:
        find_family(model_type)
        check_shape(shape)
    except ValueError as error:
        raise ValueError(f"{os.fspath(model)}: {error}") from None
    if plan is None:
        return Plan(model_type=model_type, shape=shape)
    if plan.model_type != model_type:
        raise ValueError(f"the plan is for a model of the type {plan.model_type}: got {model_type}")
    for field in fields(Shape):
        expected, found = getattr(plan.shape, field.name), getattr(shape, field.name)
        if expected != found:
            raise ValueError(
                f"the plan is for a model whose {field.name} is {expected}: "
                f"{os.fspath(model)} has {found}"
            )
    return plan


def choose_vocabulary(
    model: str | os.PathLike[str],
    counts: str | os.PathLike[str] | Counts,
    keep: int,
    keep_per: Mapping[str, int] | None = None,
) -> list[int]:
    r"""Returns the ids that are kept of a model's vocabulary, rising.

    Special tokens, bytes and single characters that occur stay; then the most frequent.

    Args:
        model: the folder of a model with its tokenizer.
        counts: how often each id occurs, or the file of it, which `lmcore compression count`
            writes.
        keep: how many ids.
        keep_per: how many of the most frequent of a group stay in any case.

    Raises:
        IndexError: a count is that of an id that no token has.
        OSError: a file cannot be read.
        ValueError: there is no tokenizer, the counts are of another one, or fewer tokens are asked
            for than must stay.

    Example:
        >>> import json, pathlib, tempfile
        >>> words = {"type": "WordLevel", "vocab": dict(zip("?abcdefg", range(8)))}
        >>> content = {"version": "1.0", "added_tokens": [], "model": {**words, "unk_token": "?"}}
        >>> config = {"model_type": "gpt2", "vocab_size": 8, "eos_token_id": 7, "n_layer": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, value in (("config.json", config), ("tokenizer.json", content)):
        ...         _ = pathlib.Path(folder, name).write_text(json.dumps(value))
        ...     _ = pathlib.Path(folder, "counts").write_text("1 5\n4 9\n")
        ...     choose_vocabulary(folder, pathlib.Path(folder, "counts"), 4)
        [0, 1, 4, 7]
    """
    from lmcore.compression.counts import read_counts
    from lmcore.compression.pieces.folder import TokenizerFolder
    from lmcore.compression.token_ids import list_token_ids
    from lmcore.compression.vocabulary import choose_tokens
    from lmcore.compression.vocabulary_pruning import check_counts, check_tokenizer

    folder = Path(model)
    rows = read_shape(folder).vocabulary_size
    found = read_counts(counts) if isinstance(counts, str | os.PathLike) else counts
    table = TokenizerFolder(folder).table
    check_tokenizer(folder, table.ids, rows)
    check_counts(folder, found, rows)
    named: set[int] = set()
    for file in (find_config(folder), folder / "generation_config.json"):
        if file.is_file():
            settings = read_json(file, "the settings of a model")
            if not isinstance(settings, dict):
                raise ValueError(f"{file}: not the settings of a model: expected an object")
            family = find_family(settings["model_type"]) if "model_type" in settings else None
            named |= list_token_ids({**(family.token_ids if family else {}), **settings})
    named = {number for number in named if number < rows}
    chosen = choose_tokens(table, found.groups, keep, keep_per=keep_per, named=named)
    ids: list[int] = chosen.ids.tolist()
    return ids


def add_chosen_stage(
    plan: Plan,
    sizes: Sizes,
    *,
    scores: Scores | None = None,
    method: str = "random",
    seed: int = 0,
    layout: str = "spread",
    name: str = "",
) -> tuple[Plan, Shape]:
    """Returns a plan with one stage more that leaves given sizes, and the shape that it leaves.

    Args:
        plan: to add to.
        sizes: to leave.
        scores: of the original's parts; drawn by the seed if None.
        method: how they were made, for the record; without scores `random`, or one of
            `lmcore.compression.choosing.SCORED`, which need them.
        seed: of what is drawn.
        layout: of layers that are cut.
        name: of the stage.

    Raises:
        ValueError: nothing is asked for, a size is larger than what is there, or the
            configuration of the model's family cannot say it.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=6, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan, small = add_chosen_stage(Plan(model_type="llama", shape=shape), Sizes(ffn=5))
        >>> small.inner_size
        5
    """
    if scores is None and method not in METHODS:
        raise ValueError(f"choose must be one of {', '.join(METHODS)}: got {method!r:.60}")
    if scores is None and method in SCORED:
        raise ValueError(f"{method} needs scores of the model's parts")
    if all(getattr(sizes, field.name) is None for field in fields(Sizes)):
        names = ", ".join(field.name.replace("_", "-") for field in fields(Sizes))
        raise ValueError(f"expected a size to leave, one of {names}")
    about: dict[str, Any] = {"name": name, "method": method}
    if scores is None:
        scores, about["seed"] = draw_scores(plan.shape, seed), seed
    made = add_stage(plan, choose_stage(plan, sizes, scores, layout=layout, **about))
    check_plan(made)
    return made, prune_shape(made)


def list_shapes(plan: Plan) -> list[tuple[str, Shape, int | None]]:
    """Returns name, shape and published number of parameters of the original and of each stage.

    Args:
        plan: any.

    Raises:
        ValueError: layers keep different numbers of heads or of inner units.

    Example:
        >>> from lmcore.compression.recipes import openba_v2
        >>> [(name, shape.decoder_layers) for name, shape, _ in list_shapes(openba_v2())][:3]
        [('original', 36), ('1', 30), ('2', 27)]
    """
    stages = [
        (stage.name or str(number), prune_shape(plan, number), stage.published_parameters)
        for number, stage in enumerate(plan.stages, 1)
    ]
    return [("original", plan.shape, plan.published_parameters), *stages]
