"""A model as two ONNX graphs, which a runtime outside of Python generates with.

The encoder's graph ends with the keys and values that each layer of the decoder attends to, so that
they are computed once for a source. The decoder's graph takes them, new target tokens, and the keys
and values of earlier ones, of which there may be none; it gives logits, and the keys and values of
all tokens so far. The depths of encoder and decoder appear nowhere else, and need not be equal.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from lmcore._extras import optional_imports
from lmcore._manifest import find_model
from lmcore.openba.folders import check_target, new_folder
from lmcore.openba.modeling_openba import OpenBAForConditionalGeneration
from lmcore.openba.models import load_model
from lmcore.openba.tokenization_openba import load_tokenizer

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
MOST_DIFFERENCE = 1e-4
"""Between logits of the model and of its graphs, absolute and relative."""

# The sizes that the graphs are traced with, and others that they are compared at, from which a
# constant in the place of a size would show: rows, source and target tokens.
_TRACED = (3, 7, 2, 4)
_COMPARED = ((1, 1, 3), (4, 11, 6))
_TOKENIZERS = ("spiece.model", "tokenizer.json")


@dataclass(kw_only=True, slots=True, frozen=True)
class ExportSummary:
    """What was written."""

    files: list[str]
    """Names, in order."""
    bytes: int
    """Of all files."""
    layers: tuple[int, int]
    """Of the encoder and of the decoder."""
    difference: float
    """Largest one between logits of the model and of the graphs, over their largest absolute."""


class _Encoder(nn.Module):
    """Ids and mask of a source to what the decoder's layers attend to."""

    def __init__(self, model: OpenBAForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        states = self.model.get_encoder()(input_ids, attention_mask).last_hidden_state
        found: list[Tensor] = []
        block: Any
        for block in self.model.decoder.block:
            found += block.inter_attn._split(block.inter_attn.kv(states), 2)
        return tuple(found)


class _Decoder(nn.Module):
    """New tokens, and keys and values, to logits, and keys and values."""

    def __init__(self, model: OpenBAForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        cross: tuple[Tensor, ...],
        past: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        cache = EncoderDecoderCache(DynamicCache(_pair(past)), DynamicCache(_pair(cross)))
        for layer in range(len(cross) // 2):
            cache.is_updated[layer] = True
        # Of the encoder's states only the shape is asked for.
        states = cross[0].transpose(1, 2).flatten(2)
        output = self.model(
            attention_mask=attention_mask, decoder_input_ids=input_ids, encoder_outputs=(states,),
            cache=cache, use_cache=True,
        )  # fmt: skip
        own: Any = output.cache.self_attention_cache
        present = [part for layer in own.layers for part in (layer.keys, layer.values)]
        return output.logits, *present


def export(model: str | os.PathLike[str], out: str | os.PathLike[str]) -> ExportSummary:
    """Writes a model's folder as ONNX graphs of the encoder and the decoder, in float32.

    Both are run before the folder gets its name, at other sizes than they were traced with, with
    padding on either side and in steps of one and of several tokens: logits are those of the model
    within 1e-4. The configuration goes along, and the tokenizer if the folder has one.

    Args:
        model: a folder, or that of a run, whose best model it is.
        out: another folder, which does not exist or is empty.

    Raises:
        FileExistsError: the output holds something, or another process writes it.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        OSError: a file cannot be read or written.
        ValueError: the folder holds no model, or the graphs compute something else.

    Example:
        >>> import tempfile
        >>> from lmcore.openba import OpenBAConfig
        >>> config = OpenBAConfig(vocab_size=16, hidden_size=8, encoder_layers=1, decoder_layers=2)
        >>> with tempfile.TemporaryDirectory() as name:
        ...     OpenBAForConditionalGeneration(config).save_pretrained(Path(name, "model"))
        ...     summary = export(Path(name, "model"), Path(name, "graphs"))
        >>> summary.layers, summary.difference < 1e-4
        ((1, 2), True)
    """
    with optional_imports():
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

    source = find_model(model)
    check_target(out, source)
    found: Any = load_model(model)
    found.eval()
    found.set_attn_implementation("eager")
    has_words = any((source / name).is_file() for name in _TOKENIZERS)
    words = load_tokenizer(source) if has_words else None
    with new_folder(out, source) as part, torch.no_grad():
        _write_graphs(found, part)
        difference = _compare(found, part)
        found.config.save_pretrained(part)
        if words is not None:
            words.save_pretrained(part)
    files = sorted(path for path in Path(out).iterdir() if path.is_file())
    return ExportSummary(
        files=[path.name for path in files],
        bytes=sum(path.stat().st_size for path in files),
        layers=(found.config.encoder_layers, found.config.decoder_layers),
        difference=difference,
    )


def _write_graphs(model: OpenBAForConditionalGeneration, part: Path) -> None:
    config = model.config
    rows, source, target, past = _TRACED
    size = (rows, config.num_heads, source, config.kv_channels)
    cross = tuple(torch.zeros(size) for _ in range(2 * config.decoder_layers))
    size = (rows, config.num_heads, past, config.kv_channels)
    own = tuple(torch.zeros(size) for _ in range(2 * config.decoder_layers))
    ids = torch.zeros(rows, source, dtype=torch.int64)
    batch, sources = torch.export.Dim("batch"), torch.export.Dim("source")
    targets, pasts = torch.export.Dim("target"), torch.export.Dim("past")
    tokens = {0: batch, 1: sources}
    cross_names, past_names, present_names = (
        list(name_pairs(kind, config.decoder_layers)) for kind in ("cross", "past", "present")
    )
    mask = torch.ones_like(ids)
    _write_graph(
        _Encoder(model), (ids, mask), part / ENCODER, ["input_ids", "attention_mask"], cross_names,
        {"input_ids": tokens, "attention_mask": tokens},
    )  # fmt: skip
    _write_graph(
        _Decoder(model), (ids[:, :target], mask, cross, own), part / DECODER,
        ["input_ids", "attention_mask", *cross_names, *past_names], ["logits", *present_names],
        {
            "input_ids": {0: batch, 1: targets}, "attention_mask": tokens,
            "cross": tuple({0: batch, 2: sources} for _ in cross),
            "past": tuple({0: batch, 2: pasts} for _ in own),
        },
    )  # fmt: skip


def name_pairs(kind: str, layers: int) -> Iterator[str]:
    """Yields the names of keys and values in the graphs, layer by layer.

    Args:
        kind: `cross`, `past` or `present`.
        layers: of the decoder.

    Example:
        >>> list(name_pairs("past", 2))
        ['past_key.0', 'past_value.0', 'past_key.1', 'past_value.1']
    """
    for layer in range(layers):
        yield f"{kind}_key.{layer}"
        yield f"{kind}_value.{layer}"


def _write_graph(
    module: nn.Module,
    arguments: tuple[Any, ...],
    file: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: dict[str, Any],
) -> None:
    module.eval()
    with _quiet():
        torch.onnx.export(
            module, arguments, file, dynamo=True, verbose=False, external_data=True,
            input_names=inputs, output_names=outputs, dynamic_shapes=dynamic_shapes,
        )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(model: OpenBAForConditionalGeneration, part: Path) -> float:
    """The difference of logits, over those of the model, or an error where it is too large."""
    import onnxruntime

    encoder, decoder = (onnxruntime.InferenceSession(part / name) for name in (ENCODER, DECODER))
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for rows, source, target in _COMPARED:
        size = model.config.vocab_size
        ids = torch.randint(size, (rows, source), generator=generator)
        mask = torch.ones_like(ids)
        if rows > 1:  # padding on the right, on the left, and nothing but padding
            mask[1, source // 2 :], mask[2, : source // 2], mask[3] = 0, 0, 0
        targets = torch.randint(size, (rows, target), generator=generator)
        expected = model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=targets
        ).logits.numpy()
        found = _run(model, encoder, decoder, ids.numpy(), mask.numpy(), targets.numpy())
        difference = np.abs(found - expected)
        if not (difference <= MOST_DIFFERENCE * (1 + np.abs(expected))).all():
            raise ValueError(
                f"{part}: the graphs are not the model: logits differ by {difference.max():.2g}"
            )
        worst = max(worst, float(difference.max() / max(1.0, np.abs(expected).max())))
    return worst


def _run(
    model: OpenBAForConditionalGeneration,
    encoder: Any,
    decoder: Any,
    ids: NDArray[np.int64],
    mask: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Logits of target tokens, one first, then two, then the rest."""
    config = model.config
    layers = config.decoder_layers
    cross = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
    feed = dict(zip(name_pairs("cross", layers), cross, strict=True))
    nothing = np.zeros((len(ids), config.num_heads, 0, config.kv_channels), np.float32)
    feed |= dict.fromkeys(name_pairs("past", layers), nothing)
    found = []
    for start, stop in ((0, 1), (1, 3), (3, None)):
        step = targets[:, start:stop]
        if step.shape[1]:
            logits, *present = decoder.run(
                None, {**feed, "input_ids": step, "attention_mask": mask}
            )
            feed |= dict(zip(name_pairs("past", layers), present, strict=True))
            found.append(logits)
    return np.concatenate(found, 1)


def _pair(parts: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(parts[::2], parts[1::2], strict=True))
