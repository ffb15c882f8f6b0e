"""Rows to batches of a model: instruction and target as token ids (GNER, section 2.4)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmcore.ner.pairs import find_pair
from lmcore.training.batches import stack_rows

#: The label of a token that is not learnt.
IGNORED = -100


def write_prompt(instruction: str) -> str:
    """Returns what a decoder-only model reads, as the released checkpoints do.

    Args:
        instruction: of a row.

    Example:
        >>> write_prompt("Label.")
        '[INST] Label. [/INST]'
    """
    return f"[INST] {instruction} [/INST]"


class Encoded(NamedTuple):
    """A row as token ids."""

    input_ids: NDArray[np.int32]
    """`[source]` int32; of a decoder-only model prompt and target together."""
    labels: NDArray[np.int32]
    """`[target]` int32; of a decoder-only model as long as `input_ids`, -100 on the prompt."""

    @property
    def label_count(self) -> int:
        """Tokens that are learnt."""
        return int((self.labels != IGNORED).sum())


@dataclass(slots=True)
class Truncation:
    """What a collator has cut so far."""

    rows: int = 0
    """Rows that were encoded."""
    sources: int = 0
    """Of these, rows whose instruction was cut."""
    targets: int = 0
    """Rows whose target was cut."""
    tokens: int = 0
    """Tokens that were left out."""

    def __str__(self) -> str:
        return (
            f"{self.sources} instructions and {self.targets} targets of {self.rows} rows are "
            f"cut, {self.tokens} tokens in all"
        )


class GNERCollator:
    """Makes batches of rows with an instruction and a target, for any training loop.

    An encoder-decoder model reads the instruction and learns the target. A decoder-only model
    reads `[INST] instruction [/INST] target` and learns what comes behind the prompt; how many
    tokens that is, is counted on the prompt alone, as the authors do.

    What is too long is cut at its end and counted in `truncation`; the first cut is a warning.

    Source: GNER (arXiv 2402.16602), section 2.4 of the specification.

    Args:
        tokenizer: of transformers, with a token for padding; where batches are padded is its
            `padding_side`.
        model: says what kind it is, and gives `decoder_input_ids` where it has a method for that.
        is_encoder_decoder: which kind it is; not needed with a model.
        max_source_tokens: of an instruction.
        max_target_tokens: of a target. A decoder-only model's prompt and target may be as long as
            both together.

    Raises:
        ValueError: neither a model nor its kind is given, the tokenizer has no token for padding
            or, for a decoder-only model, for the end, or a limit is below 2.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> known = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "b": 2}, "<pad>"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, pad_token="<pad>")
        >>> collator = GNERCollator(tokenizer, is_encoder_decoder=True)
        >>> collator([{"instruction": "a", "target": "b"}])["labels"]
        tensor([[2]])
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        model: Any = None,
        is_encoder_decoder: bool | None = None,
        max_source_tokens: int = 640,
        max_target_tokens: int = 640,
    ) -> None:
        if is_encoder_decoder is None:
            if model is None:
                raise ValueError("model or is_encoder_decoder must be given: got neither")
            is_encoder_decoder = bool(model.config.is_encoder_decoder)
        limits = {"max_source_tokens": max_source_tokens, "max_target_tokens": max_target_tokens}
        for name, limit in limits.items():
            if limit < 2:
                raise ValueError(f"{name} must be at least 2: got {limit}")
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no token for padding: set its pad_token")
        if not is_encoder_decoder and tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no token for the end of a text: set its eos_token")
        self.tokenizer = tokenizer
        self.model = model
        self.is_encoder_decoder = is_encoder_decoder
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        self.truncation = Truncation()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Returns the batch of some rows.

        Args:
            rows: with `instruction` and `target`, or as the authors' code writes them.

        Returns:
            `input_ids` and `attention_mask`, `[batch, source]` int64; `labels`,
            `[batch, target]` int64; and `decoder_input_ids` of the same shape where the model
            makes them.

        Raises:
            TypeError: a text is none.
            ValueError: a text is missing, an instruction is empty, or nothing is left of a target.
        """
        before = self.truncation.tokens
        encoded = self.encode(rows)
        if not before and self.truncation.tokens:
            warnings.warn(
                f"{self.truncation}; the limits are {self.max_source_tokens} and "
                f"{self.max_target_tokens} tokens. This is said once",
                RuntimeWarning,
                stacklevel=2,
            )
        return self.pad(encoded)

    def encode(self, rows: Sequence[Mapping[str, Any]], *, first: int = 0) -> list[Encoded]:
        """Returns rows as token ids, cut where they are too long.

        Args:
            rows: as for a call.
            first: number of the first of them, for errors.

        Raises:
            TypeError: a text is none.
            ValueError: a text is missing, an instruction is empty, or nothing is left of a target.
        """
        pairs = []
        for index, row in enumerate(rows, first):
            try:
                pairs.append(find_pair(row))
            except TypeError as error:
                raise TypeError(f"row {index}: {error}") from None
            except ValueError as error:
                raise ValueError(f"row {index}: {error}") from None
        if not pairs:
            return []
        self.truncation.rows += len(pairs)
        instructions = [pair.instruction for pair in pairs]
        targets = [pair.target for pair in pairs]
        if self.is_encoder_decoder:
            sources = self._tokenize(instructions, self.max_source_tokens, "sources")
            labels = self._tokenize(targets, self.max_target_tokens, "targets", text_target=True)
            for index, ids in enumerate(labels, first):
                if not len(ids):
                    raise ValueError(
                        f"row {index}: its target is empty, and the tokenizer adds no end to it"
                    )
            return [Encoded(*both) for both in zip(sources, labels, strict=True)]
        return self._encode_together(instructions, targets, first)

    def encode_prompts(self, rows: Sequence[Mapping[str, Any]]) -> list[NDArray[np.int32]]:
        """Returns what a model reads before it generates; targets are not looked at.

        Args:
            rows: with `instruction`, or as the authors' code writes them.

        Raises:
            TypeError: a text is none.
            ValueError: an instruction is missing or empty.
        """
        instructions = [find_pair({**row, "target": "-"}).instruction for row in rows]
        self.truncation.rows += len(instructions)
        if self.is_encoder_decoder:
            return self._tokenize(instructions, self.max_source_tokens, "sources")
        prompts = self._drop_end(self._tokens([write_prompt(text) for text in instructions]))
        # One token at least can be generated.
        most = self.max_source_tokens + self.max_target_tokens - 1
        for prompt in prompts:
            if len(prompt) > most:
                self.truncation.sources += 1
                self.truncation.tokens += len(prompt) - most
        return [prompt[:most] for prompt in prompts]

    def pad(self, encoded: Iterable[Encoded]) -> dict[str, Tensor]:
        """Returns the batch of encoded rows; see a call.

        Args:
            encoded: what `encode` returned.
        """
        items = list(encoded)
        batch = self.pad_prompts([item.input_ids for item in items], self.tokenizer.padding_side)
        labels = stack_rows([item.labels for item in items], IGNORED, self.tokenizer.padding_side)
        batch["labels"] = labels
        if hasattr(self.model, "prepare_decoder_input_ids_from_labels"):
            make: Any = self.model.prepare_decoder_input_ids_from_labels
            batch["decoder_input_ids"] = make(labels=labels)
        return batch

    def pad_prompts(
        self, prompts: Sequence[NDArray[np.int32]], side: str | None = None
    ) -> dict[str, Tensor]:
        """Returns `input_ids` and `attention_mask` of token ids, `[batch, source]` int64.

        Args:
            prompts: what `encode_prompts` returned.
            side: where the padding goes; `left` for generating with a decoder-only model, and by
                default the side of the tokenizer for others.
        """
        if side is None:
            side = self.tokenizer.padding_side if self.is_encoder_decoder else "left"
        return {
            "input_ids": stack_rows(prompts, self.tokenizer.pad_token_id, side),
            "attention_mask": stack_rows([np.ones_like(ids) for ids in prompts], 0, side),
        }

    def _encode_together(
        self, instructions: list[str], targets: list[str], first: int
    ) -> list[Encoded]:
        """Prompt, target and the end as one sequence."""
        prompts = [write_prompt(text) for text in instructions]
        counts = [len(ids) for ids in self._drop_end(self._tokens(prompts))]
        texts = [f"{one} {two}" if two else one for one, two in zip(prompts, targets, strict=True)]
        end = np.array([self.tokenizer.eos_token_id], np.int32)
        most = self.max_source_tokens + self.max_target_tokens
        encoded = []
        whole = self._drop_end(self._tokens(texts))
        for index, (ids, count) in enumerate(zip(whole, counts, strict=True), first):
            sequence = np.concatenate([ids, end])
            if len(sequence) > most:
                self.truncation.targets += 1
                self.truncation.tokens += len(sequence) - most
                sequence = sequence[:most]
            labels = sequence.copy()
            labels[:count] = IGNORED
            if count >= len(sequence):
                raise ValueError(
                    f"row {index}: nothing is left of its target: its prompt has {count} "
                    f"tokens, and both together may have {most}"
                )
            encoded.append(Encoded(sequence, labels))
        return encoded

    def _drop_end(self, sequences: list[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
        """Without the token of the end that some tokenizers add to any text."""
        end = self.tokenizer.eos_token_id
        return [ids[:-1] if len(ids) and ids[-1] == end else ids for ids in sequences]

    def _tokenize(
        self, texts: list[str], most: int, kind: str, *, text_target: bool = False
    ) -> list[NDArray[np.int32]]:
        """Token ids; what is too long is cut by the tokenizer, which keeps its own tokens."""
        found = self._tokens(texts, text_target=text_target)
        for index in [index for index, ids in enumerate(found) if len(ids) > most]:
            setattr(self.truncation, kind, getattr(self.truncation, kind) + 1)
            self.truncation.tokens += len(found[index]) - most
            (found[index],) = self._tokens([texts[index]], text_target=text_target, most=most)
        return found

    def _tokens(
        self, texts: list[str], *, text_target: bool = False, most: int | None = None
    ) -> list[NDArray[np.int32]]:
        given: dict[str, Any] = {"text_target": texts} if text_target else {"text": texts}
        ids = self.tokenizer(
            **given,
            truncation=most is not None,
            max_length=most,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return [np.array(one, np.int32) for one in ids]
