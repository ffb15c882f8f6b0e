"""A model's folder becomes one with fewer tokens, and is proved to be the same model.

What is written opens with plain `from_pretrained`: weights, settings, the tokenizer in all its
files, and `pruning.json`, which says what became of each id. Everything is written into a hidden
folder beside the new one, which gets its name when all of it is whole; a run that ended early goes
on there. Source: OpenBA-V2 (arXiv 2405.05957), vocabulary pruning; specification section 5.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import FolderLock, whole_file, write_text
from lmcore._json import read_json
from lmcore._shards import SHARD_BYTES, is_unfinished
from lmcore._streams import is_standard
from lmcore.compression.backends import JSON_FILE, hash_tokenizer
from lmcore.compression.checkpoint_folders import StoredCheckpoint, read_checkpoint
from lmcore.compression.counts import Counts
from lmcore.compression.cuts import TensorCut
from lmcore.compression.model_folders import digest_model
from lmcore.compression.pieces.folder import TokenizerFolder, load_tokenizer
from lmcore.compression.proof import Proof, prove_logits, prove_tensors, prove_texts
from lmcore.compression.record import Record, find_way, write_record
from lmcore.compression.scores_files import digest_weights
from lmcore.compression.shards import cut_checkpoint
from lmcore.compression.token_ids import find_missing, list_token_ids, renumber_settings
from lmcore.compression.vocabulary import Selection, choose_tokens, pad_ids
from lmcore.compression.vocabulary_tensors import (
    VocabularyTensors,
    find_vocabulary_tensors,
    list_size_settings,
    load_config,
    make_vocabulary_cuts,
)
from lmcore.openba.documents import read_documents

_CONFIG, _GENERATION = "config.json", "generation_config.json"
# What belongs to a model beside weights, settings and tokenizer.
_COPIED = ("preprocessor_config.json", "processor_config.json", "LICENSE", "LICENSE.txt", "NOTICE")
_LOCK = ".lmcore-vocabulary.lock"
# Says whose weights are whole in a hidden folder: what ended in the proof goes on there.
_WRITTEN = ".lmcore-vocabulary.json"


@dataclass(kw_only=True, slots=True, frozen=True)
class VocabularySummary:
    """What became of a vocabulary."""

    tokens_before: int
    tokens: int
    rows_before: int
    """Of the embedding."""
    rows: int
    required: int
    """Tokens that stay whatever the counts say."""
    characters: int
    """Single characters that stay because they occur."""
    coverage: dict[str, float]
    """Share of the counted tokens whose ids stay, by group."""
    bytes: int
    """Of the new weights."""
    proof: Proof | None


def prune_vocabulary(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    counts: Counts,
    keep: int,
    *,
    keep_per: Mapping[str, int] | None = None,
    multiple: int = 128,
    prove: Sequence[str | os.PathLike[str]] = (),
    logits: bool = True,
    max_shard_bytes: int = SHARD_BYTES,
    resume: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> VocabularySummary:
    """Writes a model's folder with fewer tokens, and returns what became of them.

    Rows of the embedding that no token has go, unless the settings name them; the new rows behind
    the tokens repeat the first of those, as OpenBA-V2 has it, or else the row of padding.

    Args:
        source: folder of a model of transformers with its tokenizer.
        target: the new folder; there must be none.
        counts: how often each id occurs, by group.
        keep: number of tokens that stay.
        keep_per: number of the most frequent tokens of a group that stay in any case.
        multiple: the new embedding's number of rows is one of it.
        prove: files of texts; both models and tokenizers are compared on their lines.
        logits: whether the proof loads both models, which takes the memory of the larger one.
        max_shard_bytes: of a file of weights.
        resume: go on where an earlier start ended, if one did; or start anew.
        progress: called with the bytes of weights that are written so far, and in all.

    Raises:
        FileExistsError: the target exists, another process writes it, or an earlier start that
            ended did so in another way.
        ImportError: torch or transformers is not installed.
        IndexError: a count is that of an id that no token has.
        OSError: a file cannot be read or written.
        ValueError: the source is no model with its tokenizer, the counts are of another
            vocabulary, or an argument is out of its range.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 8, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> words = {"type": "WordLevel", "vocab": dict(zip("?abcdefg", range(8)))}
        >>> content = {"version": "1.0", "added_tokens": [], "model": {**words, "unk_token": "?"}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None))
        ...     model.save_pretrained(Path(folder, "old"))
        ...     _ = Path(folder, "old", "tokenizer.json").write_text(json.dumps(content))
        ...     counts = Counts(groups={"all": np.array([0, 5, 1, 2, 9, 0, 0, 3])})
        ...     summary = prune_vocabulary(
        ...         Path(folder, "old"), Path(folder, "new"), counts, 4, multiple=2
        ...     )
        ...     GPT2LMHeadModel.from_pretrained(Path(folder, "new")).lm_head.weight.shape
        torch.Size([4, 8])
        >>> summary.tokens_before, summary.tokens, summary.coverage
        (8, 4, {'all': 0.85})
    """
    final = Path(target)
    _check_target(final)
    for file in prove:  # before hours of work, not behind them
        if not is_standard(file):
            open(file, "rb").close()
    plan = _Plan.make(Path(source), counts, keep, dict(keep_per or {}), multiple)
    part = final.with_name(f".{final.name}.lmcore-part")
    part.mkdir(exist_ok=True)
    with FolderLock(part, doing="writing a model", file=_LOCK).hold():
        if not resume:
            _empty(part)
        plan.write_settings(part)
        written = plan.write_weights(part, max_shard_bytes, resume, progress)
        proof = plan.prove(part, prove, logits) if prove else None
        plan.write_record(part, final, proof)
        _check_target(final)
        part.rename(final)
    forget_writing(final)
    return VocabularySummary(
        tokens_before=len(plan.tokenizer.table),
        tokens=len(plan.selection.ids),
        rows_before=plan.tensors.rows,
        rows=len(plan.old_ids),
        required=plan.selection.required,
        characters=plan.selection.characters,
        coverage=plan.selection.coverage,
        bytes=written,
        proof=proof,
    )


def forget_writing(folder: Path) -> None:
    """Returns nothing, once what a run that was killed at its very end left is removed.

    Args:
        folder: that `prune_vocabulary` made.

    Raises:
        OSError: it cannot be removed.

    Example:
        >>> forget_writing(Path("nowhere"))
    """
    for name in (_LOCK, _WRITTEN):
        (folder / name).unlink(missing_ok=True)


@dataclass(kw_only=True, slots=True, frozen=True)
class _Plan:
    """Everything that is known before the first byte is written."""

    source: Path
    config: Any
    stated: dict[str, Any]
    generation: dict[str, Any] | None
    tensors: VocabularyTensors
    tokenizer: TokenizerFolder
    selection: Selection
    old_ids: NDArray[np.int64]
    checkpoint: StoredCheckpoint
    cuts: list[TensorCut]
    options: dict[str, Any]

    @classmethod
    def make(
        cls,
        source: Path,
        counts: Counts,
        keep: int,
        keep_per: dict[str, int],
        multiple: int,
    ) -> _Plan:
        checkpoint = read_checkpoint(source)
        config = load_config(source)
        tensors = find_vocabulary_tensors(config)
        tokenizer = TokenizerFolder(source)
        ids = tokenizer.table.ids
        check_tokenizer(source, ids, tensors.rows)
        check_counts(source, counts, tensors.rows)
        generation = _read_settings(source / _GENERATION)
        named = list_token_ids(config.to_dict()) | list_token_ids(generation or {})
        rows = {number for number in named if number < tensors.rows}
        selection = choose_tokens(
            tokenizer.table, counts.groups, keep, keep_per=keep_per, named=rows
        )
        old_ids = pad_ids(selection.ids, multiple)
        padding = _find_padding_row(config, ids, tensors.rows)
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        cuts = make_vocabulary_cuts(tensors, shapes, old_ids, padding)
        return cls(
            source=source, config=config, stated=_read_settings(source / _CONFIG) or {},
            generation=generation, tensors=tensors, tokenizer=tokenizer, selection=selection,
            old_ids=old_ids, checkpoint=checkpoint, cuts=cuts,
            options={"keep": keep, "keep_per": keep_per, "multiple": multiple,
                     "padding_row": padding},
        )  # fmt: skip

    @property
    def new_ids(self) -> dict[int, int]:
        """New ids by old ones."""
        return {int(old): new for new, old in enumerate(self.selection.ids)}

    def write_settings(self, folder: Path) -> None:
        new_ids, rows = self.new_ids, self.tensors.rows
        complete = self.config.to_dict()
        changed = renumber_settings(complete, new_ids, rows)
        stated = renumber_settings(self.stated, new_ids, rows)
        for settings in (changed, stated):
            for path, _ in list_size_settings(settings):
                _set(settings, path, len(self.old_ids))
        _write_json(folder / _CONFIG, find_missing(stated, complete, changed))
        if self.generation is not None:
            _write_json(folder / _GENERATION, renumber_settings(self.generation, new_ids, rows))
        self.tokenizer.write_pruned(folder, new_ids)
        for name in _COPIED:
            if (self.source / name).is_file():
                with whole_file(folder / name) as place:
                    shutil.copyfile(self.source / name, place)

    def write_weights(
        self,
        folder: Path,
        max_shard_bytes: int,
        resume: bool,
        progress: Callable[[int, int], object] | None,
    ) -> int:
        """Writes the weights, unless an earlier start did so; returns how many bytes they take."""
        recipe = {
            "source": digest_model(self.source, self.checkpoint),
            "files": self.checkpoint.fingerprint,
            "ids": hashlib.blake2b(self.old_ids.tobytes(), digest_size=16).hexdigest(),
            "options": self.options,
            "max_shard_bytes": max_shard_bytes,
        }
        known = _read_settings(folder / _WRITTEN)
        if known is not None:
            if known.get("recipe") != recipe:
                raise FileExistsError(
                    f"{folder}: holds weights that were made otherwise: start anew without resume"
                )
            return int(known["bytes"])
        if not is_unfinished(folder):  # whose they are is not known
            raise FileExistsError(
                f"{folder}: an earlier run was killed as its weights became whole: start anew "
                f"without resume"
            )
        summary = cut_checkpoint(
            self.source, folder, self.cuts,
            max_shard_bytes=max_shard_bytes, resume=resume, progress=progress,
        )  # fmt: skip
        _write_json(folder / _WRITTEN, {"recipe": recipe, "bytes": summary.bytes})
        return summary.bytes

    def prove(self, folder: Path, files: Sequence[str | os.PathLike[str]], logits: bool) -> Proof:
        proof = Proof()
        old, new = load_tokenizer(self.source), load_tokenizer(folder)
        shown = prove_texts(proof, _read_lines(files), old, new, self.tokenizer.table, self.old_ids)
        prove_tensors(proof, self.checkpoint, read_checkpoint(folder), self.cuts)
        if logits and shown:
            prove_logits(proof, self.source, folder, self.config, shown, self.old_ids)
        return proof

    def write_record(self, folder: Path, final: Path, proof: Proof | None) -> None:
        details = {
            **self.options,
            "required": self.selection.required,
            "characters": self.selection.characters,
            "coverage": self.selection.coverage,
        }
        if proof is not None:
            details["proof"] = {**asdict(proof), "passed": proof.passed, "rise": proof.rise}
        record = Record(
            source=digest_model(self.source, self.checkpoint),
            source_weights=digest_weights(self.source),
            vocabulary_ids=self.old_ids,
            about={"vocabulary": details},
            source_folder=find_way(final, self.source),
        )
        write_record(folder, record)


def _check_target(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "exists already: name a new folder", os.fspath(target))
    if not target.name or not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(target))


def _empty(part: Path) -> None:
    """Removes what an earlier start wrote, so that nothing of another model stays behind."""
    for path in part.iterdir():
        if path.name != _LOCK and not path.is_dir():
            path.unlink()


def check_tokenizer(source: Path, ids: NDArray[np.int64], rows: int) -> None:
    """Checks that a tokenizer is that of a model: no ids without rows, few rows without tokens.

    Args:
        source: the model's folder, for the error.
        ids: `[tokens]` int64, of the tokenizer, rising.
        rows: of the embedding.

    Raises:
        ValueError: it is another model's.

    Example:
        >>> check_tokenizer(Path("model"), np.arange(5), 8)
    """
    if not ids.size or ids[-1] >= rows or 2 * len(ids) < rows:
        last = ids[-1] if ids.size else "none"
        raise ValueError(
            f"{source}: the tokenizer does not belong to the embedding: {len(ids)} tokens with ids "
            f"up to {last}, and {rows} rows"
        )


def check_counts(source: Path, counts: Counts, rows: int) -> None:
    """Checks that counts are those of a model's tokenizer.

    Args:
        source: the model's folder.
        counts: how often each id occurs.
        rows: of the embedding.

    Raises:
        ValueError: they are of another vocabulary or tokenizer.

    Example:
        >>> check_counts(Path("."), Counts(groups={"all": np.array([3, 1])}), 4)
    """
    if counts.vocabulary_size > rows:
        raise ValueError(
            f"{source}: the counts are of another vocabulary: they have {counts.vocabulary_size} "
            f"ids, and the embedding {rows} rows"
        )
    files = [file for file in source.iterdir() if file.name == JSON_FILE or file.suffix == ".model"]
    if counts.tokenizer and files and counts.tokenizer not in map(hash_tokenizer, files):
        raise ValueError(f"{source}: the counts are of another tokenizer")


def _find_padding_row(config: Any, ids: NDArray[np.int64], rows: int) -> int:
    """The first row behind the tokens, as OpenBA-V2 has it, or that of padding."""
    behind = int(ids[-1]) + 1
    if behind < rows:
        return behind
    padding = getattr(config, "pad_token_id", None)
    return padding if type(padding) is int and 0 <= padding < rows else 0


def _read_settings(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = read_json(path, "the settings of a model")
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not the settings of a model")
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _set(settings: dict[str, Any], path: tuple[str, ...], value: int) -> None:
    for name in path[:-1]:
        settings = settings[name]
    settings[path[-1]] = value


def _read_lines(files: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, str]]:
    for document in read_documents(files):
        place = f"{document.name}:{document.line}"
        try:
            yield place, document.parse()
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
