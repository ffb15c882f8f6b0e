"""Proof that a model with fewer tokens is the model that it was.

| what is compared | what must hold |
| --- | --- |
| ids of each line whose tokens all stay | the new ids are the old ones, renumbered |
| the text that each line's ids give back | the same text |
| every tensor of both checkpoints | what stays has the same bits |
| logits of the tokens that stay | equal but for rounding |

A word that WordPiece did not know may be known by fewer pieces, since the longest piece at a place
need not be the one that leads on: lines with unknown words are counted, and not compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.checkpoint_folders import StoredCheckpoint
from lmcore.compression.cuts import TensorCut
from lmcore.compression.pieces.table import PieceTable
from lmcore.compression.vocabulary_tensors import find_model_class
from lmcore.openba.protobuf import PieceKind

_LINES_AT_ONCE = 1024
_LISTED = 20
_BLOCK_BYTES = 1 << 22
_LOGIT_LINES, _LOGIT_TOKENS = 8, 64
TOLERANCE = 1e-5
"""How far logits may be apart, of their largest or of 1."""


@dataclass(kw_only=True, slots=True)
class Proof:
    """What was compared, and what did not hold."""

    lines: int = 0
    surviving_lines: int = 0
    """Lines whose tokens all stay."""
    unknown_lines: int = 0
    """Lines with words that were unknown before: they are not compared."""
    tokens_before: int = 0
    tokens_after: int = 0
    tensors: int = 0
    """Tensors whose bits were compared."""
    logits: int = 0
    """Logits that were compared."""
    largest_difference: float = 0.0
    """Of two logits, divided by their largest or by 1."""
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """What did not hold, and where; the first of them."""

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return self.failed == 0

    @property
    def rise(self) -> float:
        """How many more tokens the lines have, as a share of those before."""
        return self.tokens_after / self.tokens_before - 1 if self.tokens_before else 0.0

    def fail(self, what: str) -> None:
        """Notes what did not hold.

        Args:
            what: and where.
        """
        self.failed += 1
        if len(self.failures) < _LISTED:
            self.failures.append(what)


def prove_texts(
    proof: Proof,
    lines: Iterable[tuple[str, str]],
    old: Any,
    new: Any,
    table: PieceTable,
    old_ids: NDArray[np.int64],
) -> list[list[int]]:
    """Checks ids and texts of lines, and returns the old ids of some whose tokens all stay.

    Args:
        proof: takes the results.
        lines: place and text of each.
        old: the tokenizer of before, of transformers.
        new: the one with fewer tokens.
        table: the tokens of before.
        old_ids: `[rows]` the old id of each new one, -1 for rows that fill the embedding up.

    Raises:
        ValueError: there is no line.

    Example:
        >>> from transformers import BertTokenizer
        >>> texts = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", "b", "ab"]
        >>> old, new = (BertTokenizer(dict(zip(x, range(9)))) for x in (texts, texts[:7]))
        >>> table = PieceTable(
        ...     algorithm="wordlevel", ids=np.arange(8), texts=texts, kinds=np.ones(8, np.uint8)
        ... )
        >>> proof = Proof()
        >>> prove_texts(proof, [("1", "a b"), ("2", "b a")], old, new, table, np.arange(7))
        [[1, 5, 6, 2], [1, 6, 5, 2]]
        >>> proof.passed, proof.surviving_lines, proof.rise
        (True, 2, 0.0)
    """
    new_ids = np.full(int(table.ids.max()) + 2, -1, np.int64)
    kept = np.flatnonzero((old_ids >= 0) & (old_ids < len(new_ids)))
    new_ids[old_ids[kept]] = kept
    _check_names(proof, new, table, new_ids)
    unknown = _find_unknown(table)
    shown: list[list[int]] = []
    for batch in _batches(lines):
        texts = [text for _, text in batch]
        before, after = _encode(old, texts), _encode(new, texts)
        for (place, _), first, second, was, now in zip(
            batch, before, after, old.batch_decode(before), new.batch_decode(after), strict=True
        ):
            proof.lines += 1
            proof.tokens_before += len(first)
            proof.tokens_after += len(second)
            if unknown is not None and unknown in first:
                proof.unknown_lines += 1
                continue
            expected = new_ids[first].tolist()
            if -1 not in expected:
                proof.surviving_lines += 1
                if expected != second:
                    proof.fail(f"{place}: {_compare(expected, second)}")
                elif first and len(shown) < _LOGIT_LINES:
                    shown.append(first[:_LOGIT_TOKENS])
            if was != now:
                proof.fail(f"{place}: the text that the ids give back is another: {now!r:.80}")
    if not proof.lines:
        raise ValueError("expected lines to prove it on, got none")
    return shown


def prove_tensors(
    proof: Proof, source: StoredCheckpoint, target: StoredCheckpoint, cuts: Sequence[TensorCut]
) -> None:
    """Checks that what was kept of each tensor has the same bits.

    Args:
        proof: takes the results.
        source: the checkpoint of before.
        target: the new one.
        cuts: what was kept.

    Raises:
        OSError: a file cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from lmcore.compression.checkpoint_folders import read_checkpoint
        >>> proof = Proof()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"wte": torch.ones(3, 2)}, Path(folder, "model.safetensors"))
        ...     stored = read_checkpoint(folder)
        ...     prove_tensors(proof, stored, stored, [TensorCut(source="wte", target="wte")])
        >>> proof.tensors, proof.passed
        (1, True)
    """
    for cut in cuts:
        proof.tensors += 1
        place = _find_difference(source, target, cut)
        if place is not None:
            proof.fail(f"{cut.target}: {place}")


def prove_logits(
    proof: Proof,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    config: Any,
    lines: Sequence[Sequence[int]],
    old_ids: NDArray[np.int64],
) -> None:
    """Checks the logits of the tokens that stay; both models are loaded, one after the other.

    Of a model without an output layer its last hidden states are compared.

    Args:
        proof: takes the results.
        source: folder of the model of before.
        target: of the new one.
        config: of the model of before.
        lines: old ids of lines whose tokens all stay.
        old_ids: `[rows]` the old id of each new one, -1 for rows that fill the embedding up.

    Raises:
        ValueError: a model cannot be loaded.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2, bos_token_id=None,
        ...     eos_token_id=None, architectures=["GPT2LMHeadModel"])
        >>> proof = Proof()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2LMHeadModel(config).save_pretrained(folder)
        ...     prove_logits(proof, folder, folder, config, [[1, 2]], np.arange(9))
        >>> proof.passed, proof.logits, proof.largest_difference
        (True, 18, 0.0)
    """
    kind = find_model_class(config)
    real = np.flatnonzero(old_ids >= 0)
    renumbered = {int(old_ids[new]): int(new) for new in real}
    outputs = _run(kind, source, lines)
    others = _run(kind, target, [[renumbered[number] for number in line] for line in lines])
    for line, (first, second) in enumerate(zip(outputs, others, strict=True), 1):
        if first.shape[-1] != second.shape[-1] or first.shape[-1] == config.vocab_size:
            first, second = first[..., old_ids[real]], second[..., real]
        proof.logits += first.size
        scale = max(1.0, float(np.abs(first).max(initial=0.0)))
        difference = float(np.abs(first - second).max(initial=0.0)) / scale
        proof.largest_difference = max(proof.largest_difference, difference)
        if not difference <= TOLERANCE:
            proof.fail(f"logits of line {line}: they differ by {difference:.3g}")


def _check_names(proof: Proof, new: Any, table: PieceTable, new_ids: NDArray[np.int64]) -> None:
    """The files of the new tokenizer say the ids that are meant."""
    expected = {
        text: int(new_ids[number])
        for text, number in zip(table.texts, table.ids.tolist(), strict=True)
        if new_ids[number] >= 0
    }
    found = new.get_vocab()
    for text in expected.keys() | found.keys():
        if expected.get(text) != found.get(text):
            proof.fail(
                f"the token {text!r:.60}: expected the id {expected.get(text)}, got "
                f"{found.get(text)}"
            )


def _find_unknown(table: PieceTable) -> int | None:
    """The id of unknown words, of the algorithm that may come to know them."""
    places = np.flatnonzero(table.kinds == PieceKind.UNKNOWN)
    return int(table.ids[places[0]]) if table.algorithm == "wordpiece" and places.size else None


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    return found


def _batches(lines: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(lines)
    while batch := list(islice(rest, _LINES_AT_ONCE)):
        yield batch


def _compare(expected: list[int], found: list[int]) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    shown = [ids[place : place + 4] for ids in (expected, found)]
    return f"expected the ids {shown[0]} at token {place + 1}, got {shown[1]}"


def _find_difference(
    source: StoredCheckpoint, target: StoredCheckpoint, cut: TensorCut
) -> str | None:
    """Where a tensor is not what was kept of another; None where it is."""
    if cut.target not in target.tensors:
        return "is not there"
    old, new = source.tensors[cut.source], target.tensors[cut.target]
    kept = [*cut.keep, *[None] * (len(old.shape) - len(cut.keep))]
    shape = tuple(n if k is None else len(k) for n, k in zip(old.shape, kept, strict=True))
    if (new.dtype, new.shape) != (old.dtype, shape):
        return f"expected {old.dtype} {list(shape)}, got {new.dtype} {list(new.shape)}"
    if not shape or not new.elements.size:
        return None if old.elements.tobytes() == new.elements.tobytes() else "has another value"
    step = max(1, _BLOCK_BYTES // max(1, new.bytes // shape[0]))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        part = old.elements[slice(start, stop) if kept[0] is None else kept[0][start:stop]]
        for axis, indices in enumerate(kept[1:], 1):
            part = part if indices is None else part.take(indices, axis)
        if part.tobytes() != new.elements[start:stop].tobytes():
            return f"the rows from {start} to {stop - 1} have other bits"
    return None


def _run(kind: Any, folder: Any, lines: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
    """Outputs of a model for each line."""
    import torch

    from lmcore.compression.loading import load_model

    model = load_model(folder, kind)
    outputs = []
    with torch.inference_mode():
        for line in lines:
            ids = torch.tensor([list(line)[: _most_tokens(model.config)]])
            inputs = {"input_ids": ids}
            if model.config.is_encoder_decoder:
                inputs["decoder_input_ids"] = ids
            made = model(**inputs)
            logits = made.logits if "logits" in made else made.last_hidden_state
            outputs.append(logits[0].float().numpy())
    return outputs


def _most_tokens(config: Any) -> int:
    with suppress(AttributeError, TypeError):
        # Two places of some models' tables are not positions.
        return max(1, min(_LOGIT_TOKENS, int(config.max_position_embeddings) - 2))
    return _LOGIT_TOKENS
