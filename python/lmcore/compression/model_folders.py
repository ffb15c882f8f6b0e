"""A model's folder is pruned into another one, which opens with plain `from_pretrained`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmcore._files import FolderLock, whole_file, write_text
from lmcore._json import read_json
from lmcore._shards import SHARD_BYTES, is_unfinished
from lmcore.compression.checkpoint_folders import StoredCheckpoint, read_checkpoint
from lmcore.compression.composition import split_stages
from lmcore.compression.families import Family
from lmcore.compression.pieces.folder import TokenizerFolder
from lmcore.compression.plan import Plan, find_kept
from lmcore.compression.pruning import describe_limits, make_cuts, prune_config, renumber_ids
from lmcore.compression.record import FILE, Record, find_way, format_record, read_record
from lmcore.compression.scores_files import digest_weights
from lmcore.compression.shards import CutSummary, cut_checkpoint
from lmcore.cost import Shape, read_shape
from lmcore.openba.protobuf import PieceKind

#: Files of tokenizers of transformers, and of chats.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.json", "merges.txt",
    "vocab.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_MOST_BYTES = 1 << 24  # of a configuration
_OWN = ".lmcore-"
_SIZES = (
    "encoder_layers", "decoder_layers", "hidden_size", "heads", "groups", "head_size",
    "vocabulary_size",
)  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class PruneSummary:
    """What was written."""

    weights: CutSummary
    parameters: int
    """Of the model that was pruned: elements of all its tensors."""
    tokenizer_files: list[str]
    """Those that were written: copies, or with fewer tokens where the plan cuts the vocabulary."""
    limits: list[str]
    """What the pruned model cannot do, in lines."""
    cuts_vocabulary: bool
    """Whether ids are other ones now."""


def prune_folder(
    source_folder: str | os.PathLike[str],
    target_folder: str | os.PathLike[str],
    plan: Plan,
    *,
    stage: int | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    resume: bool = True,
    progress: Callable[[int, int], object] | None = None,
    family: Family | None = None,
) -> PruneSummary:
    """Writes a pruned model into a folder: weights, configurations, tokenizer and `pruning.json`.

    The weights are streamed, so that memory does not grow with them. A run that ended early goes
    on. Where the plan cuts the vocabulary, the tokenizer loses the same tokens.

    Args:
        source_folder: of a model of transformers.
        target_folder: another one, which does not exist, is empty, or is that of a run that ended
            early.
        plan: what is kept.
        stage: one stage alone, from 1, of the model that the stages before have left; if None all
            of them, of the original.
        max_shard_bytes: of the tensors in a file.
        resume: go on where an earlier start ended, if one did.
        progress: called with the bytes that are written so far, and in all.
        family: that of the plan's model if None; one that is given says itself what fits.

    Raises:
        FileExistsError: the target holds something else, or another process writes into it.
        OSError: a file cannot be read or written.
        ValueError: the plan is for another model, or its configuration cannot say what is left.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.plan import Stage
        >>> from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=3, vocab_size=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(folder)
        ...     stage = Stage(encoder_layers=[0, 2], decoder_layers=[1, 2], hidden=range(5))
        ...     plan = Plan(model_type="t5", shape=read_shape(folder), stages=[stage])
        ...     summary = prune_folder(folder, Path(folder, "small"), plan)
        ...     small = AutoModelForSeq2SeqLM.from_pretrained(Path(folder, "small"))
        >>> small.config.num_layers, small.config.d_model
        (2, 5)
    """
    source, target = Path(source_folder), Path(target_folder)
    part = _take_stage(plan, stage)
    config = _read_object(source / "config.json", "a configuration")
    if family is None:
        _check_model(source, part, config)
    checkpoint = read_checkpoint(source)
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    files = _make_files(source, part, config, family)
    try:
        cuts = make_cuts(part, shapes, family)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    kept = find_kept(part).vocabulary
    whole = len(kept) == part.shape.vocabulary_size
    record = Record(
        source=digest_model(source, checkpoint),
        source_weights=digest_weights(source),
        plan=plan,
        stage=stage,
        vocabulary_ids=None if whole else np.array(kept),
        source_folder=find_way(target, source),
    )
    copied = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    tokenizer = None if whole or not copied else _load_tokenizer(source, kept)
    if target.exists() and source.exists() and target.is_dir() and target.samefile(source):
        raise ValueError(f"{target}: the output is an input too")
    target.mkdir(parents=True, exist_ok=True)
    with FolderLock(target, doing="writing a model", file=f"{_OWN}prune.lock").hold():
        _write_around(target, record, files)
        if tokenizer is None:
            _copy(source, target, copied)
        else:
            new_ids = {old: new for new, old in enumerate(kept)}
            copied = tokenizer.write_pruned(target, new_ids)
        weights = cut_checkpoint(
            source, target, cuts, max_shard_bytes=max_shard_bytes, resume=resume, progress=progress
        )
    return PruneSummary(
        weights=weights,
        parameters=sum(tensor.elements.size for tensor in checkpoint.tensors.values()),
        tokenizer_files=copied,
        limits=describe_limits(part, family),
        cuts_vocabulary=not whole,
    )


def is_pruned(
    source_folder: str | os.PathLike[str],
    target_folder: str | os.PathLike[str],
    plan: Plan,
    stage: int | None = None,
) -> bool:
    """Returns whether a folder holds, whole, what `prune_folder` makes of another.

    Args:
        source_folder: of a model.
        target_folder: any.
        plan: what is kept.
        stage: as for `prune_folder`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the source holds no model, or the target a damaged record.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.plan import Stage
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=3, vocab_size=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(folder)
        ...     stage = Stage(hidden=range(5))
        ...     plan = Plan(model_type="t5", shape=read_shape(folder), stages=[stage])
        ...     before = is_pruned(folder, Path(folder, "small"), plan)
        ...     _ = prune_folder(folder, Path(folder, "small"), plan)
        ...     before, is_pruned(folder, Path(folder, "small"), plan)
        (False, True)
    """
    source, target = Path(source_folder), Path(target_folder)
    if not (target / FILE).is_file() or is_unfinished(target):
        return False
    record = read_record(target)
    known = digest_model(source, read_checkpoint(source))
    if (record.source, record.plan, record.stage) != (known, plan, stage):
        return False
    return record.source_weights in (None, digest_weights(source))


def _take_stage(plan: Plan, stage: int | None) -> Plan:
    if not plan.stages:
        raise ValueError("the plan has no stages")
    if stage is None:
        return plan
    if not 1 <= stage <= len(plan.stages):
        raise ValueError(f"stage must be from 1 to {len(plan.stages)}: got {stage}")
    return split_stages(plan)[stage - 1]


def _check_model(source: Path, plan: Plan, config: dict[str, Any]) -> None:
    if config.get("model_type") != plan.model_type:
        raise ValueError(
            f"{source}: the plan is for a model of the type {plan.model_type}: got "
            f"{config.get('model_type')!r:.60}"
        )
    shape: Shape = read_shape(source / "config.json")
    for name in _SIZES:
        expected, found = getattr(plan.shape, name), getattr(shape, name)
        if expected != found:
            raise ValueError(
                f"{source}: the plan is for a model whose {name} is {expected}: got {found}"
            )


def _make_files(
    source: Path, plan: Plan, config: dict[str, Any], family: Family | None
) -> dict[str, str]:
    """The configurations of the pruned model, by name."""
    pruned = prune_config(config, plan, family)
    # The code that this names knows other sizes, or is not there.
    pruned.pop("auto_map", None)
    files = {"config.json": pruned}
    generation = source / "generation_config.json"
    if generation.is_file():
        files[generation.name] = renumber_ids(_read_object(generation, "a configuration"), plan)
    return {name: json.dumps(content, indent=2) + "\n" for name, content in files.items()}


def _load_tokenizer(source: Path, kept: tuple[int, ...]) -> TokenizerFolder:
    """The tokenizer, which can do without the tokens that go."""
    tokenizer = TokenizerFolder(source)
    table, left = tokenizer.table, {*kept}
    needed = table.ids[table.kinds != PieceKind.NORMAL].tolist()
    gone = [number for number in needed if number not in left]
    if gone:
        raise ValueError(
            f"{source}: the plan cuts {len(gone)} tokens that the tokenizer needs, such as the id "
            f"{gone[0]}: special ones, bytes, or that of the unknown"
        )
    for place, number in enumerate(table.ids.tolist()):
        parents = table.ids[table.find_parents(place)].tolist() if number in left else []
        if not left.issuperset(parents):
            raise ValueError(
                f"{source}: the plan keeps the token {number} and cuts one that it is built from"
            )
    return tokenizer


def _write_around(target: Path, record: Record, files: dict[str, str]) -> None:
    """Writes the configurations; the record first, by which a later start knows the folder."""
    others = [path.name for path in target.iterdir() if not path.name.startswith(_OWN)]
    is_own = (target / FILE).is_file() and _is_record(target / FILE, record)
    if others and not is_own:
        there = "a model that was made otherwise" if FILE in others else f"{others[0]!r:.100}"
        raise FileExistsError(f"{target}: holds {there}: name another folder")
    if not is_own:  # times that were measured since stay in it
        write_text(target / FILE, format_record(record))
    for name, text in files.items():
        write_text(target / name, text)


def _is_record(file: Path, expected: Record) -> bool:
    """Whether a record is that of this run, apart from times and where its source lay."""
    changes: dict[str, Any] = {"latency": None, "source_folder": None}
    try:
        found = replace(read_record(file), **changes)
    except ValueError:
        return False
    if found.source_weights is None:  # an older record
        changes["source_weights"] = None
    return format_record(found) == format_record(replace(expected, **changes))


def _copy(source: Path, target: Path, names: list[str]) -> None:
    for name in names:
        with whole_file(target / name) as place:
            shutil.copyfile(source / name, place)


def _read_object(file: Path, what: str) -> dict[str, Any]:
    if file.exists() and not file.is_file():
        raise ValueError(f"{file}: not {what}: expected a file")
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file}: not {what}: it has more than {_MOST_BYTES} bytes")
    content = read_json(file, what)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not {what}: expected an object, got {content!r:.60}")
    return content


def digest_model(source: Path, checkpoint: StoredCheckpoint) -> str:
    """Returns what tells a model from those of other settings or tensors; it costs nothing.

    Args:
        source: the model's folder.
        checkpoint: its tensors, which are not read.

    Raises:
        OSError: its configuration cannot be read.

    Example:
        >>> import tempfile
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> config = T5Config(d_model=8, d_ff=6, d_kv=2, num_heads=2, num_layers=1, vocab_size=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     T5ForConditionalGeneration(config).save_pretrained(folder)
        ...     len(digest_model(Path(folder), read_checkpoint(folder)))
        32
    """
    digest = hashlib.blake2b((source / "config.json").read_bytes(), digest_size=16)
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(repr((name, tensor.dtype, tensor.shape)).encode())
    return digest.hexdigest()
