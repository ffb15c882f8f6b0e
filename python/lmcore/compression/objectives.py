"""What a pruned model learns again: denoisers with a tokenizer's own ids, or the next token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.causal import CAUSAL
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.openba.recipes import HALF
from lmcore.ops.denoising import DenoisedBatch, Denoiser, SpecialIds, o_ul2, ul2

_SENTINEL = re.compile("<extra_id_([0-9]{1,6})>")
_PREFIXES = ("<R>", "<S>", "<X>")
# Of O-UL2: texts of 2048 tokens, of which a mix takes 1700, so that its sentinels find room.
_WHOLE, _MIX = 2048, 1700


@dataclass(kw_only=True, slots=True, frozen=True)
class Sentinels:
    """The ids of a tokenizer that stand for what was taken away."""

    ids: SpecialIds
    """As denoisers count them: downward."""
    rising: bool
    """Whether the tokenizer counts upward."""

    def turn(self, batch: DenoisedBatch) -> DenoisedBatch:
        """Returns a batch whose sentinels are in the tokenizer's order.

        Args:
            batch: as denoisers make it.
        """
        if not self.rising:
            return batch
        parts = {
            name: self._turn(getattr(batch, name)) for name in ("encoder", "decoder", "labels")
        }
        return replace(batch, **parts)

    def _turn(self, rows: NDArray[Any]) -> NDArray[Any]:
        last = self.ids.first_sentinel
        first = last - self.ids.sentinel_count + 1
        return np.where((rows >= first) & (rows <= last), first + last - rows, rows)


def find_sentinels(tokenizer: Any, config: Any) -> Sentinels:
    """Returns the special ids that denoised texts are made with.

    Args:
        tokenizer: of transformers.
        config: of its model, an encoder-decoder.

    Raises:
        ValueError: there are no sentinels in a row, or no padding, end or start.

    Example:
        >>> from types import SimpleNamespace
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["Ada"], 300)
        >>> _ = tokenizer.add_tokens(["<extra_id_1>", "<extra_id_0>"])
        >>> found = find_sentinels(tokenizer, SimpleNamespace(decoder_start_token_id=0))
        >>> tokenizer.convert_ids_to_tokens(found.ids.first_sentinel), found.rising
        ('<extra_id_0>', False)
    """
    found = {}
    for token, number in tokenizer.get_vocab().items():
        match = _SENTINEL.fullmatch(token)
        if match:
            found[int(match[1])] = number
    places = [found[n] for n in range(len(found)) if n in found]
    count = len(places)
    falling = bool(places) and places == list(range(places[0], places[0] - count, -1))
    rising = bool(places) and places == list(range(places[0], places[0] + count))
    if not (falling or rising) or count < len(found):
        raise ValueError(
            "the tokenizer must have the tokens <extra_id_0>, <extra_id_1> and so on with ids in a "
            f"row, which denoising needs: it has {len(found)} of them"
        )
    others = {
        "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
        "bos": config.decoder_start_token_id,
    }  # fmt: skip
    for name, number in others.items():
        if number is None:
            raise ValueError(f"the model and its tokenizer must have an id for {name}: got none")
    ids = SpecialIds(
        vocabulary_size=len(tokenizer),
        first_sentinel=max(places),
        sentinel_count=count,
        **others,
    )
    return Sentinels(ids=ids, rising=rising and not falling)


def find_prefixes(tokenizer: Any) -> tuple[int | None, int | None, int | None]:
    """Returns the ids of `<R>`, `<S>` and `<X>`; None of those that a tokenizer lacks.

    Args:
        tokenizer: of transformers.

    Example:
        >>> from types import SimpleNamespace
        >>> find_prefixes(SimpleNamespace(get_vocab=lambda: {"<S>": 3}))
        (None, 3, None)
    """
    vocabulary = tokenizer.get_vocab()
    r, s, x = (vocabulary.get(name) for name in _PREFIXES)
    return r, s, x


def choose_objective(config: RecoveryConfig, kind: str) -> str:
    """Returns the objective of a kind of model: `ul2`, `d_ul2`, `o_ul2` or `causal`.

    Args:
        config: the settings.
        kind: `encoder-decoder`, `decoder` or `encoder`.

    Raises:
        ValueError: the model cannot be trained so.

    Example:
        >>> choose_objective(RecoveryConfig(), "decoder")
        'causal'
    """
    if kind == "encoder":
        raise ValueError("an encoder alone cannot be recovered: it has no objective here")
    usual = CAUSAL if kind == "decoder" else "d_ul2"
    chosen = usual if config.objective == "auto" else config.objective
    if (chosen == CAUSAL) != (kind == "decoder"):
        wanted = "causal" if kind == "decoder" else "ul2, d_ul2 or o_ul2"
        article = "a" if kind == "decoder" else "an"
        raise ValueError(f"objective must be {wanted} for {article} {kind}: got {chosen}")
    return chosen


def choose_denoisers(
    config: RecoveryConfig, objective: str, prefixes: tuple[int | None, int | None, int | None]
) -> tuple[Denoiser, ...]:
    """Returns the denoisers of an objective, with the weights of the first steps.

    Args:
        config: the settings.
        objective: `ul2`, `d_ul2` or `o_ul2`.
        prefixes: ids of `<R>`, `<S>` and `<X>`.

    Example:
        >>> [one.name for one in choose_denoisers(RecoveryConfig(), "o_ul2", (None, None, None))]
        ['S_50', 'Mix']
    """
    r, s, x = prefixes if config.prefixes else (None, None, None)
    if objective == "o_ul2":
        half, mix = o_ul2(s, x, as_shipped=config.as_shipped)
        length = max(2, round(config.text_tokens * _MIX / _WHOLE))
        return replace(half, name=HALF), replace(mix, max_length=length)
    found = ul2(r, s, x)
    if objective == "d_ul2":
        return set_weights(found, config.initial_proportions)
    return found


def set_weights(denoisers: Sequence[Denoiser], weights: Sequence[float]) -> tuple[Denoiser, ...]:
    """Returns denoisers that are drawn with other weights.

    Args:
        denoisers: K of them.
        weights: K numbers.

    Example:
        >>> [one.weight for one in set_weights(ul2()[:2], [0.25, 0.75])]
        [0.25, 0.75]
    """
    pairs = zip(denoisers, weights, strict=True)
    return tuple(replace(one, weight=float(weight)) for one, weight in pairs)
