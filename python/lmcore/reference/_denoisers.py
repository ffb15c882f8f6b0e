"""What denoisers are, which ones the papers have, and what is asked of arguments with them.

Source: OpenBA (arXiv 2309.10706), table 3; OpenBA-V2 (arXiv 2405.05957), O-UL2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.reference._arguments import as_integers, check_int, id_in_range, one_of, same_length

KINDS = ("spans", "suffix", "fixed_suffix", "mix")
EXCESS_RULES = ("cap", "refuse", "run_on")
# Mean lengths of the spans of a mix, shortest first, with their shares of what is no suffix.
MIX_SPANS = ((3.0, 0.3), (8.0, 0.4), (64.0, 0.3))
# Least and largest share of a mix's noise that is its suffix.
MIX_SUFFIX = (0.2, 0.3)


@dataclass(slots=True, frozen=True, kw_only=True)
class Denoiser:
    """One way to take tokens out of a text; a mixture is a tuple of them.

    Attributes:
        name: for logs.
        kind: `spans`: noise spans all over the text, the last one at its end. `suffix`: the end
            of the text, of a length that is uniform from 1 to round(density * L).
            `fixed_suffix`: its last round(density * L) tokens. `mix`: O-UL2's, spans of mean
            lengths 3, 8 and 64, and one at the end with 20 to 30 % of the noise.
        density: share of the tokens that are noise; above 0 and below 1.
        prefix: first id of the encoder; None for no such id.
        mean_span: of `spans` alone: mean length of a noise span; at least 1.
        weight: how often it is drawn, in proportion to the others' weights.
        max_length: the first so many tokens of a text are taken, the others are left out; at
            least 2. None for all.
        excess: what happens where noise spans outnumber the sentinels. `cap`: there are as many
            spans as sentinels, and they are longer; in a mix there are fewer of the shortest.
            `refuse`: an error. `run_on`: ids below the last sentinel are taken, as OpenBA-V2's
            code does, although they mean something else.
    """

    name: str
    kind: str
    density: float
    prefix: int | None = None
    mean_span: float = 3.0
    weight: float = 1.0
    max_length: int | None = None
    excess: str = "cap"


# For what draws nothing, and is checked all the same.
UNUSED = (Denoiser(name="", kind="suffix", density=0.5),)


@dataclass(slots=True, frozen=True, kw_only=True)
class SpecialIds:
    """Ids that are no text, as OpenBA has them.

    Attributes:
        vocabulary_size: ids are from 0 to below this; other tokens are refused.
        first_sentinel: `<extra_id_0>`; the next ones count down.
        sentinel_count: how many sentinels there are.
        eos: ends the encoder's ids and the labels.
        bos: begins the decoder's ids.
        pad: pads the ids of encoder and decoder.
        label_padding: pads the labels; the loss ignores it. OpenBA's own code has -1.
    """

    vocabulary_size: int = 250_203
    first_sentinel: int = 250_199
    sentinel_count: int = 100
    eos: int = 1
    bos: int = 0
    pad: int = 0
    label_padding: int = -100


def ul2(r: int | None = 250_200, s: int | None = 250_201, x: int | None = 250_202) -> tuple[
    Denoiser, ...
]:  # fmt: skip
    """Returns the seven denoisers of UL2 as OpenBA was trained with, all of one weight.

    Source: OpenBA, table 3.

    Args:
        r: id of `<R>`; None for samples without it.
        s: id of `<S>`.
        x: id of `<X>`.

    Example:
        >>> [denoiser.name for denoiser in ul2()]
        ['R3', 'R8', 'S', 'X3', 'X8', 'X64_15', 'X64_50']
    """
    return (
        Denoiser(name="R3", kind="spans", density=0.15, mean_span=3, prefix=r),
        Denoiser(name="R8", kind="spans", density=0.15, mean_span=8, prefix=r),
        Denoiser(name="S", kind="suffix", density=0.25, prefix=s),
        Denoiser(name="X3", kind="spans", density=0.5, mean_span=3, prefix=x),
        Denoiser(name="X8", kind="spans", density=0.5, mean_span=8, prefix=x),
        Denoiser(name="X64_15", kind="spans", density=0.15, mean_span=64, prefix=x),
        Denoiser(name="X64_50", kind="spans", density=0.5, mean_span=64, prefix=x),
    )


def o_ul2(
    s: int | None = 250_201, x: int | None = 250_202, *, as_shipped: bool = False
) -> tuple[Denoiser, ...]:
    """Returns the two denoisers of O-UL2: half of the text as a suffix, and the mix.

    Source: OpenBA-V2, O-UL2. The paper's shares are about 80 and 20 %.

    Args:
        s: id of `<S>`; None for samples without it.
        x: id of `<X>`.
        as_shipped: as the authors' code is rather than their paper: the mix is never drawn, has
            the prefix `<S>`, and takes ordinary ids for sentinels where those do not suffice.

    Example:
        >>> [(denoiser.name, denoiser.weight) for denoiser in o_ul2()]
        [('S', 0.8), ('Mix', 0.2)]
    """
    return (
        Denoiser(
            name="S", kind="fixed_suffix", density=0.5, prefix=s, weight=1.0 if as_shipped else 0.8
        ),
        Denoiser(
            name="Mix",
            kind="mix",
            density=0.5,
            prefix=s if as_shipped else x,
            weight=0.0 if as_shipped else 0.2,
            max_length=1_700,
            excess="run_on" if as_shipped else "cap",
        ),
    )


class Sample(NamedTuple):
    """One sample without padding."""

    encoder: NDArray[Any]
    """`[S]`: prefix, text with a sentinel for each noise span, end."""
    decoder: NDArray[Any]
    """`[T]`: start, then `labels` without the last."""
    labels: NDArray[Any]
    """`[T]`: each sentinel with the tokens that it stands for, end."""


class Plan(NamedTuple):
    """What is known of samples before a token is looked at: `[B]` int64 each."""

    tasks: NDArray[np.int64]
    """Which of the denoisers, from 0."""
    encoder_lengths: NDArray[np.int64]
    """Ids of the encoder."""
    decoder_lengths: NDArray[np.int64]
    """Ids of the decoder, and as many labels."""


@dataclass(slots=True, frozen=True)
class DenoisedBatch:
    """A batch with padding on the right: B rows of S encoder and T decoder positions.

    Attributes:
        encoder: `[B, S]`, padded with `ids.pad`.
        decoder: `[B, T]`, padded with `ids.pad`.
        labels: `[B, T]`, padded with `ids.label_padding`.
        encoder_lengths: `[B]` int64: how many of S are no padding.
        decoder_lengths: `[B]` int64: how many of T are no padding.
        tasks: `[B]` int64: which of the denoisers, from 0.
    """

    encoder: NDArray[Any]
    decoder: NDArray[Any]
    labels: NDArray[Any]
    encoder_lengths: NDArray[np.int64]
    decoder_lengths: NDArray[np.int64]
    tasks: NDArray[np.int64]

    def masks(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Returns where the encoder `[B, S]` and the decoder `[B, T]` hold no padding.

        Example:
            >>> one, length = np.zeros((1, 3), int), np.array([2])
            >>> DenoisedBatch(one, one, one, length, length, length).masks()[0].tolist()
            [[True, True, False]]
        """
        return (
            np.arange(self.encoder.shape[1]) < self.encoder_lengths[:, None],
            np.arange(self.decoder.shape[1]) < self.decoder_lengths[:, None],
        )


@dataclass(slots=True, frozen=True)
class PackedSamples:
    """Samples one after the other, without padding.

    Attributes:
        encoder: `[encoder_offsets[B]]`.
        decoder: `[decoder_offsets[B]]`.
        labels: `[decoder_offsets[B]]`.
        encoder_offsets: `[B + 1]` int64: row b is `encoder[offsets[b]:offsets[b + 1]]`.
        decoder_offsets: `[B + 1]` int64: the same for `decoder` and `labels`.
        tasks: `[B]` int64: which of the denoisers, from 0.
    """

    encoder: NDArray[Any]
    decoder: NDArray[Any]
    labels: NDArray[Any]
    encoder_offsets: NDArray[np.int64]
    decoder_offsets: NDArray[np.int64]
    tasks: NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class PairBatch:
    """A batch of sources and targets, with padding on the right.

    Attributes:
        encoder: `[B, S]`, padded with `ids.pad`.
        decoder: `[B, T]`, padded with `ids.pad`.
        labels: `[B, T]`, padded with `ids.label_padding`.
        encoder_lengths: `[B]` int64: how many of S are no padding.
        decoder_lengths: `[B]` int64: how many of T are no padding.
        dropped: `[B, 2]` int64: tokens of source and target that found no room.
    """

    encoder: NDArray[Any]
    decoder: NDArray[Any]
    labels: NDArray[Any]
    encoder_lengths: NDArray[np.int64]
    decoder_lengths: NDArray[np.int64]
    dropped: NDArray[np.int64]


# Checks that the op shares.


def check_denoisers(denoisers: Sequence[Denoiser], ids: SpecialIds) -> None:
    """Raises TypeError or ValueError unless denoisers and special ids are in their ranges."""
    size = check_int("ids.vocabulary_size", ids.vocabulary_size, 1, 1 << 31)
    for name in ("first_sentinel", "eos", "bos", "pad"):
        check_int(f"ids.{name}", getattr(ids, name), 0, size)
    check_int("ids.sentinel_count", ids.sentinel_count, 1, most=ids.first_sentinel + 1)
    check_int("ids.label_padding", ids.label_padding, -(1 << 31), 1 << 31)
    if not denoisers:
        raise ValueError("denoisers must not be empty")
    for index, denoiser in enumerate(denoisers):
        name = f"denoisers[{index}]"
        if not isinstance(denoiser, Denoiser):
            raise TypeError(f"{name} must be a Denoiser: got {type(denoiser).__name__}")
        one_of(f"{name}.kind", denoiser.kind, KINDS)
        one_of(f"{name}.excess", denoiser.excess, EXCESS_RULES)
        if not 0 < denoiser.density < 1:
            raise ValueError(f"{name}.density must be above 0 and below 1: got {denoiser.density}")
        if not 1 <= denoiser.mean_span < math.inf:
            raise ValueError(
                f"{name}.mean_span must be finite and at least 1: got {denoiser.mean_span}"
            )
        if not 0 <= denoiser.weight < math.inf:
            raise ValueError(f"{name}.weight must be finite and at least 0: got {denoiser.weight}")
        if denoiser.prefix is not None:
            check_int(f"{name}.prefix", denoiser.prefix, 0, size, optional=True)
        if denoiser.max_length is not None:
            check_int(f"{name}.max_length", denoiser.max_length, 2, 1 << 31, optional=True)
    total = list(accumulate(float(denoiser.weight) for denoiser in denoisers))[-1]
    if not 0 < total < math.inf:
        raise ValueError(f"denoisers must have finite weights above 0 in sum: got {total}")


def check_prefix(prefix: int | None, ids: SpecialIds) -> None:
    """Raises TypeError or ValueError unless a prefix and the special ids are in their ranges."""
    check_denoisers(UNUSED, ids)
    if prefix is not None:
        check_int("prefix", prefix, 0, ids.vocabulary_size, optional=True)


def check_indices(
    indices: ArrayLike, seed: int, tasks: ArrayLike | None, count: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64] | None]:
    """Returns indices `[B]` uint64 and tasks `[B]` int64, or raises an error of type or range."""
    check_int("seed", seed, 0, 1 << 64)
    samples = as_integers("indices", indices, "[B]", dtype="uint64")
    if tasks is None:
        return samples, None
    if np.ndim(tasks) == 1:
        # Before its items are looked at: a view may have any number of them.
        same_length(indices=samples, tasks=np.asarray(tasks))
    given = as_integers("tasks", tasks, "[B]")
    outside = (given < 0) | (given >= count)
    if outside.any():
        first = int(outside.argmax())
        id_in_range("tasks", first, int(given[first]), 0, count)
    return samples, given


def check_lengths(lengths: ArrayLike, samples: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns lengths `[B]` int64 of as many texts as there are samples."""
    array = as_integers("lengths", lengths, "[B]")
    same_length(lengths=array, indices=samples)
    outside = (array < 2) | (array >= 1 << 31)
    if outside.any():
        row = int(outside.argmax())
        raise too_short(row, int(array[row]))
    return array


def check_widths(encoder: int | None, decoder: int | None) -> tuple[int | None, int | None]:
    """Returns both, or raises TypeError or ValueError for one that is out of its range."""
    for name, width in (("encoder_width", encoder), ("decoder_width", decoder)):
        if width is not None:
            check_int(name, width, 1, 1 << 31, optional=True)
    return encoder, decoder


def check_pair_widths(encoder: int, decoder: int) -> None:
    """Raises TypeError or ValueError unless there is room for the special tokens of a pair."""
    check_int("encoder_width", encoder, 3, 1 << 31)
    check_int("decoder_width", decoder, 2, 1 << 31)


def widths(plan: Plan, encoder: int | None, decoder: int | None) -> tuple[int, int]:
    """Returns how wide a batch is: as given, where no row is longer, or as its longest row."""
    found = []
    for name, width, lengths in (
        ("encoder", encoder, plan.encoder_lengths),
        ("decoder", decoder, plan.decoder_lengths),
    ):
        longest = int(lengths.max(initial=0))
        if width is not None and longest > width:
            row = int((lengths > width).argmax())
            raise ValueError(f"{name}[{row}] must be at least {lengths[row]} ids wide: got {width}")
        found.append(longest if width is None else width)
    return found[0], found[1]


def too_short(row: int, length: int) -> ValueError:
    """Returns the error of a text of such a length."""
    return ValueError(f"tokens[{row}] must be at least 2 and below 2**31 ids long: got {length}")


def too_many(row: int, most: int, count: int) -> ValueError:
    """Returns the error of a text with more noise spans than sentinels."""
    return ValueError(
        f"tokens[{row}] must be at most {most} noise spans, one for each sentinel: got {count}"
    )


def check_ids(name: str, row: int, tokens: Sequence[int], ids: SpecialIds) -> None:
    """Raises IndexError for the first token that is outside of the vocabulary."""
    for position, token in enumerate(tokens):
        id_in_range(name, position, token, 0, ids.vocabulary_size, row=row)


def check_rows(tokens: Any, rows: ArrayLike | None, count: int) -> NDArray[np.int64]:
    """Returns which texts samples are of, or raises an error of type, length or range."""
    if rows is None:
        same_length(tokens=tokens, indices=range(count))
        return np.arange(count)
    if np.ndim(rows) == 1:
        same_length(rows=np.asarray(rows), indices=range(count))
    chosen = as_integers("rows", rows, "[B]")
    outside = (chosen < 0) | (chosen >= len(tokens))
    if outside.any():
        first = int(outside.argmax())
        id_in_range("rows", first, int(chosen[first]), 0, len(tokens))
    return chosen


def join_texts(
    name: str, texts: Sequence[ArrayLike]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns texts one after the other, and where each starts and the last one ends."""
    rows = [as_integers(name, text, "[L]") for text in texts]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.concatenate([np.zeros(0, np.int64), *rows]), offsets
