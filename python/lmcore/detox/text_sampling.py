"""Texts that a language model writes behind others: read, padded, drawn and cut by tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore._extras import optional_imports
from lmcore.detox.token_sampling import NucleusChoice, draw_noise, sample_tokens
from lmcore.training.batches import stack_rows

with optional_imports():
    import numpy as np
    import torch

# Samples or attempts of a row have numbers below it in the noise.
PLACES = 1 << 20


@dataclass(kw_only=True, slots=True, frozen=True)
class Draws:
    """How tokens are drawn, and whose noise it is."""

    items: Sequence[int]
    """Of each row, a number that its noise belongs to."""
    seed: int
    stream: int
    top_p: float
    temperature: float


class TextSampler:
    """A model of transformers that writes tokens behind others, causal or encoder-decoder.

    A row's tokens depend on what it is given and on its own noise; neither its neighbours nor the
    size of a batch count, but for how numbers are rounded.

    Args:
        model: of transformers; it is put into evaluation mode.
        tokenizer: of the model.

    Raises:
        ValueError: the tokenizer has no token for padding or for the end of a text.

    Example:
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> sampler = TextSampler(model, tokenizer)
        >>> draws = Draws(items=[0], seed=1, stream=228, top_p=0.9, temperature=1.0)
        >>> len(sampler.sample([sampler.read("hello")], draws, [3])[0]) <= 3
        True
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer needs a token for padding and one for the end")
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)

    def read(self, text: str) -> Any:
        """Returns the ids of a text, with what the tokenizer puts around it.

        The end of a text is left out where the model goes on behind it.

        Args:
            text: any.
        """
        ids = self.tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
        if not self.is_encoder_decoder and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return np.array(ids, np.int32)

    def check_room(self, count: int, new: int, what: str) -> None:
        """Returns nothing if the model has room.

        Args:
            count: tokens that it is given.
            new: tokens that it writes at most.
            what: it writes, for the error.

        Raises:
            ValueError: it does not, or is given nothing to go on from.
        """
        if count == 0:
            raise ValueError("has no tokens for the model to go on from")
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is None:
            return
        if self.is_encoder_decoder:
            if count > room or new > room:
                name = f"has {count} tokens and {what} up to {new}"
                raise ValueError(f"{name}, and the model has {room} positions for each")
        elif count + new > room:
            raise ValueError(
                f"has {count} tokens and {what} up to {new}, and the model has {room} positions"
            )

    def sample(
        self,
        sources: Sequence[Any],
        draws: Draws,
        limits: Sequence[int],
        *,
        is_done: Callable[[int, list[int]], bool] | None = None,
        start: Sequence[int] = (),
    ) -> list[list[int]]:
        """Returns the tokens that the model writes for each row, with the end where it came to it.

        Args:
            sources: ids of each row.
            draws: one item for each row.
            limits: tokens at most, of each row.
            is_done: of a row's number and its tokens, whether it is at its end.
            start: tokens that a decoder is given first.
        """
        if not len(sources):
            return []
        side = "right" if self.is_encoder_decoder else "left"
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        device, longest = self.model.device, max(limits)
        inputs = {
            "input_ids": stack_rows(sources, pad, side),
            "attention_mask": stack_rows([np.ones_like(ids) for ids in sources], 0, side),
        }
        if start:
            inputs["decoder_input_ids"] = torch.tensor([list(start)] * len(sources))

        def is_over(row: int, tokens: list[int]) -> bool:
            return len(tokens) >= limits[row] or (is_done is not None and is_done(row, tokens))

        choose = NucleusChoice(
            draw_noise(draws.seed, draws.stream, draws.items, longest),
            top_p=draws.top_p, temperature=draws.temperature,
        )  # fmt: skip
        found = sample_tokens(
            self.model, {name: value.to(device) for name, value in inputs.items()}, choose,
            pad=pad, end=end, max_new_tokens=longest,
            is_done=is_over if is_done is not None or min(limits) < longest else None,
        )  # fmt: skip
        return [
            cut_tokens(tokens[:limit], end)
            for tokens, limit in zip(found.tolist(), limits, strict=True)
        ]

    def show(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without those that stand for no text.

        Args:
            tokens: ids.
        """
        text: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def cut_tokens(tokens: list[int], end: int) -> list[int]:
    """Returns tokens without what stands behind their end.

    Args:
        tokens: ids.
        end: id of the end of a text.

    Example:
        >>> cut_tokens([5, 1, 0, 0], 1), cut_tokens([5, 6], 1)
        ([5, 1], [5, 6])
    """
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens
