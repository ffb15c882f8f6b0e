"""Constrained decoding in few steps: all tokens between two choices are fed at once.

Most tokens of a constrained text are forced (see `lmcore.ner.decoding`): a word, its brackets,
the rest of a label that is decided. A model that generates token by token makes a step for each of
them, to choose among one. Here a step feeds the last choice with all that is forced behind it, and
reads the scores at its end alone: a sentence takes about as many steps as it has words. The tokens
are those of greedy `generate` under `ConstrainedDecoding`.

The sentences of a batch have blocks of different lengths, padded at their ends. After a step the
cached keys and values of each sentence are moved to the right, over its padding, so that its
tokens stand side by side again: distances between tokens are what T5's position bias sees, and
positions are given to models that take them. Which models that covers, `can_force` says; all
others, and beam search, generate token by token.

Shape letters: B sentences, S source, C cached tokens, K tokens of a block, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcore._extras import optional_imports
from lmcore.ner.decoding import Constraint, State

with optional_imports():
    import torch
    from torch import Tensor
    from transformers.cache_utils import DynamicCache, DynamicLayer
    from transformers.generation import utils as _generation

# Encoder-decoder models whose decoder knows distances alone, and no positions.
_RELATIVE = frozenset({"t5", "mt5", "umt5"})
# The newer versions of transformers call it "cache".
CACHE: str = getattr(_generation, "ALL_CACHE_NAMES", ["past_key_values"])[0]


@dataclass(slots=True)
class ForcedText:
    """What was generated for a sentence."""

    tokens: list[int] = field(default_factory=list)
    """With the one that ends the text."""
    log_probabilities: list[float] = field(default_factory=list)
    """Of each token among the legal ones: 0 where it is forced."""


def can_force(model: Any) -> bool:
    """Returns whether a model can be fed several tokens for each sentence of a batch at once.

    These are T5, mT5 and umT5, and decoder-only models that take the positions of their tokens and
    attend to all of them (LLaMA, Qwen, GPT-2 and most others; none with a sliding window).

    Args:
        model: of transformers, also with adapters of peft.
    """
    inner = _unwrap(model)
    if inner.config.is_encoder_decoder:
        return inner.config.model_type in _RELATIVE
    if "position_ids" not in inspect.signature(inner.forward).parameters:
        return False
    layers = getattr(DynamicCache(config=inner.config), "layers", [])
    return all(type(layer) is DynamicLayer for layer in layers)


@torch.inference_mode()
def generate_forced(
    model: Any, constraints: Sequence[Constraint], inputs: Mapping[str, Tensor]
) -> list[ForcedText]:
    """Returns the text of each sentence: greedy, with all forced tokens of a choice in one step.

    Args:
        model: one that `can_force`, in evaluation mode.
        constraints: one for each sentence.
        inputs: `input_ids` and `attention_mask`, `[B, S]` int64 on the model's device; of a
            decoder-only model the constraints' prompts, padded on the left.

    Raises:
        ValueError: the model cannot be forced, has fewer tokens than the tokenizer, or gives
            scores that are not numbers.
    """
    if not can_force(model):
        raise ValueError(
            f"a model of type {model.config.model_type!r} cannot be fed several tokens of each "
            "sentence at once: use ConstrainedDecoding"
        )
    texts = [ForcedText() for _ in constraints]
    batch = _Batch(_unwrap(model), inputs)
    rows = [_Row(constraint, text) for constraint, text in zip(constraints, texts, strict=True)]
    while rows:
        going = [number for number, row in enumerate(rows) if row.run()]
        if len(going) < len(rows):
            rows = [rows[number] for number in going]
            batch.keep(going)
        if rows:
            scores = batch.feed([row.take() for row in rows], [row.allowed for row in rows])
            for row, own in zip(rows, scores, strict=True):
                row.choose(own)
    return texts


class _Row:
    """A sentence that is being written."""

    def __init__(self, constraint: Constraint, text: ForcedText) -> None:
        self._constraint = constraint
        self._text = text
        self._state = constraint.begin
        self._fed = 0
        self.allowed: tuple[int, ...] = ()

    def run(self) -> bool:
        """Writes what is forced; whether there is a choice behind it."""
        while True:
            self.allowed = self._constraint.allowed(self._state)
            if len(self.allowed) > 1:
                return True
            if self._text.tokens and self._state.word > len(self._constraint.parts):
                return False
            self._write(self.allowed[0], 0.0)

    def take(self) -> list[int]:
        """The tokens that the model does not know yet."""
        tokens = self._text.tokens[self._fed :]
        self._fed = len(self._text.tokens)
        return tokens

    def choose(self, scores: Sequence[float]) -> None:
        """Writes the best of the legal tokens; of equal ones the first."""
        best = max(range(len(self.allowed)), key=scores.__getitem__)
        self._write(self.allowed[best], scores[best])

    def _write(self, token: int, log_probability: float) -> None:
        after: State | None = self._constraint.advance(self._state, token)
        assert after is not None
        self._state = after
        self._text.tokens.append(token)
        self._text.log_probabilities.append(log_probability)


class _Batch:
    """The model's side: what it has read, with the last token of each sentence at the end."""

    def __init__(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        self._model = model
        self._device = inputs["input_ids"].device
        self._cache: Any = None
        self._encoded: dict[str, Any] = {}
        self._prompt: Tensor | None = None
        self._counts = [0] * len(inputs["input_ids"])
        self._columns = 0
        if model.config.is_encoder_decoder and len(inputs["input_ids"]):
            states = model.get_encoder()(**inputs, return_dict=True)
            self._encoded = {"encoder_outputs": states, "attention_mask": inputs["attention_mask"]}
            start = model.generation_config.decoder_start_token_id
            if start is None:
                start = model.config.decoder_start_token_id
            self._prompt = torch.full_like(inputs["input_ids"][:, :1], start)
            self._prompt_counts = [1] * len(self._prompt)
        else:
            self._prompt = inputs["input_ids"]
            self._prompt_counts = inputs["attention_mask"].sum(dim=1).tolist()
        takes = inspect.signature(model.forward).parameters
        self._takes_count = "logits_to_keep" in takes

    def keep(self, rows: list[int]) -> None:
        """Goes on with these sentences alone."""
        if not rows:
            return
        index = torch.tensor(rows, device=self._device)
        self._counts = [self._counts[row] for row in rows]
        if self._prompt is not None:
            self._prompt = self._prompt[index]
            self._prompt_counts = [self._prompt_counts[row] for row in rows]
        if self._encoded:
            states = self._encoded["encoder_outputs"]
            states.last_hidden_state = states.last_hidden_state[index]
            self._encoded["attention_mask"] = self._encoded["attention_mask"][index]
        for layer in self._layers(cross=True) + self._layers():
            layer.keys, layer.values = layer.keys[index], layer.values[index]

    def feed(
        self, blocks: list[list[int]], allowed: Sequence[tuple[int, ...]]
    ) -> list[list[float]]:
        """Returns for each sentence the log-probabilities of what is legal behind its block."""
        most = max(max(map(max, allowed)), max(max(block, default=0) for block in blocks))
        size = self._model.get_input_embeddings().num_embeddings
        if most >= size:
            raise ValueError(
                f"the model has {size} tokens: got token {most} of a tokenizer that is not its own"
            )
        ids, counts, width = self._pad(blocks)
        known = torch.tensor(self._counts, device=self._device)[:, None]
        new = torch.tensor(counts, device=self._device)[:, None]
        # Of what is cached the last columns are the sentence's, of the block the first ones.
        cached = torch.arange(self._columns, device=self._device) >= self._columns - known
        begin = 0
        if self._prompt is not None and not self._encoded:
            begin = self._prompt.shape[1]
            left = begin - torch.tensor(self._prompt_counts, device=self._device)[:, None]
        column = torch.arange(width, device=self._device)[None, :]
        held = column < new
        if begin:
            held = held & (column >= left)
        mask = torch.cat([cached.expand(len(blocks), -1), held], dim=1).long()
        arguments: dict[str, Any] = {CACHE: self._cache, "use_cache": True, "return_dict": True}
        if self._encoded:
            arguments |= {**self._encoded, "decoder_input_ids": ids, "decoder_attention_mask": mask}
        else:
            positions = known + column - (left if begin else 0)
            arguments |= {
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": positions.clamp(min=0),
            }
            if self._takes_count:
                arguments["logits_to_keep"] = width - min(counts) + 1
        outputs = self._model(**arguments)
        self._cache = outputs[CACHE]
        scores = self._read(outputs.logits, width, counts, allowed)
        real = [n - int(left[row]) for row, n in enumerate(counts)] if begin else counts
        self._counts = [old + more for old, more in zip(self._counts, real, strict=True)]
        self._align(width, counts)
        self._prompt = None
        return scores

    def _pad(self, blocks: list[list[int]]) -> tuple[Tensor, list[int], int]:
        """The block of all sentences, how much of it is each one's, and its width."""
        start = 0 if self._prompt is None else self._prompt.shape[1]
        counts = [start + len(block) for block in blocks]
        width = max(counts)
        padding = self._model.config.pad_token_id or 0
        ids = torch.full((len(blocks), width), padding, dtype=torch.long)
        for row, block in enumerate(blocks):
            ids[row, start : start + len(block)] = torch.tensor(block, dtype=torch.long)
        ids = ids.to(self._device)
        if self._prompt is not None:
            ids[:, :start] = self._prompt
        return ids, counts, width

    def _read(
        self, logits: Tensor, width: int, counts: list[int], allowed: Sequence[tuple[int, ...]]
    ) -> list[list[float]]:
        skipped = width - logits.shape[1]
        last = torch.tensor([count - 1 - skipped for count in counts], device=self._device)
        longest = max(map(len, allowed))
        filled = [[*own, *[own[0]] * (longest - len(own))] for own in allowed]
        rows = torch.arange(len(counts), device=self._device)
        columns = torch.tensor(filled, device=self._device)
        chosen = logits[rows[:, None], last[:, None], columns].float().cpu()
        found = []
        for row, own in enumerate(allowed):
            scores = chosen[row, : len(own)]
            if bool(scores.isnan().any()):
                raise ValueError("the model gives scores that are not numbers: it is broken")
            found.append(scores.log_softmax(dim=0).tolist())
        return found

    def _align(self, width: int, counts: list[int]) -> None:
        """Moves what is cached of each sentence to the right, over the padding of its block."""
        total = self._columns + width
        kept = max(self._counts)
        self._columns = kept
        if kept == total and min(counts) == width:
            return
        shift = torch.tensor([width - count for count in counts], device=self._device)
        index = torch.arange(total - kept, total, device=self._device)[None, :] - shift[:, None]
        index = index.clamp(min=0)
        for layer in self._layers():
            heads, size = layer.keys.shape[1], layer.keys.shape[3]
            moved = index[:, None, :, None].expand(-1, heads, -1, size)
            layer.keys = layer.keys.gather(2, moved)
            layer.values = layer.values.gather(2, moved)

    def _layers(self, *, cross: bool = False) -> list[Any]:
        if self._cache is None:
            return []
        if not self._encoded:
            return [] if cross else self._cache.layers
        side = "cross_attention_cache" if cross else "self_attention_cache"
        layers: list[Any] = getattr(self._cache, side).layers
        return layers


def _unwrap(model: Any) -> Any:
    """The model that adapters were put into: these are parts of it, and work within it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
