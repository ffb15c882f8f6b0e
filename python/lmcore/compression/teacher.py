"""The unpruned model, from which a pruned one learns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore._manifest import find_model
from lmcore.compression.hidden_states import read_hidden_states
from lmcore.compression.lineage import Lineage, find_teacher, trace
from lmcore.compression.loading import load_model
from lmcore.compression.model_folders import TOKENIZER_FILES
from lmcore.compression.output_heads import check_head, find_head
from lmcore.compression.pieces.folder import load_tokenizer
from lmcore.compression.vocabulary_tensors import load_config

with optional_imports():
    import torch
    from torch import Tensor, nn

__all__ = ["Teacher", "find_kept_ids", "find_teacher"]


class Teacher:
    """A frozen model in the mode of evaluation, without its output layer, which stands beside.

    The output layer has the student's entries alone, in the student's order.

    Args:
        model: of transformers, on its device, not sharded yet; it loses its output layer.
        kept: `[V]` int64: the id that each of the student's ids has here, or -1; None: the same.
        lineage: which layers the student has of it, if it is known.

    Attributes:
        model: what gives states where others give logits.
        weight: `[V, D]`.
        bias: `[V]` or None; -inf where the student has an entry that is none here.
        lineage: as given.

    Raises:
        IndexError: a kept id is none.
        ValueError: the model has no linear output layer, or changes logits behind it.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> teacher = Teacher(GPT2LMHeadModel(GPT2Config(**sizes)), np.array([3, 5, -1]))
        >>> ids = torch.tensor([[0, 1]])
        >>> teacher.find_states({"input_ids": teacher.find_ids(ids)}).shape, teacher.bias.tolist()
        (torch.Size([1, 2, 8]), [0.0, 0.0, -inf])
    """

    def __init__(
        self,
        model: Any,
        kept: NDArray[np.int64] | None = None,
        lineage: Lineage | None = None,
    ) -> None:
        check_head(model)
        self.model, self.lineage = model, lineage or Lineage()
        nn.Module.eval(model).requires_grad_(False)
        head: Any = find_head(model)
        self.weight: Tensor = head.weight.detach()
        self.bias: Tensor | None = None if head.bias is None else head.bias.detach()
        self._kept: Tensor | None = None
        if kept is not None:
            self._keep(kept)
        model.set_output_embeddings(nn.Identity())

    def _keep(self, kept: NDArray[np.int64]) -> None:
        entries, given = len(self.weight), np.asarray(kept)
        if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given):
            raise ValueError("kept must be whole numbers in a row")
        if given.min() < -1 or given.max() >= entries:
            raise IndexError(f"kept must be -1 to {entries - 1}: got {given.min()}, {given.max()}")
        ids = torch.from_numpy(given.astype(np.int64)).to(self.weight.device)
        gone, near = ids < 0, ids.clamp(min=0)
        self.weight = self.weight[near]
        self.bias = None if self.bias is None else self.bias[near]
        if bool(gone.any()):
            bias = self.weight.new_zeros(len(ids)) if self.bias is None else self.bias
            self.bias = bias.masked_fill(gone, -torch.inf)
        self._kept = ids

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        student_folder: str | os.PathLike[str],
        *,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
    ) -> Teacher:
        """Returns the teacher of a folder, for the student of another.

        Args:
            folder: of the unpruned model, or of a run.
            student_folder: of the pruned one.
            dtype: of its weights; `auto` is that of the files.
            device: where it shall be.

        Raises:
            ImportError: transformers is not installed.
            OSError: a file cannot be read.
            ValueError: it is no model that can be a teacher, or of another vocabulary.

        Example:
            >>> import tempfile
            >>> from transformers import GPT2Config, GPT2LMHeadModel
            >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
            >>> config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     GPT2LMHeadModel(config).save_pretrained(folder)
            ...     Teacher.load(folder, folder).weight.shape
            torch.Size([9, 8])
        """
        place = find_model(folder)
        kept, lineage = _match(place, Path(student_folder))
        model = load_model(place, dtype=dtype, device=str(device))
        try:
            return cls(model, kept, lineage)
        except (IndexError, ValueError) as error:
            raise type(error)(f"{os.fspath(folder)}: cannot be a teacher: {error}") from None

    def find_ids(self, ids: Tensor) -> Tensor:
        """Returns the teacher's ids of the student's.

        Entries that the teacher lacks are rows without a token; they become the id 0.

        Args:
            ids: int64 of any shape; negative ones stay, as labels have them.

        Example:
            >>> from transformers import GPT2Config, GPT2LMHeadModel
            >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
            >>> teacher = Teacher(GPT2LMHeadModel(GPT2Config(**sizes)), np.array([3, 5]))
            >>> teacher.find_ids(torch.tensor([1, 0, -100]))
            tensor([   5,    3, -100])
        """
        if self._kept is None:
            return ids
        return torch.where(ids < 0, ids, self._kept.clamp(min=0)[ids.clamp(min=0)])

    @torch.no_grad()
    def find_states(self, inputs: Mapping[str, Any]) -> Tensor:
        """Returns what the output layer gets: `[B, T, D]` in the type of its weight.

        Args:
            inputs: of the model, in the teacher's ids, without labels.

        Example:
            >>> from transformers import GPT2Config, GPT2LMHeadModel
            >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
            >>> teacher = Teacher(GPT2LMHeadModel(GPT2Config(**sizes)))
            >>> teacher.find_states({"input_ids": torch.tensor([[3, 4]])}).shape
            torch.Size([1, 2, 8])
        """
        return self.find_outputs(inputs)[0]

    @torch.no_grad()
    def find_outputs(
        self, inputs: Mapping[str, Any], *, output_hidden_states: bool = False
    ) -> tuple[Tensor, dict[str, tuple[Tensor, ...]]]:
        """Returns what the output layer gets, and what the layers give where that is asked for.

        Args:
            inputs: as for `find_states`.
            output_hidden_states: whether the layers' states are wanted.

        Example:
            >>> from transformers import GPT2Config, GPT2LMHeadModel
            >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
            >>> teacher = Teacher(GPT2LMHeadModel(GPT2Config(**sizes)))
            >>> ids = torch.tensor([[3, 4]])
            >>> found = teacher.find_outputs({"input_ids": ids}, output_hidden_states=True)[1]
            >>> len(found["decoder"])
            2
        """
        output = self.model(**inputs, use_cache=False, output_hidden_states=output_hidden_states)
        states = output.logits.to(self.weight.dtype)
        return states, read_hidden_states(output) if output_hidden_states else {}


def find_kept_ids(
    folder: str | os.PathLike[str], student_folder: str | os.PathLike[str]
) -> NDArray[np.int64] | None:
    """Returns the teacher's id of each of the student's ids; None: they are the same.

    The records of pruning say it; where there are none, both tokenizers must be the same.

    Args:
        folder: of the teacher.
        student_folder: of the student.

    Returns:
        `[V]` int64, -1 where the student has a row that is no token of the teacher.

    Raises:
        OSError: a file cannot be read.
        ValueError: the vocabulary is another one; the text names the folder.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2Config(vocab_size=300).save_pretrained(folder)
        ...     find_kept_ids(folder, folder)
    """
    return _match(Path(folder), Path(student_folder))[0]


def _match(folder: Path, student: Path) -> tuple[NDArray[np.int64] | None, Lineage | None]:
    for path in (folder, student):
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder of a model")
    rows, student_rows = _count_rows(folder), _count_rows(student)
    try:
        lineage = trace(student, folder)
    except ValueError as error:
        raise ValueError(f"{student}: {error}") from None
    if lineage is None:
        return _compare(folder, student, rows, student_rows), None
    kept = lineage.vocabulary
    expected = rows if kept is None else len(kept)
    if expected != student_rows or (kept is not None and kept.max(initial=-1) >= rows):
        raise ValueError(
            f"{folder}: a teacher of another vocabulary: by the records of {student} it has "
            f"{expected} of its {rows} entries, and its model has {student_rows}"
        )
    if all(map(_has_tokenizer, (folder, student))):
        own, others = (load_tokenizer(path).get_vocab() for path in (folder, student))
        ids = np.arange(rows) if kept is None else kept
        wrong = [
            token
            for token, number in others.items()
            if number >= len(ids) or own.get(token) != ids[number]
        ]
        if wrong:
            raise ValueError(
                f"{folder}: a teacher of another vocabulary: {len(wrong)} of {len(others)} tokens "
                f"of {student} are not those that its records say, such as {wrong[0]!r:.60}"
            )
    return kept, lineage


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _compare(folder: Path, student: Path, rows: int, student_rows: int) -> NDArray[np.int64] | None:
    """The ids where no record says them: the same, if both have the same tokens."""
    has = [_has_tokenizer(path) for path in (folder, student)]
    why = f"{folder}: a teacher of another vocabulary: no record of {student} leads to it, and"
    if any(has):
        if not all(has):
            raise ValueError(f"{why} {(folder, student)[has.index(False)]} has no tokenizer")
        own, others = (load_tokenizer(path).get_vocab() for path in (folder, student))
        if own != others:
            lacking = sum(own.get(token) != number for token, number in others.items())
            raise ValueError(
                f"{why} {lacking} of {len(others)} tokens have another id there, or none"
            )
    elif rows != student_rows:
        raise ValueError(f"{why} it has {rows} entries, not {student_rows}")
    if rows == student_rows:
        return None
    # Rows that fill up are as many as somebody wanted.
    ids = np.arange(student_rows)
    return np.where(ids < rows, ids, -1)


def _count_rows(folder: Path) -> int:
    return int(load_config(folder).get_text_config(decoder=True).vocab_size)
