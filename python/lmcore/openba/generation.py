"""Texts that a model goes on with: prompts in batches, or token by token.

OpenBA answers a prompt as it continues a text whose end was cut off (S-denoising): the encoder
reads `<S> {prompt} <extra_id_0>`, and the decoder writes `<extra_id_0>` and what belongs there.
The decoder is given this first token, as in the authors' evaluation, and it is no part of the
answer.

Source: OpenBA (arXiv 2309.10706), specification section 8.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcore._extras import optional_imports
from lmcore._manifest import find_model
from lmcore.openba.models import check_fit, load_pair
from lmcore.openba.sampling import OwnTokens, RowSampling

with optional_imports():
    import torch
    from torch import Tensor
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )
    from transformers.generation.streamers import BaseStreamer

_PREFIX, _SENTINEL = "<S>", "<extra_id_0>"
_MOST_NEW = 256
_LEAST_SOURCE = 8
_BYTE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(kw_only=True, slots=True, frozen=True)
class Generation:
    """How texts are generated.

    Raises:
        TypeError: a number is of another type.
        ValueError: a number is out of its range, or beams are asked for with samples.
    """

    batch_size: int = 8
    """Prompts that are answered together."""
    num_beams: int = 1
    """Hypotheses of each prompt."""
    temperature: float = 0.0
    """What scores are divided by before a token is drawn; 0 takes the most likely token."""
    top_k: int = 0
    """Draw among so many of the most likely tokens; 0 is all."""
    top_p: float = 1.0
    """Draw among the most likely tokens that have this probability together."""
    seed: int = 0
    """Of the draws: a token is a function of the seed, its row and its position."""
    max_source_tokens: int | None = None
    """That the encoder reads, the frame included; a longer prompt is cut behind. None for as many
    as the model was trained with."""
    max_new_tokens: int | None = None
    """That are written, the end included. None for as many as the model was trained with, and at
    most 256."""
    plain: bool = False
    """Whether the encoder reads the prompt alone, and the decoder begins with nothing: for
    prompts that are framed by themselves, such as `<X> Ada <extra_id_0> Otto`."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("batch_size", 1, 2**31 - 1), ("num_beams", 1, 2**31 - 1), ("top_k", 0, 2**31 - 1),
            ("seed", 0, 2**64 - 1), ("max_source_tokens", _LEAST_SOURCE, 2**31 - 1),
            ("max_new_tokens", 1, 2**31 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name.startswith("max_"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int: got {type(value).__name__}")
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}: got {value}")
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number: got {type(value).__name__}")
        if not 0 <= self.temperature <= 1000:
            raise ValueError(f"temperature must be from 0 to 1000: got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1: got {self.top_p}")
        if self.temperature and self.num_beams > 1:
            raise ValueError(
                f"num_beams must be 1 where temperature is above 0: got {self.num_beams}"
            )
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise ValueError("temperature must be above 0 where top_k or top_p is given")


@dataclass(kw_only=True, slots=True, frozen=True)
class Generated:
    """What a model wrote."""

    text: str
    truncated: list[str] = field(default_factory=list)
    """What was cut: `source` if the encoder read the beginning of the prompt alone, `output` if
    the text was not at its end."""


class TextGenerator:
    """Answers prompts with a model of OpenBA.

    Args:
        model: an `OpenBAForConditionalGeneration`; it is put into evaluation mode.
        tokenizer: of the model.
        generation: how texts are generated; greedy if None.

    Raises:
        ValueError: the tokenizer is not the model's.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer
        >>> from lmcore.worlds.openba import write_piece_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "spiece.model")
        ...     _ = write_piece_file(file)
        ...     tokenizer = OpenBATokenizer(file)
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(
        ...     vocab_size=tokenizer.padded_size(), hidden_size=8, encoder_layers=1,
        ...     decoder_layers=2, pad_token_id=tokenizer.pad_token_id,
        ...     eos_token_id=tokenizer.eos_token_id))
        >>> generate = TextGenerator(model, tokenizer, Generation(max_new_tokens=4))
        >>> [answer] = generate(["Ada met"])
        >>> answer.truncated
        ['output']
    """

    def __init__(self, model: Any, tokenizer: Any, generation: Generation | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.generation = generation = Generation() if generation is None else generation
        config = model.config
        check_fit(model, tokenizer)
        known = tokenizer.get_vocab()
        absent = [name for name in (_PREFIX, _SENTINEL) if name not in known]
        if absent and not generation.plain:
            raise ValueError(f"the tokenizer must have the token {absent[0]}, or plain be true")
        ends = config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._start = [config.decoder_start_token_id]
        self._hidden = {*self._ends, config.pad_token_id, config.decoder_start_token_id}
        if not generation.plain:
            sentinel = tokenizer.convert_tokens_to_ids(_SENTINEL)
            self._start.append(sentinel)
            self._hidden.add(sentinel)
        self.max_source_tokens = generation.max_source_tokens or max(
            config.max_seq_length, _LEAST_SOURCE
        )
        room = config.decoder_max_seq_length - len(self._start)
        self.max_new_tokens = generation.max_new_tokens or max(1, min(_MOST_NEW, room))

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        rows: Sequence[int] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[Generated]:
        """Returns the answers, in the order of the prompts.

        Args:
            prompts: any number; batches are made of those of similar lengths, the longest first.
            rows: the number of each, which its draws depend on; their places if None.
            progress: called with the number of prompts of each batch that is done.

        Raises:
            ValueError: the numbers of prompts and rows differ.
        """
        numbers = range(len(prompts)) if rows is None else rows
        if len(numbers) != len(prompts):
            raise ValueError(
                f"rows must hold a number for each of the {len(prompts)} prompts: got "
                f"{len(numbers)}"
            )
        sources = [self.encode(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda index: (-len(sources[index][0]), index))
        answers: dict[int, Generated] = {}
        for start in range(0, len(order), self.generation.batch_size):
            indices = order[start : start + self.generation.batch_size]
            batch = [sources[index][0] for index in indices]
            found = self._generate(batch, [numbers[index] for index in indices])
            for index, tokens in zip(indices, found, strict=True):
                answers[index] = self._read(tokens, is_cut=sources[index][1])
            if progress is not None:
                progress(len(indices))
        return [answers[index] for index in range(len(prompts))]

    def stream(self, prompt: str, write: Callable[[str], object], *, row: int = 0) -> Generated:
        """Returns the answer to a prompt, and hands its parts on as they are written.

        A search with beams knows its text at its end alone, and hands it on then.

        Args:
            prompt: the text.
            write: called with each part.
            row: its number, which its draws depend on.
        """
        source, is_cut = self.encode(prompt)
        parts = _Parts(self._decode, self._is_byte, write)
        streamer = parts if self.generation.num_beams == 1 else None
        [tokens] = self._generate([source], [row], streamer)
        answer = self._read(tokens, is_cut=is_cut)
        parts.finish(answer.text)
        return answer

    def encode(self, prompt: str) -> tuple[list[int], bool]:
        """Returns the ids that the encoder reads, and whether the prompt was cut.

        Args:
            prompt: the text.
        """
        text = prompt if self.generation.plain else f"{_PREFIX} {prompt} {_SENTINEL}"
        ids = list(self.tokenizer(text, verbose=False)["input_ids"])
        most = self.max_source_tokens
        if len(ids) <= most:
            return ids, False
        # What ends a source stays: of a framed one the sentinel and the end.
        kept = 1 if self.generation.plain else 2
        return [*ids[: most - kept], *ids[-kept:]], True

    @torch.inference_mode()
    def _generate(
        self, sources: list[list[int]], rows: list[int], streamer: BaseStreamer | None = None
    ) -> list[list[int]]:
        """Tokens of each row behind what the decoder begins with."""
        device = self.model.device
        longest = max(map(len, sources))
        ids = torch.full((len(sources), longest), self.model.config.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = torch.tensor(source)
            mask[row, : len(source)] = 1
        start = torch.tensor([self._start] * len(sources), device=device)
        found = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            decoder_input_ids=start,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=self.generation.num_beams,
            pad_token_id=self.model.config.pad_token_id,
            eos_token_id=sorted(self._ends),
            logits_processor=LogitsProcessorList(self._make_processors(rows)),
            streamer=streamer,
        )
        return [self._cut(tokens) for tokens in found[:, len(self._start) :].tolist()]

    def _make_processors(self, rows: list[int]) -> list[Any]:
        settings = self.generation
        processors: list[Any] = [OwnTokens(len(self.tokenizer))]
        if not settings.temperature:
            return processors
        processors.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k:
            processors.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            processors.append(TopPLogitsWarper(float(settings.top_p)))
        return [*processors, RowSampling(settings.seed, rows, len(self._start))]

    def _cut(self, tokens: list[int]) -> list[int]:
        """The tokens up to the end, with it; none of the padding behind it."""
        for place, token in enumerate(tokens):
            if token in self._ends:
                return tokens[: place + 1]
        return tokens

    def _decode(self, tokens: Sequence[int]) -> str:
        shown = [token for token in tokens if token not in self._hidden]
        text: str = self.tokenizer.decode(shown, skip_special_tokens=False)
        return text

    def _is_byte(self, token: int) -> bool:
        name = self.tokenizer.convert_ids_to_tokens(token)
        return isinstance(name, str) and _BYTE.fullmatch(name) is not None

    def _read(self, tokens: list[int], *, is_cut: bool) -> Generated:
        is_whole = bool(tokens) and tokens[-1] in self._ends
        return Generated(
            text=self._decode(tokens),
            truncated=["source"] * is_cut + ["output"] * (not is_whole),
        )


class _Parts(BaseStreamer):
    """Hands a text on in parts, each once later tokens cannot change it."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        is_byte: Callable[[int], bool],
        write: Callable[[str], object],
    ) -> None:
        self._decode, self._is_byte, self._write = decode, is_byte, write
        self._tokens: list[int] = []
        self._written = ""
        self._is_begun = False

    def put(self, value: Tensor) -> None:
        """Takes what the decoder begins with, and then each token."""
        if not self._is_begun:
            self._is_begun = True
            return
        self._tokens += value.reshape(-1).tolist()
        # Bytes in a row are read together: what they are depends on those that follow.
        if not self._is_byte(self._tokens[-1]):
            self._hand_on(self._decode(self._tokens))

    def end(self) -> None:
        """Is called at the end; the caller has the whole text then."""

    def finish(self, text: str) -> None:
        """Hands on what is left of the whole text, or all of it if a part has changed since."""
        self._hand_on(text)
        if text != self._written:
            self._write(f"\n{text}")

    def _hand_on(self, text: str) -> None:
        if len(text) > len(self._written) and text.startswith(self._written):
            self._write(text[len(self._written) :])
            self._written = text


def load_generator(
    name: str | os.PathLike[str],
    generation: Generation | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
) -> TextGenerator:
    """Returns a generator with the model and the tokenizer of a folder; nothing is fetched.

    Args:
        name: a folder of a model, released or saved here, or of a run, whose best model it is.
        generation: how texts are generated; greedy if None.
        device: as for `lmcore.training.processes.find_device`.
        dtype: of its weights, one of `lmcore.openba.models.DTYPES`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no model of OpenBA with its tokenizer, or the device does not
            exist; the text names the folder.

    Example:
        >>> load_generator("nowhere")
        Traceback (most recent call last):
        ValueError: nowhere: no such folder of a model
    """
    model, tokenizer = load_pair(name, device=device, dtype=dtype)
    try:
        return TextGenerator(model, tokenizer, generation)
    except ValueError as error:
        raise ValueError(f"{find_model(name)}: {error}") from None
