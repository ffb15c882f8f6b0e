"""Models in folders that run on texts: loaded whole or refused, in batches of similar length.

What the scores of several systems share. Nothing is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from lmcore._text import find_reason
from lmcore.training.checkpoint import no_bars
from lmcore.training.processes import find_device


def load_folder(
    folder: str | os.PathLike[str], kind: Any, device: str, *, unused: str = "pooler."
) -> tuple[Any, Any]:
    """Returns the tokenizer and the model of a folder, in float32 and for use alone.

    Args:
        folder: of a model and its tokenizer.
        kind: an auto class of transformers.
        device: as for `lmcore.training.processes.find_device`.
        unused: part of the names of weights that may be missing, as nothing comes through them;
            none if empty.

    Raises:
        ImportError: transformers lacks something that the folder asks for.
        ValueError: it holds no such model, or one without some of its weights.

    Example:
        >>> load_folder("nowhere", transformers.AutoModel, "cpu")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    place = os.fspath(folder)
    if not os.path.isdir(place):  # noqa: PTH112 - the name is not changed
        raise ValueError(f"{place}: no such folder of a model")
    where = find_device(device)
    try:
        with no_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
            model, found = kind.from_pretrained(
                place, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # what stands in a folder may fail in any way
        raise ValueError(f"{place}: no model that can be loaded: {find_reason(error)}") from error
    # A pooler stands beside hidden states, which do not come through it.
    missing = sorted(n for n in found["missing_keys"] if not unused or unused not in n)
    if missing:
        raise ValueError(f"{place}: lacks {missing[0]}: it would be random")
    return tokenizer, model.eval().to(where)


def check_lengths(
    rows: Sequence[Sequence[int]], model: Any, folder: str | os.PathLike[str]
) -> None:
    """Checks that a model has a position for each token of all texts.

    Args:
        rows: token ids of each text.
        model: whose `max_position_embeddings` counts, if it has some.
        folder: how errors call it.

    Raises:
        ValueError: a text has more tokens.

    Example:
        >>> from types import SimpleNamespace
        >>> model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=1))
        >>> check_lengths([[1], [2, 3]], model, "m")
        Traceback (most recent call last):
        ValueError: texts[1] has 2 tokens: m takes at most 1
    """
    most = getattr(model.config, "max_position_embeddings", None)
    for index, row in enumerate(rows):
        if most is not None and len(row) > most:
            raise ValueError(
                f"texts[{index}] has {len(row)} tokens: {os.fspath(folder)} takes at most {most}"
            )


def compute_by_length(
    rows: list[list[int]],
    batch_size: int,
    device: torch.device,
    compute: Callable[[Tensor, Tensor], list[Any]],
    *,
    pad: int = 0,
) -> list[Any]:
    """Returns a result for each row, computed in batches of rows of similar length.

    Args:
        rows: token ids of each text, one at least.
        batch_size: rows at once.
        device: where they are needed.
        compute: makes the results of `[batch, length]` int64 ids and their mask of ones.
        pad: the id behind the end of shorter rows.

    Example:
        >>> compute_by_length([[5, 6], [7]], 2, torch.device("cpu"), lambda ids, _: ids.tolist())
        [[5, 6], [7, 0]]
    """
    results: list[Any] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    with torch.inference_mode():
        for indices in _parts(order, batch_size):
            width = len(rows[indices[-1]])
            tokens = torch.full((len(indices), width), pad)
            mask = torch.zeros_like(tokens)
            for place, index in enumerate(indices):
                tokens[place, : len(rows[index])] = torch.tensor(rows[index])
                mask[place, : len(rows[index])] = 1
            found = compute(tokens.to(device), mask.to(device))
            for index, result in zip(indices, found, strict=True):
                results[index] = result
    return results


def _parts(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
