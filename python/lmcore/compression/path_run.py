"""A path is walked: each stage cuts the model of the one before, and trains what is left.

Each step is one that has a command of its own, and goes on where it was; so does the path.

    path.json            what the path is; another one is refused
    1-NAME/plan.json     what is kept after the stage, of the original
    1-NAME/pruned        the model right after the cut
    1-NAME/losses.json   before and right after the cut
    1-NAME/recovered     the run that trained it; `best` is what the next stage starts from
    1-NAME/digests.json  of the files above that are trusted when the path goes on
    2-NAME/...
    packed               texts as ids, for all stages
    plan.json            what is kept in the end
    report.json          each stage's parameters, losses, steps and tokens
    model                a link to the last model
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lmcore._files import FolderLock, write_text
from lmcore._json import read_json
from lmcore._manifest import find_model
from lmcore.compression.counting import count_files
from lmcore.compression.counts import Counts, read_counts, write_counts
from lmcore.compression.digests import Digests
from lmcore.compression.model_folders import is_pruned, prune_folder
from lmcore.compression.path import PathConfig, PathStage, VocabularyCut, find_original
from lmcore.compression.path_checks import are_ids, check_places, check_training, unpack
from lmcore.compression.path_cuts import add_cut, add_tokens, changes_ids, find_text, settle_stages
from lmcore.compression.path_folder import open_folder, read_next
from lmcore.compression.path_losses import ValidationLosses, pack_for, validate_model
from lmcore.compression.path_results import PathResult, StageResult, write_report
from lmcore.compression.plan_files import write_plan
from lmcore.compression.planning import choose_vocabulary, start_plan
from lmcore.compression.record import read_record
from lmcore.compression.recovery import RecoveryResult, recover
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.compression.scores_files import digest_weights
from lmcore.compression.vocabulary_pruning import forget_writing, prune_vocabulary
from lmcore.cost import count_parameters, read_shape
from lmcore.openba.indexed import IndexedDataset
from lmcore.openba.recipes import DENOISERS
from lmcore.training.folder import point_to


def run_path(
    path: PathConfig,
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    data: Any = None,
    valid: Any = None,
    resume: bool = True,
    tell: Callable[[str], object] | None = None,
    progress: bool = False,
) -> PathResult:
    """Returns what a path came to: its folder holds the models of all stages.

    Of each stage the model is cut as its plan says, its loss is measured before and after the cut,
    and it is trained. A path that was killed, wherever that was, goes on there and ends with the
    same bytes. What cannot be done is said before anything is cut, as far as it is known by then.

    Each stage learns from the original by default, as Minitron does, and not from the model that
    it cuts: that one is a copy with losses of its own, and its stage's texts teach what it knew.

    Source: OpenBA-V2 (arXiv 2405.05957), sections 3 to 6.

    Args:
        path: the stages.
        out: the folder; it is made if it does not exist.
        model: folder of the original, or of its run; takes the place of `path.model`.
        data: takes the place of `path.data`: whatever `recover` takes.
        valid: takes the place of `path.valid`.
        resume: whether to go on from what the folder holds; otherwise all stages start anew.
        tell: called with a line when a step is done.
        progress: whether training shows bars on standard error.

    Raises:
        FileExistsError: the folder holds another path, or another process walks one into it.
        OSError: a file cannot be read or written.
        ValueError: a stage does not follow from the one before, there is no model, or nothing to
            train on; as for the steps.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.path import SizesCut
        >>> from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=3, vocab_size=9)
        >>> stages = [
        ...     PathStage(name="layers", cut=SizesCut(decoder_layers=2)),
        ...     PathStage(name="widths", cut=SizesCut(ffn=4, choose="magnitude"))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(Path(folder, "large"))
        ...     path = PathConfig(model=str(Path(folder, "large")), stages=stages)
        ...     result = run_path(path, Path(folder, "out"))
        ...     AutoModelForSeq2SeqLM.from_pretrained(Path(folder, "out", "model")).config.d_ff
        4
    """
    given = {"data": path.data or None if data is None else data,
             "valid": path.valid or None if valid is None else valid}  # fmt: skip
    given = {name: one.prefix if isinstance(one, IndexedDataset) else one
             for name, one in given.items()}  # fmt: skip
    original = find_model(find_original(path, model))
    path = settle_stages(path, start_plan(original))
    digest = digest_weights(original)
    check_training(path, original, given)
    folder = Path(out)
    check_places(folder, path, original, given)
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, doing="walking a path").hold():
        open_folder(folder, path, digest, given, resume=resume)
        walk = _Walk(path, folder, original, given, tell or (lambda line: None), progress)
        walk.check_texts()
        stages = tuple(walk.take(number) for number in range(1, len(path.stages) + 1))
        write_plan(folder / "plan.json", walk.plan)
        point_to(folder / "model", walk.model)
        result = PathResult(folder=folder, model=walk.model, stages=stages)
        write_report(result)
    return result


_NO_COUNTS = Counts(groups={"all": np.zeros(1, np.int64)})


class _Walk:
    """The stages of a path in its folder, one after the other.

    Attributes:
        plan: what is kept after the stages so far.
        model: the folder of the last of them, or of the original.
    """

    def __init__(
        self,
        path: PathConfig,
        folder: Path,
        original: Path,
        given: dict[str, Any],
        tell: Callable[[str], object],
        progress: bool,
    ) -> None:
        self.path, self.folder, self.original, self.given = path, folder, original, given
        self._tell, self.progress = tell, progress
        self.model, self.plan = original, start_plan(original)
        self.has_new_ids = False
        self._validated: dict[tuple[int, Path], ValidationLosses] = {}

    def check_texts(self) -> None:
        """Packs texts and counts tokens of the original, as far as stages have its tokenizer.

        That texts are too short, or a stage keeps too few tokens, is to be known before hours of
        training, and not behind them. Of a tokenizer that an earlier stage has made smaller nothing
        is packed or counted yet: special tokens and bytes must stay.
        """
        keep_per: Mapping[str, int] | None
        is_smaller = False
        for stage, name in zip(self.path.stages, self.path.folders, strict=True):
            cut, place = stage.cut, self.folder / name
            if isinstance(cut, VocabularyCut):
                # Ids of a stage's own are those behind its cut.
                is_counted = cut.counts is not None or not (stage.data and are_ids(stage.data))
                counts, keep_per = _NO_COUNTS, None
                try:
                    if not is_smaller and is_counted:
                        place.mkdir(exist_ok=True)
                        counts, keep_per = self._count(stage, cut, place), cut.keep_per
                    choose_vocabulary(self.original, counts, cut.keep, keep_per)
                except (IndexError, ValueError) as error:
                    raise type(error)(f"the stage {stage.name}: {error}") from None
                is_smaller = True
            elif changes_ids(cut):
                return  # what of the original's tokens is there is for the plan to say
            elif getattr(cut, "vocabulary", None) is not None:
                is_smaller = True
            if stage.recover is not None and not is_smaller:
                for what in ("data", "valid"):
                    self._pack(self.original, stage.recover, self._find_data(stage, what))

    def take(self, number: int) -> StageResult:
        """Cuts and trains by a stage, as far as that is not done.

        Args:
            number: of the stage, from 1.
        """
        stage = self.path.stages[number - 1]
        place = self.folder / self.path.folders[number - 1]
        place.mkdir(exist_ok=True)
        before, had_new_ids = self.model, self.has_new_ids
        self.has_new_ids |= changes_ids(stage.cut)
        if not (place / "losses.json").is_file():
            # A model whose weights are not finite is refused before it is cut.
            self._validate(number, before, had_new_ids)
        small = self._cut(stage, number, place)
        sizes = [count_parameters(read_shape(one)).distinct for one in (before, small)]
        if stage.cut is not None:
            self._say(number, f"{sizes[0]:,} parameters became {sizes[1]:,}")
        models = ((before, had_new_ids), (small, self.has_new_ids))
        losses = self._measure(number, place, models)
        result = StageResult(
            name=stage.name,
            folder=small,
            parameters_before=sizes[0],
            parameters=sizes[1],
            published_parameters=stage.published_parameters,
            objective=losses["objective"],
            loss_before=losses["before"],
            loss_cut=losses["after_cut"],
        )
        losses_shown, shown = [result.loss_before], ""
        if stage.cut is not None:
            losses_shown.append(result.loss_cut)
        if stage.recover is not None:
            config = replace(stage.recover, model=None, teacher=None)
            if losses["targets"] is not None:
                config = replace(config, targets=tuple(losses["targets"]))
            done = self._train(stage, config, place, before, small)
            result = replace(
                result,
                folder=find_model(place / "recovered"),
                loss=done.best_value,
                steps=done.steps,
                tokens=done.steps * stage.recover.batch_size * stage.recover.text_tokens,
            )
            losses_shown.append(result.loss)
            shown = f"{done.steps:,} steps, "
        if stage.recover is not None or any(value is not None for value in losses_shown):
            arrows = " -> ".join("-" if loss is None else f"{loss:.4f}" for loss in losses_shown)
            self._say(number, f"{shown}loss {arrows}")
        self.model = result.folder
        return result

    def _say(self, number: int, line: str) -> None:
        stage = self.path.stages[number - 1]
        self._tell(f"{number}/{len(self.path.stages)} {stage.name}: {line}")

    def _find_data(self, stage: PathStage, name: str) -> Any:
        own = getattr(stage, name)
        return unpack(own) if own else unpack(self.given[name])

    def _cut(self, stage: PathStage, number: int, place: Path) -> Path:
        """Leaves the model right after the cut, and the plan that says so."""
        file = place / "plan.json"
        digests = _open_digests(place)
        is_noted = digests.check("pruned")
        if isinstance(stage.cut, VocabularyCut):
            small = self._cut_vocabulary(stage, stage.cut, place)
            if not is_noted:
                _open_digests(place).note("pruned")
            ids = read_record(small).vocabulary_ids
            assert ids is not None
            self.plan = add_tokens(self.plan, stage, ids.tolist())
            write_plan(file, self.plan)
            return small
        if file.is_file():  # what was chosen once is not scored again
            digests.check_or_note(file.name)
            self.plan = read_next(file, self.plan)
        else:
            text = find_text(stage.cut, self._find_data(stage, "data"))
            self.plan = add_cut(self.plan, stage, self.model, text)
            write_plan(file, self.plan)
            digests.note(file.name)
        if stage.cut is None:
            return self.model
        small = place / "pruned"
        if not is_pruned(self.model, small, self.plan, number):
            prune_folder(self.model, small, self.plan, stage=number)
        if not is_noted:
            digests.note(small.name)
        return small

    def _cut_vocabulary(self, stage: PathStage, cut: VocabularyCut, place: Path) -> Path:
        small = place / "pruned"
        if not small.exists():  # it gets its name when it is whole
            counts = self._count(stage, cut, place)
            prune_vocabulary(
                self.model, small, counts, cut.keep,
                keep_per=cut.keep_per, multiple=cut.multiple, resume=False,
            )  # fmt: skip
        forget_writing(small)
        return small

    def _count(self, stage: PathStage, cut: VocabularyCut, place: Path) -> Counts:
        if cut.counts is not None:
            return read_counts(cut.counts)
        file, data = place / "counts", self._find_data(stage, "data")
        digests = _open_digests(place)
        if file.is_file():
            digests.check_or_note(file.name)
            return read_counts(file)
        if isinstance(data, np.ndarray):
            size = read_shape(self.model).vocabulary_size
            write_counts(file, Counts(groups={"all": np.bincount(data.ravel(), minlength=size)}))
        else:
            names = [data] if isinstance(data, str | os.PathLike) else [*data]
            count_files(names, self.model, file)
        digests.note(file.name)
        return read_counts(file)

    def _measure(
        self, number: int, place: Path, models: tuple[tuple[Path, bool], tuple[Path, bool]]
    ) -> dict[str, Any]:
        """Losses of the model that is cut and of what is left; None where no texts fit its ids.

        With them those of the original, where D-UL2 shall come back to these.
        """
        file, digests = place / "losses.json", _open_digests(place)
        if file.is_file():
            digests.check_or_note(file.name)
            return _read_losses(file)
        stage = self.path.stages[number - 1]
        found = [self._validate(number, model, has_new_ids) for model, has_new_ids in models]
        objective = next((one.objective for one in found if one is not None), None)
        targets = None
        if objective == "d_ul2" and stage.recover is not None and stage.recover.targets is None:
            original = self._validate(number, self.original, False)
            targets = original and [original.losses[f"loss_{name}"] for name in DENOISERS]
        before, after = (one and one.losses["loss"] for one in found)
        losses = {"objective": objective, "before": before, "after_cut": after, "targets": targets}
        write_text(file, json.dumps(losses) + "\n")
        digests.note(file.name)
        return losses

    def _validate(self, number: int, model: Path, has_new_ids: bool) -> ValidationLosses | None:
        """Losses of a model on the texts of a stage, measured once; None where none fit its ids."""
        stage, config = self.path.stages[number - 1], self._find_training(number)
        valid = self._find_data(stage, "valid")
        # Ids are those of the original, or of the stage's own model where it names them.
        own = bool(stage.valid) and has_new_ids == self.has_new_ids
        if config is None or valid is None or (are_ids(valid) and has_new_ids and not own):
            return None
        key = number, model
        if key not in self._validated:
            packed = self._pack(model, config, valid)
            self._validated[key] = validate_model(model, config, packed)
        return self._validated[key]

    def _find_training(self, number: int) -> RecoveryConfig | None:
        """The settings by which a stage's losses are measured: its own, or the nearest."""
        stages = self.path.stages
        own = [stages[number - 1], *reversed(stages[: number - 1]), *stages[number:]]
        return next((stage.recover for stage in own if stage.recover is not None), None)

    def _pack(self, model: Path, config: RecoveryConfig, data: Any) -> Any:
        """Texts are packed once for all stages whose models have the same tokenizer."""
        return pack_for(model, config, data, self.folder / "packed")

    def _train(
        self, stage: PathStage, config: RecoveryConfig, place: Path, before: Path, small: Path
    ) -> RecoveryResult:
        data, valid = (
            self._pack(small, config, self._find_data(stage, name)) for name in ("data", "valid")
        )
        teachers: dict[str, Any] = {"original": self.original, "previous": before, "none": "none"}
        return recover(
            config,
            data,
            place / "recovered",
            model=small,
            teacher=teachers[stage.teacher],
            valid=valid,
            progress=self.progress,
        )


def _open_digests(place: Path) -> Digests:
    return Digests(place / "digests.json")


def _read_losses(file: Path) -> dict[str, Any]:
    content = read_json(file, "losses")
    kinds = {"objective": str, "before": float, "after_cut": float, "targets": list}
    if not isinstance(content, dict) or content.keys() != kinds.keys():
        raise ValueError(f"{file}: not losses: expected {', '.join(kinds)}")
    for name, kind in kinds.items():
        if content[name] is not None and type(content[name]) is not kind:
            raise ValueError(f"{file}: not losses: got {content[name]!r:.60} for {name}")
    return content


__all__ = ["run_path"]
