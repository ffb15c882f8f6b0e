"""What the stages of a path cut: whether they follow from each other, and each as a plan's stage.

Whether it can be cut is found for all stages before the first is, as far as their indices are known
by then: what scores a model, or what is searched, is known when that model is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmcore.compression.choosing import Scores, Sizes
from lmcore.compression.corpora import is_ids
from lmcore.compression.path import (
    SIZES,
    Cut,
    PathConfig,
    PathStage,
    SizesCut,
    TargetCut,
    VocabularyCut,
)
from lmcore.compression.plan import FLAT, LAYERED, Plan, Stage, find_kept, prune_shape
from lmcore.compression.planning import add_chosen_stage, start_plan
from lmcore.compression.pruning import check_plan
from lmcore.compression.search import search
from lmcore.compression.targets import parse_target

_WIDTHS = {"heads": ("encoder_heads", "decoder_heads"), "ffn": ("encoder_ffn", "decoder_ffn")}


def settle_stages(path: PathConfig, plan: Plan) -> PathConfig:
    """Returns a path whose targets are sizes, once each stage is found to follow from the others.

    Args:
        path: its stages.
        plan: of the original, which cuts nothing.

    Raises:
        ValueError: a stage keeps what was cut before it, or leaves more than there is, or what
            the configuration of the family cannot say, or its target cannot be reached; the text
            names the stage.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1, openba_v2_path
        >>> path = openba_v2_path()
        >>> settle_stages(path, Plan(model_type="openba", shape=OPENBA_V1)) == path
        True
    """
    walk = _DryWalk(plan)
    return replace(path, stages=tuple(one for stage in path.stages for one in walk.take(stage)))


class _DryWalk:
    """Follows the sizes that stages leave; indices are drawn where only a model could tell them.

    Attributes:
        plan: what is kept so far.
        unknown: dimensions whose indices are drawn in place of those that a model will tell.
        is_lost: whether a stage has named indices of such a dimension: nothing is known behind.
        counted: the last cut of the vocabulary.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.unknown: set[str] = set()
        self.is_lost = False
        self.counted: VocabularyCut | None = None

    def take(self, stage: PathStage) -> tuple[PathStage, ...]:
        """The stages that one becomes, which is more than one where a target is far.

        Args:
            stage: the next.
        """
        number = len(self.plan.stages) + 1
        try:
            if isinstance(stage.cut, TargetCut):
                return self._settle(stage, stage.cut)
            self._follow(stage, stage.cut)
        except (IndexError, ValueError) as error:
            raise type(error)(_naming(stage, number, error)) from None
        return (stage,)

    def _settle(self, stage: PathStage, cut: TargetCut) -> tuple[PathStage, ...]:
        if self.is_lost:
            raise ValueError(
                "what is left for the target is not known before the stages before it are cut: "
                "name sizes"
            )
        best = search(self.plan, parse_target(cut.goal), candidates=1)[0]
        found = []
        for number, sizes in enumerate(best.rounds, 1):
            name = stage.name if len(best.rounds) == 1 else f"{stage.name}-{number}"
            found.append(replace(stage, name=name, cut=cut.make_cut(sizes)))
            self._follow(found[-1], found[-1].cut)
        return tuple(found)

    def _follow(self, stage: PathStage, cut: Cut | None) -> None:
        left = self.counted
        if cut is not None and left is not None and left.keep % left.multiple:
            raise ValueError(
                "it cuts a model whose vocabulary was counted: there keep must be a multiple of "
                f"{left.multiple}: got {left.keep}"
            )
        if isinstance(cut, Stage) and self.unknown & _list_named(cut):
            self.is_lost = True
        if self.is_lost:
            return
        if cut is None:
            self.plan = replace(self.plan, stages=(*self.plan.stages, Stage(name=stage.name)))
        elif isinstance(cut, Stage):
            self.plan = _add_named(self.plan, stage, cut)
        elif isinstance(cut, SizesCut):
            about: dict[str, Any] = {"seed": cut.seed, "layout": cut.layers}
            self.plan, _ = add_chosen_stage(self.plan, _take_sizes(cut), name=stage.name, **about)
            self.unknown |= _list_scored(cut)
        elif isinstance(cut, VocabularyCut):
            there = find_kept(self.plan).vocabulary
            if cut.keep > len(there):
                raise ValueError(f"keep must be at most the {len(there)} there are: got {cut.keep}")
            kept = Stage(name=stage.name, vocabulary=there[: cut.keep])
            self.plan = replace(self.plan, stages=(*self.plan.stages, kept))
            self.counted = cut
            self.unknown.add("vocabulary")


def _naming(stage: PathStage, number: int, error: Exception) -> str:
    """An error of a plan names the stage already."""
    where = f"stage {number} ({stage.name})"
    return str(error) if str(error).startswith(where) else f"{where}: {error}"


def add_cut(
    plan: Plan,
    stage: PathStage,
    model: Path,
    text: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Plan:
    """Returns a plan with what a stage cuts behind what is cut already, in the original's numbers.

    Args:
        plan: of the original, with a stage for each before.
        stage: which cuts no counted vocabulary.
        model: the folder that it cuts.
        text: what the model reads where it is scored, and the stage names nothing.
        progress: called with what was scored so far, and in all.

    Raises:
        OSError: a file cannot be read.
        ValueError: as for `settle_stages`, or the model cannot be scored.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> plan = Plan(model_type="openba", shape=OPENBA_V1)
        >>> made = add_cut(plan, PathStage(name="a", cut=SizesCut(hidden=2560)), Path("15b"))
        >>> prune_shape(made).hidden_size
        2560
    """
    cut, number = stage.cut, len(plan.stages) + 1
    try:
        if cut is None:
            return replace(plan, stages=(*plan.stages, _name_stage(stage, Stage())))
        if isinstance(cut, Stage):
            return _add_named(plan, stage, cut)
        assert isinstance(cut, SizesCut)
        scores = None
        if cut.choose != "random":
            scores = _find_scores(plan, cut, model, text, progress)
        about: dict[str, Any] = {"method": cut.choose, "seed": cut.seed, "layout": cut.layers}
        made, _ = add_chosen_stage(plan, _take_sizes(cut), scores=scores, name=stage.name, **about)
    except (IndexError, ValueError) as error:
        raise type(error)(_naming(stage, number, error)) from None
    return replace(made, stages=(*plan.stages, _name_stage(stage, made.stages[-1])))


def add_tokens(plan: Plan, stage: PathStage, old_ids: Sequence[int]) -> Plan:
    """Returns a plan that keeps the tokens which counts have chosen.

    Args:
        plan: of the original, with a stage for each before.
        stage: which cuts the vocabulary.
        old_ids: of the new embedding's rows, in the numbers of the model that the stage cuts; -1
            and what stands twice fill it up, which a plan does not say.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> plan = Plan(model_type="openba", shape=OPENBA_V1)
        >>> stage = PathStage(name="a", cut=VocabularyCut(keep=4))
        >>> find_kept(add_tokens(plan, stage, [7, 5, -1, 5])).vocabulary
        (5, 7)
    """
    before = find_kept(plan).vocabulary
    kept = sorted({before[number] for number in old_ids if 0 <= number < len(before)})
    chosen = Stage(vocabulary=tuple(kept), method="counts")
    return replace(plan, stages=(*plan.stages, _name_stage(stage, chosen)))


def changes_ids(cut: Cut | None) -> bool:
    """Returns whether ids are other ones behind a cut: not where the last ones alone are cut.

    Args:
        cut: of a stage.

    Example:
        >>> changes_ids(VocabularyCut(keep=7)), changes_ids(Stage(vocabulary=range(5)))
        (True, False)
    """
    if isinstance(cut, VocabularyCut):
        return True
    kept = getattr(cut, "vocabulary", None)
    return kept is not None and [*kept] != [*range(len(kept))]


def find_text(cut: Cut | None, data: Any) -> str | None:
    """Returns the file that a model reads to be scored: the cut's, or the first of texts.

    Args:
        cut: of a stage.
        data: what the stage is trained on.

    Example:
        >>> find_text(SizesCut(ffn=7, choose="taylor", text="a.txt"), None)
        'a.txt'
    """
    if isinstance(cut, SizesCut) and cut.text is not None:
        return cut.text
    names = [data] if isinstance(data, str | os.PathLike) else data
    if not isinstance(names, list | tuple) or not names or is_ids(names[0]):
        return None
    return os.fspath(names[0])


def check_text(stage: PathStage, data: Any) -> None:
    """Checks that there is a text where a model is scored by what it makes of one.

    Args:
        stage: of a path.
        data: what it is trained on.

    Raises:
        OSError: the text cannot be read.
        ValueError: there is none.

    Example:
        >>> check_text(PathStage(name="a", cut=SizesCut(ffn=7, choose="magnitude")), None)
    """
    cut = stage.cut
    if not isinstance(cut, SizesCut) or cut.choose in ("random", "magnitude"):
        return
    text = find_text(cut, data)
    if text is None:
        raise ValueError(f"the stage {stage.name}: {cut.choose} needs a text: name one in sizes")
    open(text, "rb").close()


def _add_named(plan: Plan, stage: PathStage, cut: Stage) -> Plan:
    made = replace(plan, stages=(*plan.stages, _name_stage(stage, cut)))
    check_plan(made)
    prune_shape(made)
    return made


def _name_stage(stage: PathStage, cut: Stage) -> Stage:
    return replace(cut, name=stage.name, published_parameters=stage.published_parameters)


def _take_sizes(cut: SizesCut) -> Sizes:
    return Sizes(**{name: getattr(cut, name) for name in SIZES})


def _list_named(cut: Stage) -> set[str]:
    return {name for name in (*FLAT, *LAYERED) if getattr(cut, name) is not None}


def _list_scored(cut: SizesCut) -> set[str]:
    """Dimensions whose indices the model decides; those of layers decide what has layers."""
    if cut.choose == "random":
        return set()
    found = {"hidden"} if cut.hidden is not None else set()
    for name, dimensions in _WIDTHS.items():
        if getattr(cut, name) is not None:
            found.update(dimensions)
    if cut.choose == "block_influence":
        for stack in ("encoder", "decoder"):
            if getattr(cut, f"{stack}_layers") is not None:
                found |= {f"{stack}_{part}" for part in ("layers", "heads", "ffn")}
    return found


def _find_scores(plan: Plan, cut: SizesCut, model: Path, text: str | None, progress: Any) -> Scores:
    """Scores of the parts that are left, in the numbers of the original."""
    from lmcore.compression.importance import Calibration, score_model

    calibration = None
    if cut.choose != "magnitude":
        if text is None:
            raise ValueError(f"{cut.choose} needs a text")
        calibration = Calibration(text=text, tokens=cut.tokens)
    own = start_plan(model)
    found = score_model(model, cut.choose, calibration, plan=own, progress=progress).scores
    return spread_scores(found, plan)


def spread_scores(scores: Scores, plan: Plan) -> Scores:
    """Returns scores of a pruned model's parts as those of the original's; what is gone has 0.

    Args:
        scores: in the numbers of the model that a plan leaves.
        plan: which left it.

    Example:
        >>> from lmcore.cost import Shape
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=4, heads=1, groups=1, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(hidden=[1, 3])])
        >>> spread_scores(Scores(hidden=np.array([5.0, 7.0])), plan).hidden.tolist()
        [0.0, 5.0, 0.0, 7.0]
    """
    kept, full = find_kept(plan), find_kept(plan, 0)

    def spread(values: Any, places: Sequence[int], size: int) -> Any:
        found = np.zeros(size)
        found[[*places]] = values
        return found

    made: dict[str, Any] = {}
    for field in fields(Scores):
        values, places = getattr(scores, field.name), getattr(kept, field.name)
        whole = getattr(full, field.name)
        if values is None:
            continue
        if field.name in LAYERED:
            layers = [*places]
            made[field.name] = {
                layers[own]: spread(row, places[layers[own]], len(whole[layers[own]]))
                for own, row in values.items()
            }
        else:
            made[field.name] = spread(values, places, len(whole))
    return Scores(**made)
