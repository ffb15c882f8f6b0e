"""Texts that a language model goes on with: several samples of each, cut by tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from lmcore.detox.text_sampling import PLACES, Draws, TextSampler
from lmcore.ops.philox import Stream
from lmcore.training.config import Between, check_fields
from lmcore.training.models import load_model, load_tokenizer
from lmcore.training.processes import find_device


@dataclass(kw_only=True, slots=True, frozen=True)
class ContinuationSampling:
    """How texts are continued.

    Source: section 3.3 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> ContinuationSampling().max_new_tokens
        20
    """

    samples: Annotated[int, Between(1, PLACES)] = 25
    """N, of each text."""
    max_new_tokens: Annotated[int, Between(1, 2**20)] = 20
    """Of a continuation."""
    batch_size: Annotated[int, Between(1, 2**20)] = 64
    """Continuations that are written together."""
    top_p: Annotated[float, Between(0, 1, open_low=True)] = 0.9
    """The least share of probability that is sampled from."""
    temperature: Annotated[float, Between(0, 1e30, open_low=True)] = 1.0
    """By which scores are divided."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True, slots=True, frozen=True)
class ContinuedText:
    """A text and what may follow it."""

    text: str
    samples: tuple[str, ...]
    """Continuations, without the text."""


class TextContinuer:
    """A language model that goes on with texts.

    What a sample is depends on the model, the text, the seed, its number and that of the sample.
    The text is no part of it: the model's tokens are cut behind those that it was given, before
    they are turned into characters.

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
        >>> tokenizer = make_tokenizer(["hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> continuer = TextContinuer(model, tokenizer, ContinuationSampling(samples=2))
        >>> len(continuer.go_on(["hello"], [1])[0].samples)
        2
    """

    def __init__(
        self, model: Any, tokenizer: Any, sampling: ContinuationSampling | None = None
    ) -> None:
        self.sampler = TextSampler(model, tokenizer)
        self.model, self.tokenizer = self.sampler.model, tokenizer
        self.sampling = ContinuationSampling() if sampling is None else sampling

    def check(self, text: str) -> None:
        """Returns nothing if a text can be continued.

        Args:
            text: any.

        Raises:
            ValueError: it has no tokens, or more than the model has room for.
        """
        count = len(self.sampler.read(text))
        self.sampler.check_room(count, self.sampling.max_new_tokens, "a continuation")

    def go_on(
        self, texts: Sequence[str], numbers: Sequence[int], *, seed: int = 0
    ) -> list[ContinuedText]:
        """Returns the continuations of each text.

        Args:
            texts: any that `check` takes.
            numbers: of each text, such as its line, below 2**44: noise belongs to it.
            seed: of the noise, below 2**64.

        Raises:
            ValueError: there is not a number for each text.
        """
        if len(numbers) != len(texts):
            raise ValueError(f"expected {len(texts)} numbers: got {len(numbers)}")
        count, size = self.sampling.samples, self.sampling.batch_size
        sources = [self.sampler.read(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: (-len(sources[place]), place))
        asked = [(place, sample) for place in order for sample in range(count)]
        found: dict[tuple[int, int], str] = {}
        for first in range(0, len(asked), size):
            part = asked[first : first + size]
            draws = Draws(
                items=[numbers[place] * PLACES + sample for place, sample in part], seed=seed,
                stream=Stream.CONTINUATIONS, top_p=self.sampling.top_p,
                temperature=self.sampling.temperature,
            )  # fmt: skip
            given = [sources[place] for place, _ in part]
            limits = [self.sampling.max_new_tokens] * len(part)
            rows = self.sampler.sample(given, draws, limits)
            found |= {key: self.sampler.show(row) for key, row in zip(part, rows, strict=True)}
        return [
            ContinuedText(text=text, samples=tuple(found[place, k] for k in range(count)))
            for place, text in enumerate(texts)
        ]


def load_continuer(
    folder: str | os.PathLike[str],
    sampling: ContinuationSampling | None = None,
    *,
    device: str = "auto",
) -> TextContinuer:
    """Returns the continuer of a folder.

    Args:
        folder: of a causal or an encoder-decoder language model, of an adapter, or of a run.
        sampling: the settings.
        device: as for `lmcore.training.processes.find_device`.

    Raises:
        ImportError: it is an adapter, and peft is not installed.
        OSError: a file cannot be read.
        ValueError: it cannot be loaded, or the device does not exist.

    Example:
        >>> load_continuer("./nowhere")
        Traceback (most recent call last):
        ValueError: ./nowhere: no such folder of a model
    """
    chosen = find_device(device)
    return TextContinuer(load_model(folder).to(chosen), load_tokenizer(folder), sampling)
