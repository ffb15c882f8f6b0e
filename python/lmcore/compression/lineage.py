"""What a pruned model keeps of one that it descends from, whatever was between.

Records say what was kept of the model before. Here they are followed from folder to folder, until
the one that is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.checkpoint_folders import read_checkpoint
from lmcore.compression.composition import split_stages
from lmcore.compression.model_folders import digest_model
from lmcore.compression.plan import Kept, Plan, find_kept
from lmcore.compression.record import FILE, Record, read_record
from lmcore.compression.scores_files import digest_weights
from lmcore.cost import read_shape

_MOST_FOLDERS = 64


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Lineage:
    """What is kept of an ancestor; None where it is all of it.

    Example:
        >>> Lineage(vocabulary=np.array([3, 5])).decoder_layers is None
        True
    """

    vocabulary: NDArray[np.int64] | None = None
    """`[new vocabulary]`: the id that each id had there; -1 is a row that fills up."""
    encoder_layers: tuple[int, ...] | None = None
    """Which layer there each one was."""
    decoder_layers: tuple[int, ...] | None = None
    hidden: tuple[int, ...] | None = None
    """Which channel of the residual stream there each one was."""


def trace(
    folder: str | os.PathLike[str], ancestor_folder: str | os.PathLike[str]
) -> Lineage | None:
    """Returns what a model keeps of one that it was pruned from; None where no record says it.

    Args:
        folder: of the pruned model.
        ancestor_folder: of the other one.

    Raises:
        OSError: a file cannot be read.
        ValueError: a record or a model is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trace(folder, folder)
        Lineage(vocabulary=None, encoder_layers=None, decoder_layers=None, hidden=None)
    """
    current, ancestor = Path(folder), Path(ancestor_folder)
    found = Lineage()
    digest = None
    for _ in range(_MOST_FOLDERS):
        if current.samefile(ancestor):
            return found
        if not (current / FILE).is_file():
            return None
        record = read_record(current)
        digest = digest or digest_model(ancestor, read_checkpoint(ancestor))
        if record.source == digest:
            return _compose(_read_step(record), found)
        if record.plan is not None and record.stage is not None and _is_of(ancestor, record.plan):
            return _compose(_describe(find_kept(record.plan, record.stage), record.plan), found)
        # Indices stay what they were, also where that model was trained on since.
        source = _find_place(current, record)
        if source is None:
            return None
        found, current = _compose(_read_step(record), found), source
    return None


def find_source(folder: Path, record: Record) -> Path | None:
    """Returns the folder that a model was pruned from, if it is there and unchanged.

    Args:
        folder: of the pruned model.
        record: of it.

    Raises:
        OSError: a file cannot be read.

    Example:
        >>> find_source(Path("small"), Record(source="ab", source_folder="nowhere"))
    """
    source = _find_place(folder, record)
    return source if source is not None and _has_same_weights(source, record) else None


def _find_place(folder: Path, record: Record) -> Path | None:
    """The folder of a model of the same settings and shapes, whatever its weights are."""
    if record.source_folder is None:
        return None
    source = Path(folder, record.source_folder)
    if not (source / "config.json").is_file():
        return None
    return source if digest_model(source, read_checkpoint(source)) == record.source else None


def _has_same_weights(source: Path, record: Record) -> bool:
    return record.source_weights in (None, digest_weights(source))


def find_teacher(folder: str | os.PathLike[str]) -> tuple[Path | None, str]:
    """Returns the folder of the unpruned model that a model descends from, or why there is none.

    Records are followed as far as they go: what was pruned twice has the first model as teacher.

    Args:
        folder: of the pruned model.

    Returns:
        The folder and an empty text, or None and the reason in one line.

    Raises:
        OSError: a file cannot be read.
        ValueError: a record is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     find_teacher(folder)
        (None, 'it has no pruning.json')
    """
    # A record says where its model lies as seen from a folder, which a link to it is not.
    current = start = Path(folder).resolve()
    if not (current / FILE).is_file():
        return None, f"it has no {FILE}"
    for _ in range(_MOST_FOLDERS):
        if not (current / FILE).is_file():
            return current, ""
        record = read_record(current)
        where = "its record" if current == start else f"the record in {current}"
        if record.source_folder is None:
            return None, f"{where} names no folder"
        source = Path(os.path.normpath(current / record.source_folder))
        if not (source / "config.json").is_file():
            return None, f"{where} names {source}, where no model is"
        try:
            is_there = _find_place(current, record) is not None
            is_unchanged = is_there and _has_same_weights(source, record)
        except ValueError as error:
            return None, f"{where} names {source}: {error}"
        if not is_there:
            return None, f"{where} names {source}, where another model is now"
        if not is_unchanged:
            return None, f"{where} names {source}, whose weights are others now"
        current = source.resolve()
    return None, f"there are more than {_MOST_FOLDERS} models before it"


def _read_step(record: Record) -> Lineage:
    """What a record says of the model right before."""
    if record.plan is None:
        return Lineage(vocabulary=record.vocabulary_ids)
    plan = record.plan
    part = plan if record.stage is None else split_stages(plan)[record.stage - 1]
    return _describe(find_kept(part), part)


def _describe(kept: Kept, plan: Plan) -> Lineage:
    def tell(indices: tuple[int, ...], size: int) -> tuple[int, ...] | None:
        return None if len(indices) == size else indices

    shape = plan.shape
    ids = tell(kept.vocabulary, shape.vocabulary_size)
    return Lineage(
        vocabulary=None if ids is None else np.array(ids, np.int64),
        encoder_layers=tell(kept.encoder_layers, shape.encoder_layers),
        decoder_layers=tell(kept.decoder_layers, shape.decoder_layers),
        hidden=tell(kept.hidden, shape.hidden_size),
    )


def _is_of(folder: Path, plan: Plan) -> bool:
    """Whether a folder's model may be the one that a plan starts from."""
    found = read_shape(folder / "config.json")
    names = ("encoder_layers", "decoder_layers", "hidden_size", "heads", "vocabulary_size")
    return all(getattr(found, name) == getattr(plan.shape, name) for name in names)


def _compose(first: Lineage, then: Lineage) -> Lineage:
    """What both keep, of what is before the first."""
    ids = then.vocabulary if first.vocabulary is None else first.vocabulary
    if first.vocabulary is not None and then.vocabulary is not None:
        if len(then.vocabulary) and then.vocabulary.max() >= len(first.vocabulary):
            raise ValueError("a record keeps ids that the model before it does not have")
        ids = np.where(then.vocabulary < 0, -1, first.vocabulary[then.vocabulary])
    flat = {}
    for name in ("encoder_layers", "decoder_layers", "hidden"):
        old, new = getattr(first, name), getattr(then, name)
        if old is not None and new is not None:
            if max(new, default=-1) >= len(old):
                raise ValueError(f"a record keeps {name} that the model before it does not have")
            new = tuple(old[place] for place in new)
        flat[name] = old if new is None else new
    return Lineage(vocabulary=ids, **flat)
