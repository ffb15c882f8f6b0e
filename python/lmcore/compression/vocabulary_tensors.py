"""Which tensors of a model follow its vocabulary: found for any model of transformers.

No table of families says it. The model is made twice without memory for its weights, once with
some more tokens, and the tensors whose shapes differ are those that follow: embeddings, output
layers and their biases, tied or not, buffers included. Nothing is resized: rows are chosen.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore._text import find_reason
from lmcore.compression.cuts import TensorCut

# Settings that give numbers of tokens; `type_vocab_size` is one of kinds of segments.
_SIZES = re.compile(r"(?!type_)(.*_)?vocab_size(_.*)?")
_MORE = 64


@dataclass(kw_only=True, slots=True, frozen=True)
class VocabularyTensors:
    """The tensors of a model that follow its vocabulary."""

    rows: int
    """Of the embedding."""
    axes: dict[str, int]
    """Which axis follows, by the model's names."""
    known: frozenset[str]
    """All names of the model."""
    prefix: str
    """Of the part without an output layer, which checkpoints leave out or have."""
    width: int
    """Of the embedding."""


def load_config(folder: str | os.PathLike[str]) -> Any:
    """Returns the configuration of a model's folder; nothing is fetched, and no code is run.

    Args:
        folder: of the model.

    Raises:
        ImportError: transformers is not installed.
        ValueError: there is no such folder, or it holds no configuration that transformers knows;
            the text names it.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2Config(vocab_size=300).save_pretrained(folder)
        ...     load_config(folder).vocab_size
        300
    """
    with optional_imports():
        from transformers import AutoConfig

        import lmcore.openba  # noqa: F401  (its classes are registered)
    if not Path(folder).is_dir():  # transformers would look for a published one
        raise ValueError(f"{os.fspath(folder)}: no such folder of a model")
    try:
        return AutoConfig.from_pretrained(
            os.fspath(folder), local_files_only=True, trust_remote_code=False
        )
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # what stands in a file may fail in any way
        raise ValueError(
            f"{os.fspath(folder)}: not a model that can be loaded: {find_reason(error)}"
        ) from error


def list_size_settings(settings: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yields the paths of settings that give numbers of tokens, and the numbers.

    Args:
        settings: of a model.

    Example:
        >>> settings = {"vocab_size": 9, "type_vocab_size": 2, "text_config": {"vocab_size": 9}}
        >>> list(list_size_settings(settings))
        [(('vocab_size',), 9), (('text_config', 'vocab_size'), 9)]
    """
    for name, value in settings.items():
        if isinstance(value, dict) and isinstance(name, str):
            for path, number in list_size_settings(value):
                yield (name, *path), number
        elif isinstance(name, str) and _SIZES.fullmatch(name) and type(value) is int:
            yield (name,), value


def find_vocabulary_tensors(config: Any) -> VocabularyTensors:
    """Returns the tensors of a model that follow its vocabulary.

    Args:
        config: of the model.

    Raises:
        ImportError: torch or transformers is not installed.
        ValueError: the configuration has no vocabulary, or several, or none that its tensors
            follow.

    Example:
        >>> from transformers import GPT2Config
        >>> config = GPT2Config(vocab_size=300, n_layer=1, n_embd=8, n_head=2)
        >>> config.architectures = ["GPT2LMHeadModel"]
        >>> find_vocabulary_tensors(config).axes
        {'transformer.wte.weight': 0, 'lm_head.weight': 0}
    """
    sizes = {number for _, number in list_size_settings(config.to_dict())}
    if len(sizes) != 1:
        found = ", ".join(map(str, sorted(sizes))) or "none"
        raise ValueError(f"expected a model with one vocabulary: its sizes are {found}")
    (rows,) = sizes
    model = _make_empty(config)
    larger = _make_empty(_resize(config, rows + _MORE))
    try:
        width = int(model.get_input_embeddings().weight.shape[1])
    except (NotImplementedError, AttributeError, IndexError):
        raise ValueError(f"{type(model).__name__} has no embedding of tokens") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    axes = {}
    for name, tensor in larger.state_dict().items():
        differing = [
            axis
            for axis, (new, old) in enumerate(zip(tensor.shape, shapes[name], strict=True))
            if new != old
        ]
        if differing:
            if len(differing) != 1 or shapes[name][differing[0]] != rows:
                raise ValueError(f"{name} follows the vocabulary in a way that is not known")
            axes[name] = differing[0]
    return VocabularyTensors(
        rows=rows, axes=axes, known=frozenset(shapes), prefix=model.base_model_prefix, width=width
    )


def make_vocabulary_cuts(
    tensors: VocabularyTensors,
    shapes: Mapping[str, tuple[int, ...]],
    old_ids: NDArray[np.int64],
    padding_row: int,
) -> list[TensorCut]:
    """Returns the cuts that write a checkpoint with other tokens; all other tensors stay whole.

    A tensor that the model does not know by its name follows the vocabulary if it has as many
    rows: checkpoints of older versions call a bias or an embedding by other names.

    Args:
        tensors: of the model.
        shapes: of the tensors in the checkpoint, by their names there.
        old_ids: `[rows]` the old id of each new one, -1 for rows that fill the embedding up.
        padding_row: the old row that those repeat.

    Raises:
        ValueError: a tensor has another number of rows than the configuration says, or none is
            the embedding.

    Example:
        >>> tensors = VocabularyTensors(
        ...     rows=4, axes={"wte.weight": 0}, known=frozenset({"wte.weight"}), prefix="", width=2
        ... )
        >>> (cut,) = make_vocabulary_cuts(tensors, {"wte.weight": (4, 2)}, np.array([0, 2, -1]), 3)
        >>> cut.keep[0].tolist(), cut.keep[1]
        ([0, 2, 3], None)
    """
    kept = np.where(old_ids < 0, padding_row, old_ids)
    cuts, found = [], False
    for name, shape in shapes.items():
        axis = _find_axis(tensors, name, shape)
        if axis is None:
            cuts.append(TensorCut(source=name, target=name))
            continue
        if axis >= len(shape) or shape[axis] != tensors.rows:
            raise ValueError(
                f"{name} has the shape {list(shape)}, and the configuration says that the "
                f"vocabulary has {tensors.rows} tokens"
            )
        found = found or shape == (tensors.rows, tensors.width)
        keep = tuple(kept if place == axis else None for place in range(len(shape)))
        cuts.append(TensorCut(source=name, target=name, keep=keep))
    if not found:
        raise ValueError(
            f"the checkpoint holds no embedding of {tensors.rows} tokens and width {tensors.width}"
        )
    return cuts


def _find_axis(tensors: VocabularyTensors, name: str, shape: tuple[int, ...]) -> int | None:
    prefix = f"{tensors.prefix}."
    for known in (name, prefix + name, name.removeprefix(prefix)):
        if known in tensors.known:
            return tensors.axes.get(known)
    return 0 if shape and shape[0] == tensors.rows else None


def _resize(config: Any, rows: int) -> Any:
    larger = copy.deepcopy(config)
    for path, _ in list_size_settings(config.to_dict()):
        part = larger
        for name in path[:-1]:
            part = part[name] if isinstance(part, dict) else getattr(part, name)
        if isinstance(part, dict):
            part[path[-1]] = rows
        else:
            setattr(part, path[-1], rows)
    return larger


def _make_empty(config: Any) -> Any:
    import torch

    kind = find_model_class(config)
    with torch.device("meta"):
        try:
            return kind(config)
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # settings of a file may fail in any way
            raise ValueError(
                f"its configuration makes no {kind.__name__}: {find_reason(error)}"
            ) from error


def find_model_class(config: Any) -> Any:
    """Returns the class that a configuration names, or the one without an output layer.

    Args:
        config: of a model.

    Raises:
        ImportError: transformers is not installed.
        ValueError: transformers has no such class.

    Example:
        >>> from transformers import T5Config
        >>> find_model_class(T5Config()).__name__
        'T5Model'
    """
    with optional_imports():
        import transformers

    names = config.architectures or []
    if names:
        found = getattr(transformers, names[0], None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    kinds: list[Any] = []
    for auto in ("AutoModel", "AutoModelForSeq2SeqLM", "AutoModelForCausalLM"):
        mapping = getattr(transformers, auto)._model_mapping
        if type(config) in mapping:
            value = mapping[type(config)]
            kinds += value if isinstance(value, tuple | list) else [value]
    for kind in kinds:
        if not names or kind.__name__ == names[0]:
            return kind
    raise ValueError(
        f"its architecture is {(names or [config.model_type])[0]!r:.60}, which transformers does "
        "not have"
    )
