"""A model that writes chains for prompts, many samples of each (section 5)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from lmcore.detox.chain_files import find_grammar
from lmcore.detox.chains import Chain, ChainError, Problem
from lmcore.detox.text_sampling import PLACES, Draws, TextSampler
from lmcore.ops.philox import Stream
from lmcore.training.config import Between, check_fields
from lmcore.training.models import load_model, load_tokenizer
from lmcore.training.processes import find_device

# Of a continuation, where plain generation is timed (section 5).
_PLAIN_TOKENS = 20


@dataclass(kw_only=True, slots=True, frozen=True)
class ChainSampling:
    """How chains are written.

    Source: section 5 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or there is no such grammar.

    Example:
        >>> ChainSampling(samples=1).top_p
        0.9
    """

    samples: Annotated[int, Between(1, PLACES)] = 25
    """Of each prompt."""
    batch_size: Annotated[int, Between(1, 2**20)] = 64
    """Chains that are written together."""
    top_p: Annotated[float, Between(0, 1, open_low=True)] = 0.9
    """The least share of probability that is sampled from."""
    temperature: Annotated[float, Between(0, 1e30, open_low=True)] = 1.0
    """By which scores are divided."""
    max_new_tokens: Annotated[int, Between(1, 2**20)] = 280
    """Of a chain; a longer one is cut and counted."""
    grammar: str = "paper"
    """`paper` or `student`."""

    def __post_init__(self) -> None:
        check_fields(self)
        find_grammar(self.grammar)


@dataclass(kw_only=True, slots=True, frozen=True)
class WrittenChain:
    """What a model wrote for a prompt."""

    text: str
    """Behind the input."""
    chain: Chain | None = None
    """None where the text is no chain."""
    problem: Problem | None = None
    """What kept it from being one."""
    is_cut: bool = False
    """Whether it ended for want of room."""


class ChainWriter:
    """A model that writes chains.

    What a sample is depends on the model, the prompt, the seed and the sample's number; numbers
    may be rounded otherwise in a batch of another size.

    Args:
        model: of transformers, causal or encoder-decoder; it is put into evaluation mode.
        tokenizer: of the model.
        sampling: the settings.

    Raises:
        ValueError: the tokenizer has no token for padding or for the end of a text.

    Example:
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> writer = ChainWriter(model, tokenizer, ChainSampling(samples=2, max_new_tokens=4))
        >>> [chain.problem for chain in writer.write(["hello"], [0], seed=1)[0]]
        ['no_verdict', 'no_verdict']
    """

    def __init__(self, model: Any, tokenizer: Any, sampling: ChainSampling | None = None) -> None:
        self.sampler = TextSampler(model, tokenizer)
        self.model, self.tokenizer = self.sampler.model, tokenizer
        self.sampling = ChainSampling() if sampling is None else sampling
        self.grammar = find_grammar(self.sampling.grammar)
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self._marks = {number for number, token in enumerate(tokens) if "#" in (token or "")}

    def count_tokens(self, prompt: str) -> int:
        """Returns how many tokens the model reads of a prompt.

        Args:
            prompt: the text.

        Raises:
            ValueError: the model has no room for these and a chain.
        """
        count = len(self.sampler.read(self.grammar.write_input(prompt)))
        self.sampler.check_room(count, self.sampling.max_new_tokens, "a chain")
        return count

    def write(
        self, prompts: Sequence[str], numbers: Sequence[int], seed: int = 0
    ) -> list[list[WrittenChain]]:
        """Returns the chains of each prompt, as many as there shall be samples.

        Args:
            prompts: texts.
            numbers: of each prompt, such as its place in a file, below 2**44: noise belongs to it.
            seed: of the noise, below 2**64.

        Raises:
            ValueError: there is not a number for each prompt.
        """
        if len(numbers) != len(prompts):
            raise ValueError(f"expected {len(prompts)} numbers: got {len(numbers)}")
        asked = [
            (prompt, number * PLACES + sample)
            for prompt, number in zip(prompts, numbers, strict=True)
            for sample in range(self.sampling.samples)
        ]
        found: list[WrittenChain] = []
        for first in range(0, len(asked), self.sampling.batch_size):
            found += self._write(asked[first : first + self.sampling.batch_size], seed)
        count = self.sampling.samples
        return [found[first : first + count] for first in range(0, len(found), count)]

    def time_plain(self, prompts: Sequence[str], seed: int = 0) -> float:
        """Returns the seconds that plain continuations of 20 tokens take, for as many samples.

        Args:
            prompts: texts.
            seed: of the noise.
        """
        asked = [prompt for prompt in prompts for _ in range(self.sampling.samples)]
        started = time.perf_counter()
        for first in range(0, len(asked), self.sampling.batch_size):
            part = asked[first : first + self.sampling.batch_size]
            items = range(first, first + len(part))
            self._sample([self.sampler.read(text) for text in part], items, seed, plain=True)
        return time.perf_counter() - started

    def _write(self, asked: Sequence[tuple[str, int]], seed: int) -> list[WrittenChain]:
        sources = [self.sampler.read(self.grammar.write_input(prompt)) for prompt, _ in asked]
        rows = self._sample(sources, [item for _, item in asked], seed)
        return [
            self._parse(prompt, tokens) for (prompt, _), tokens in zip(asked, rows, strict=True)
        ]

    def _sample(
        self, sources: Sequence[Any], items: Sequence[int], seed: int, *, plain: bool = False
    ) -> list[list[int]]:
        draws = Draws(
            items=items, seed=seed, stream=Stream.CHAIN_SAMPLES, top_p=self.sampling.top_p,
            temperature=self.sampling.temperature,
        )  # fmt: skip
        most = _PLAIN_TOKENS if plain else self.sampling.max_new_tokens
        found = self.sampler.sample(
            sources, draws, [most] * len(sources),
            is_done=None if plain else lambda _, tokens: self._is_whole(tokens),
        )  # fmt: skip
        return [self._cut(tokens) for tokens in found]

    def _cut(self, tokens: list[int]) -> list[int]:
        """Without what stands behind the end of a chain."""
        for index, token in enumerate(tokens):
            if token in self._marks and self._is_whole(tokens[: index + 1]):
                return tokens[: index + 1]
        return tokens

    def _is_whole(self, tokens: list[int]) -> bool:
        return tokens[-1] in self._marks and self.grammar.is_whole(self.sampler.show(tokens))

    def _parse(self, prompt: str, tokens: list[int]) -> WrittenChain:
        text = self.sampler.show(tokens)
        is_ended = bool(tokens) and tokens[-1] == self.tokenizer.eos_token_id
        is_cut = len(tokens) == self.sampling.max_new_tokens and not is_ended
        is_cut = is_cut and not self.grammar.is_whole(text)
        try:
            chain = self.grammar.parse_output(prompt, text)
        except ChainError as error:
            return WrittenChain(text=text, problem=error.problem, is_cut=is_cut)
        return WrittenChain(text=text, chain=chain, is_cut=is_cut)


def load_writer(
    model: str | os.PathLike[str],
    sampling: ChainSampling | None = None,
    *,
    device: str = "auto",
) -> ChainWriter:
    """Returns the writer of a folder.

    Args:
        model: folder of a model, of an adapter, or of a run of `lmcore.detox.train`.
        sampling: the settings.
        device: where to compute.

    Raises:
        ImportError: it is an adapter, and peft is not installed.
        ValueError: it cannot be loaded, or the device does not exist.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer, save_model
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, tokenizer, Path(folder))
        ...     load_writer(folder, device="cpu").count_tokens("hello") > 0
        True
    """
    chosen = find_device(device)
    return ChainWriter(load_model(model).to(chosen), load_tokenizer(model), sampling)


__all__ = ["ChainSampling", "ChainWriter", "WrittenChain", "load_writer"]
