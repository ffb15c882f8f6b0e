"""Rows of chains to batches of a model: the chain, its template and its continuations (4.1).

| tensor | a causal model | an encoder-decoder |
| --- | --- | --- |
| `input_ids` | input and chain | the input |
| `labels` | the chain; -100 on the input | the chain |
| `template_ids` | all that stands before the continuation | the same without the input, behind the token that a decoder starts with |
| `continuation_ids` | the clean continuation, then toxic ones | the same |
"""  # noqa: E501

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmcore.detox.chain_files import find_grammar
from lmcore.detox.chain_rows import read_chain_row
from lmcore.training.batches import stack_rows

IGNORED = -100
"""The label of a token that is not learnt."""
_Ids = NDArray[np.int32]


class EncodedChain(NamedTuple):
    """A row as token ids."""

    input_ids: _Ids
    """`[source]` int32; of a causal model input and chain together."""
    labels: _Ids
    """`[target]` int32; of a causal model as long as `input_ids`, -100 on the input."""
    template: _Ids
    """`[template]` int32; behind it a model writes its own continuation."""
    continuations: tuple[_Ids, ...]
    """`[tokens]` int32 each, the clean one first; empty where there is nothing to contrast."""

    @property
    def label_count(self) -> int:
        """Tokens that are learnt."""
        return int((self.labels != IGNORED).sum())

    @property
    def has_group(self) -> bool:
        """Whether there is a clean continuation and a toxic one."""
        return len(self.continuations) > 1


@dataclass(slots=True)
class ChainCounts:
    """What a collator has seen, and what did not fit."""

    rows: int = 0
    """Rows that were read."""
    long_chains: int = 0
    """Of these, rows that are longer than the window, and left out."""
    without_negatives: int = 0
    """Rows without a toxic continuation: the contrastive term passes over them."""
    long_templates: int = 0
    """Rows whose template is too long to sample behind it: the term passes over them."""
    cut_continuations: int = 0
    """Continuations of which the term reads a beginning."""

    def __str__(self) -> str:
        """What there is to say, or nothing."""
        said = [
            (self.long_chains, "chains are longer than the window and left out"),
            (self.without_negatives, "chains have no toxic continuation to contrast with"),
            (self.long_templates, "chains are too long to sample a continuation behind"),
            (self.cut_continuations, "continuations are cut for the contrastive term"),
        ]
        found = "; ".join(f"{count} {text}" for count, text in said if count)
        return f"of {self.rows} rows: {found}" if found else ""


class ChainCollator:
    """Makes batches of rows of chains, for any training loop.

    Input and chain are tokenised apart and joined, as in the authors' data set class. Its input
    ends with a space there, and ours does not: the space belongs to the first token of the chain,
    as where a model writes it. Padding is known by lengths: a token of the end that is also the
    one for padding is read and learnt.

    Source: section 4.1 of the specification; `train_cmd/basedataset.py` of the authors.

    Args:
        tokenizer: of transformers, with a token for padding.
        model: says what kind it is, and where a decoder starts.
        grammar: of the chains, `paper` or `student`.
        max_chain_tokens: of input and chain together; of each, with an encoder-decoder.
        max_template_tokens: of what a continuation is sampled behind.
        max_continuation_tokens: of each continuation; all are padded to it.
        long_chains: `leave_out` counts chains that do not fit, `refuse` raises.
        end_token: whether the token of the end is learnt behind a chain; the authors have none.

    Raises:
        ValueError: a limit is below 2, a choice is none, or the tokenizer has no token for
            padding, or none for the end where it is asked for.

    Example:
        >>> from types import SimpleNamespace
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = SimpleNamespace(config=SimpleNamespace(is_encoder_decoder=False))
        >>> collator = ChainCollator(tokenizer, model, max_continuation_tokens=8)
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> collator([{"output": text, "cont_generation": ["oh", "no"]}])["continuation_ids"].shape
        torch.Size([1, 2, 8])
    """

    def __init__(
        self,
        tokenizer: Any,
        model: Any,
        *,
        grammar: str = "paper",
        max_chain_tokens: int = 280,
        max_template_tokens: int = 250,
        max_continuation_tokens: int = 24,
        long_chains: str = "leave_out",
        end_token: bool = True,
    ) -> None:
        limits = {
            "max_chain_tokens": max_chain_tokens, "max_template_tokens": max_template_tokens,
            "max_continuation_tokens": max_continuation_tokens,
        }  # fmt: skip
        for name, limit in limits.items():
            if limit < 2:
                raise ValueError(f"{name} must be at least 2: got {limit}")
        if long_chains not in ("leave_out", "refuse"):
            raise ValueError(f"long_chains must be leave_out or refuse: got {long_chains!r:.60}")
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no token for padding: set its pad_token")
        if end_token and tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no token for the end of a text: set its eos_token")
        self.tokenizer = tokenizer
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self.start: int = getattr(model.config, "decoder_start_token_id", None) or 0
        self.grammar = find_grammar(grammar)
        self.max_chain_tokens = max_chain_tokens
        self.max_template_tokens = max_template_tokens
        self.max_continuation_tokens = max_continuation_tokens
        self.long_chains = long_chains
        self.end_token = end_token
        self.counts = ChainCounts()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Returns the batch of some rows.

        Args:
            rows: in a form of `lmcore.detox.chain_rows`.

        Returns:
            As `pad`.

        Raises:
            ValueError: a row cannot be used, or none fits.
        """
        before = str(self.counts)
        encoded = [item for item in self.encode(rows) if item is not None]
        if not encoded:
            raise ValueError("no row of the batch fits max_chain_tokens")
        if not before and str(self.counts):
            warnings.warn(f"{self.counts}. This is said once", RuntimeWarning, stacklevel=2)
        return self.pad(encoded)

    def encode(
        self, rows: Sequence[Mapping[str, Any]], *, first: int = 0
    ) -> list[EncodedChain | None]:
        """Returns rows as token ids; None for a row that is left out.

        Args:
            rows: as for a call.
            first: number of the first of them, for errors.

        Raises:
            ValueError: a row cannot be used, or is too long and long rows are refused.
        """
        read = []
        for index, row in enumerate(rows, first):
            try:
                read.append(read_chain_row(row, self.grammar))
            except ValueError as error:
                raise ValueError(f"row {index}: {error}") from None
        # All texts of one kind at once, which a tokenizer does on all cores.
        sources = self._read_sources([row.source for row in read])
        targets = self._read([row.target for row in read])
        templates = self._read([row.template[len(row.source) :] for row in read])
        texts = iter(self._read([text for row in read for text in row.continuations]))
        found: list[EncodedChain | None] = []
        ids = zip(read, sources, targets, templates, strict=True)
        for index, (item, source, target, template) in enumerate(ids, first):
            own = [next(texts) for _ in item.continuations]
            try:
                found.append(self._encode(source, target, template, own))
            except ValueError as error:
                raise ValueError(f"row {index}: {error}") from None
        return found

    def encode_prompts(self, prompts: Sequence[str]) -> list[_Ids]:
        """Returns what a model reads before it writes a chain.

        Args:
            prompts: texts.
        """
        return self._read_sources([self.grammar.write_input(prompt) for prompt in prompts])

    def pad(self, encoded: Iterable[EncodedChain]) -> dict[str, Tensor]:
        """Returns the batch of encoded rows.

        Args:
            encoded: what `encode` returned, without rows that are left out.

        Returns:
            `input_ids` and `attention_mask`, `[rows, source]` int64; `labels`, `[rows, target]`
            int64; and what the contrastive term needs: `template_ids` and `template_mask`,
            `[rows, template]` int64, padded on the left; `continuation_ids` and
            `continuation_mask`, `[rows, continuations, max_continuation_tokens]` int64. Rows
            without a group have a template of one token and empty continuations.
        """
        items = list(encoded)
        batch = self.pad_sources([item.input_ids for item in items])
        batch["labels"] = self.pad_labels([item.labels for item in items])
        return {**batch, **self.pad_groups(items)}

    def pad_sources(self, sources: Sequence[_Ids], side: str = "right") -> dict[str, Tensor]:
        """Returns `input_ids` and `attention_mask`, `[rows, source]` int64.

        Args:
            sources: token ids.
            side: where the padding goes.
        """
        return {
            "input_ids": stack_rows(sources, self.tokenizer.pad_token_id, side),
            "attention_mask": stack_rows([np.ones_like(ids) for ids in sources], 0, side),
        }

    def pad_labels(self, labels: Sequence[_Ids]) -> Tensor:
        """Returns labels, `[rows, target]` int64, -100 on padding.

        Args:
            labels: token ids, or -100.
        """
        return stack_rows(labels, IGNORED)

    def pad_groups(self, items: Sequence[EncodedChain]) -> dict[str, Tensor]:
        """Returns what the contrastive term needs of a batch; see `pad`.

        Args:
            items: encoded rows.
        """
        pad, width = self.tokenizer.pad_token_id, self.max_continuation_tokens
        count = max((len(item.continuations) for item in items), default=0)
        ids = np.full((len(items), count, width), pad, np.int64)
        mask = np.zeros_like(ids)
        for row, item in enumerate(items):
            for index, text in enumerate(item.continuations):
                ids[row, index, : len(text)] = text
                mask[row, index, : len(text)] = 1
        templates = [item.template if item.has_group else item.template[:1] for item in items]
        return {
            "template_ids": stack_rows(templates, pad, "left"),
            "template_mask": stack_rows([np.ones_like(t) for t in templates], 0, "left"),
            "continuation_ids": torch.from_numpy(ids),
            "continuation_mask": torch.from_numpy(mask),
        }

    def _encode(
        self, source: _Ids, target: _Ids, template: _Ids, texts: Sequence[_Ids]
    ) -> EncodedChain | None:
        if self.end_token:
            target = np.append(target, np.int32(self.tokenizer.eos_token_id))
        self.counts.rows += 1
        together = len(source) + len(target)
        if self.is_encoder_decoder:
            together = max(len(source), len(target))
        if together > self.max_chain_tokens:
            if self.long_chains == "refuse":
                raise ValueError(
                    f"has {together} tokens, and max_chain_tokens is {self.max_chain_tokens}"
                )
            self.counts.long_chains += 1
            return None
        if self.is_encoder_decoder:
            template = np.append(np.int32(self.start), template)
            input_ids, labels = source, target
        else:
            template = np.concatenate([source, template])
            input_ids = np.concatenate([source, target])
            labels = input_ids.copy()
            labels[: len(source)] = IGNORED
        return EncodedChain(input_ids, labels, template, self._find_group(texts, template))

    def _find_group(self, texts: Sequence[_Ids], template: _Ids) -> tuple[_Ids, ...]:
        """The texts that the contrastive term compares; none where it cannot."""
        kept = [ids for ids in texts if len(ids)]
        # Without its clean one a group is none.
        if len(kept) < 2 or not len(texts[0]):
            self.counts.without_negatives += 1
            return ()
        if len(template) > self.max_template_tokens:
            self.counts.long_templates += 1
            return ()
        width = self.max_continuation_tokens
        self.counts.cut_continuations += sum(len(ids) > width for ids in kept)
        return tuple(ids[:width] for ids in kept)

    def _read_sources(self, texts: list[str]) -> list[_Ids]:
        """With what the tokenizer puts around a text, but no end within a chain."""
        found = self._read(texts, special=True)
        end = self.tokenizer.eos_token_id
        if self.is_encoder_decoder or end is None:
            return found
        return [ids[:-1] if len(ids) and ids[-1] == end else ids for ids in found]

    def _read(self, texts: list[str], *, special: bool = False) -> list[_Ids]:
        if not texts:
            return []
        found = self.tokenizer(
            texts, add_special_tokens=special, return_attention_mask=False, verbose=False
        )["input_ids"]
        return [np.array(ids, np.int32) for ids in found]
