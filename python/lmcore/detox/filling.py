"""Words in place of masks, by a model that fills gaps: BART and its kin, or T5's sentinels.

| filler | reads | writes |
| --- | --- | --- |
| `mask` | its own token for each mask, such as BART's `<mask>` | the whole text |
| `sentinels` | `<extra_id_0>`, `<extra_id_1>`, ... | each sentinel and what belongs in its place |

Which one a folder holds is found by its tokenizer: one that knows `<extra_id_0>` has sentinels.

Source: Detox-Chain (arXiv 2308.08295), section 3.2 of the specification, `utils/rephrase.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from lmcore.detox.masking import MASK, MaskedText
from lmcore.detox.text_sampling import PLACES, Draws, TextSampler
from lmcore.ops.philox import Stream
from lmcore.training.config import Between, check_fields
from lmcore.training.models import load_model, load_tokenizer
from lmcore.training.processes import find_device

FillProblem = Literal["lost_mask", "copied_mask", "empty"]
"""A mask in whose place nothing stands, one that is still there, or a text of nothing."""
_SENTINEL = "<extra_id_{}>"
# Tokens that a text may grow by, for each mask.
_GROWTH = 5


@dataclass(kw_only=True, slots=True, frozen=True)
class FillSampling:
    """How masks are filled.

    Source: section 3.2 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> FillSampling().top_p
        0.9
    """

    batch_size: Annotated[int, Between(1, 2**20)] = 32
    """Texts that are filled together."""
    top_p: Annotated[float, Between(0, 1, open_low=True)] = 0.9
    """The least share of probability that is sampled from."""
    temperature: Annotated[float, Between(0, 1e30, open_low=True)] = 1.0
    """By which scores are divided."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(kw_only=True, slots=True, frozen=True)
class FilledText:
    """What a filler made of a masked text."""

    masked: str
    """As the filler got it."""
    text: str | None
    """Without masks; None where there is a problem."""
    problem: FillProblem | None = None
    is_cut: bool = False
    """Whether it ended for want of room."""


class MaskFiller:
    """A model that puts words in the place of masks.

    What a text becomes depends on the model, the text, the seed, its number and the attempt.

    Args:
        model: an encoder-decoder of transformers; it is put into evaluation mode.
        tokenizer: of the model, with a token for masks or with sentinels.
        sampling: the settings.

    Raises:
        ValueError: the model is no encoder-decoder, or the tokenizer has neither.

    Example:
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> MaskFiller(model, tokenizer)
        Traceback (most recent call last):
        ValueError: a filler must be an encoder-decoder: got a GPT2LMHeadModel
    """

    def __init__(self, model: Any, tokenizer: Any, sampling: FillSampling | None = None) -> None:
        self.sampler = TextSampler(model, tokenizer)
        self.model, self.tokenizer = self.sampler.model, tokenizer
        self.sampling = FillSampling() if sampling is None else sampling
        if not self.sampler.is_encoder_decoder:
            raise ValueError(f"a filler must be an encoder-decoder: got a {type(model).__name__}")
        known = tokenizer.get_vocab()
        self._sentinels: list[int] = []
        while (name := _SENTINEL.format(len(self._sentinels))) in known:
            self._sentinels.append(known[name])
        self.kind = "sentinels" if self._sentinels else "mask"
        if self.kind == "mask" and tokenizer.mask_token_id is None:
            raise ValueError("a filler's tokenizer needs a token for masks, or <extra_id_0>")
        self._places = {token: place for place, token in enumerate(self._sentinels)}
        # BART's decoder is given what its texts begin with.
        first = getattr(model.generation_config, "forced_bos_token_id", None)
        start = model.config.decoder_start_token_id
        self._start = [] if first is None or self._sentinels else [start, first]

    def check(self, masked: MaskedText) -> None:
        """Returns nothing if a text can be filled.

        Args:
            masked: with masks.

        Raises:
            ValueError: it has another number of masks than it says, more than there are
                sentinels, or more tokens than the model has room for.
        """
        self._read(masked)

    def fill(
        self,
        texts: Sequence[MaskedText],
        numbers: Sequence[int],
        *,
        seed: int = 0,
        attempt: int = 0,
    ) -> list[FilledText]:
        """Returns the texts without their masks, in their order.

        Args:
            texts: with a mask at least.
            numbers: of each text, such as its line, below 2**44: noise belongs to it.
            seed: of the noise, below 2**64.
            attempt: which of several it is, below 2**20: each has noise of its own.

        Raises:
            ValueError: there is not a number for each text, or one cannot be filled.
        """
        if len(numbers) != len(texts):
            raise ValueError(f"expected {len(texts)} numbers: got {len(numbers)}")
        sources = [self._read(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: (-len(sources[place]), place))
        filled: dict[int, FilledText] = {}
        for first in range(0, len(order), self.sampling.batch_size):
            part = order[first : first + self.sampling.batch_size]
            draws = Draws(
                items=[numbers[place] * PLACES + attempt for place in part], seed=seed,
                stream=Stream.MASK_FILLS, top_p=self.sampling.top_p,
                temperature=self.sampling.temperature,
            )  # fmt: skip
            found = self._fill(
                [texts[place] for place in part], [sources[place] for place in part], draws
            )
            filled.update(zip(part, found, strict=True))
        return [filled[place] for place in range(len(texts))]

    def _fill(
        self, texts: Sequence[MaskedText], sources: Sequence[Any], draws: Draws
    ) -> list[FilledText]:
        masks = [text.masks for text in texts]
        limits = [self._limit(len(ids), own) for ids, own in zip(sources, masks, strict=True)]

        def is_over(row: int, tokens: list[int]) -> bool:
            return self._is_over(tokens, masks[row])

        found = self.sampler.sample(
            sources, draws, limits, start=self._start,
            is_done=is_over if self._sentinels else None,
        )  # fmt: skip
        return [self._write(*own) for own in zip(texts, found, limits, strict=True)]

    def _limit(self, tokens: int, masks: int) -> int:
        """New tokens at most; what the decoder begins with counts, as transformers counts it."""
        return tokens + _GROWTH * masks - max(1, len(self._start))

    def _read(self, text: MaskedText) -> Any:
        parts = text.masked.split(MASK)
        if len(parts) - 1 != text.masks:
            raise ValueError(f"masks is {text.masks}, and masked holds {len(parts) - 1} {MASK}")
        if not text.masks:
            raise ValueError("has no mask to fill")
        names = [self.tokenizer.mask_token] * text.masks
        if self._sentinels:
            if text.masks > len(self._sentinels):
                raise ValueError(
                    f"has {text.masks} masks, and the filler {len(self._sentinels)} sentinels"
                )
            names = [_SENTINEL.format(place) for place in range(text.masks)]
        written = parts[0] + "".join(f"{a}{b}" for a, b in zip(names, parts[1:], strict=True))
        ids = self.sampler.read(written)
        # What looks like a mask of the filler's may stand in the text itself.
        marks = set(self._sentinels) or {self.tokenizer.mask_token_id}
        count = sum(int(token) in marks for token in ids)
        if count != text.masks:
            raise ValueError(
                f"has {text.masks} masks, and the filler reads {count}: "
                f"{names[0]} stands in the text itself"
            )
        # What the decoder begins with takes positions as well; the last token takes none.
        most = len(ids) + _GROWTH * text.masks - 1
        self.sampler.check_room(len(ids), most, "a text")
        return ids

    def _is_over(self, tokens: list[int], masks: int) -> bool:
        """Whether what belongs in the place of the last mask is whole."""
        return self._places.get(tokens[-1], -1) >= masks

    def _write(self, masked: MaskedText, tokens: list[int], limit: int) -> FilledText:
        end = self.tokenizer.eos_token_id
        is_over = bool(tokens) and (tokens[-1] == end or self._is_over(tokens, masked.masks))
        is_cut = len(tokens) >= limit and not is_over
        make = self._insert if self._sentinels else self._take
        text, problem = make(masked, tokens)
        return FilledText(masked=masked.masked, text=text, problem=problem, is_cut=is_cut)

    def _take(self, masked: MaskedText, tokens: list[int]) -> tuple[str | None, FillProblem | None]:
        """The whole text, as BART writes it."""
        text = self.sampler.show(tokens).strip()
        if self.tokenizer.mask_token_id in tokens or MASK in text:
            return None, "copied_mask"
        if not text:
            return None, "empty"
        if _fold(text) == _fold(masked.masked.replace(MASK, " ")):
            return None, "lost_mask"
        return text, None

    def _insert(
        self, masked: MaskedText, tokens: list[int]
    ) -> tuple[str | None, FillProblem | None]:
        """The text with what the sentinels stand for."""
        parts: list[list[int]] = []
        for token in tokens:
            place = self._places.get(token)
            if place is None:
                if parts:
                    parts[-1].append(token)
            elif place >= masked.masks:
                break
            elif place != len(parts):
                return None, "lost_mask" if place > len(parts) else "copied_mask"
            else:
                parts.append([])
        words = [self.sampler.show(part).strip() for part in parts]
        if any(MASK in word for word in words):
            return None, "copied_mask"
        if len(words) < masked.masks or not all(words):
            return None, "lost_mask"
        first, *rest = masked.masked.split(MASK)
        pairs = zip(words, rest, strict=True)
        return (first + "".join(f"{word}{part}" for word, part in pairs)).strip(), None


def load_filler(
    folder: str | os.PathLike[str], sampling: FillSampling | None = None, *, device: str = "auto"
) -> MaskFiller:
    """Returns the filler of a folder.

    Args:
        folder: of a BART, a T5 or their kin, with its tokenizer.
        sampling: the settings.
        device: as for `lmcore.training.processes.find_device`.

    Raises:
        OSError: a file cannot be read.
        ValueError: it cannot be loaded, or fills no masks.

    Example:
        >>> load_filler("./nowhere")
        Traceback (most recent call last):
        ValueError: ./nowhere: no such folder of a model
    """
    chosen = find_device(device)
    return MaskFiller(load_model(folder).to(chosen), load_tokenizer(folder), sampling)


def _fold(text: str) -> str:
    return "".join(text.split()).casefold()
