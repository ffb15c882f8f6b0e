"""Batches of UL2 against OpenBA's builder and the numpy recipe of T5's span corruption."""

from __future__ import annotations

from itertools import count, groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

import authors_denoising as authors
from lmcore.ops.denoising import (
    DenoisedBatch,
    PackedSamples,
    SpecialIds,
    apply_spans,
    denoise_batch,
    denoise_packed,
    o_ul2,
    ul2,
)
from lmcore.ops.philox import random_below
from timing import Row, compare, print_conditions, save

BATCH, LENGTH, LONG = 64, 568, 2_048
CASE = f"{BATCH} texts of {LENGTH} tokens, all denoisers"


def make_texts(length: int) -> NDArray[np.int32]:
    """Returns `[BATCH, length]` tokens."""
    return random_below(1, 1, range(BATCH), length, 250_000).astype(np.int32) + 3


def lengths_of(noise: NDArray[Any]) -> list[int]:
    """Returns how long kept and noise spans are, in turn."""
    return [len(list(run)) for _, run in groupby(noise.tolist())]


def check(texts: NDArray[np.int32]) -> None:
    """Asserts that all make the same ids of the same spans, and that ours have their lengths."""
    ids = SpecialIds(label_padding=-1)
    widths = {"encoder_width": authors.ENCODER, "decoder_width": authors.DECODER}
    for index, text in enumerate(texts[:70]):
        task = index % 7 + 1
        theirs = authors.build_sample(text, index, 0, masks=True, task=task)
        prefix = authors.TASKS[task][0]
        mine = apply_spans(text, lengths_of(theirs["noise"]), prefix=prefix, ids=ids)
        for name, row in mine._asdict().items():
            assert theirs[name][: len(row)].tolist() == row.tolist(), (task, name)
            assert (theirs[name][len(row) :] == (-1 if name == "labels" else 0)).all()
        batch = denoise_batch(text[None], [index], seed=0, tasks=[task - 1], ids=ids, **widths)
        if task != 3:
            assert batch.encoder_lengths[0] == len(mine.encoder)
            assert batch.decoder_lengths[0] == len(mine.labels)
        reads, writes = batch.masks()
        if task != 3:
            assert np.array_equal(reads[0], theirs["encoder_mask"][0] == 1)
            order = np.tril(np.ones((authors.DECODER, authors.DECODER), bool))
            mine_mask = writes[0][:, None] & writes[0][None] & order
            assert np.array_equal(mine_mask, theirs["decoder_mask"] == 1)
            assert np.array_equal(writes[0][:, None] & reads[0][None], theirs["cross_mask"] == 1)
    noise, *theirs = authors.collate(texts, np.random.default_rng(0))
    for row, text in enumerate(texts):
        mine = apply_spans(text, lengths_of(noise[row]))
        for part, expected in zip(mine, theirs, strict=True):
            assert part.tolist() == expected[row].tolist()


def run_short() -> list[Row]:
    """Times batches of 568 tokens."""
    texts = make_texts(LENGTH)
    check(texts)
    steps = count()
    widths = {"encoder_width": authors.ENCODER, "decoder_width": authors.DECODER}
    room = denoise_batch(texts, range(BATCH), seed=0, **widths)
    offsets = np.zeros(0, np.int64)
    held = PackedSamples(
        *(np.zeros(BATCH * authors.ENCODER, np.int64) for _ in range(3)), offsets, offsets, offsets
    )

    def indices() -> NDArray[np.int64]:
        return np.arange(BATCH) + BATCH * next(steps)

    def write(**settings: Any) -> DenoisedBatch:
        return denoise_batch(texts, indices(), seed=0, out=room, threads=1, **settings)

    ours = {
        "lmcore, padded, same arrays": write,
        "lmcore, padded, same arrays, masks of rows": lambda: write().masks(),
        "lmcore, padded, new arrays": lambda: denoise_batch(
            texts, indices(), seed=0, threads=1, **widths
        ),
        "lmcore, packed": lambda: denoise_packed(texts, indices(), seed=0, out=held, threads=1),
    }
    rows = []
    for masks, goal in ((True, "1000"), (False, "80")):
        name = "OpenBA's builder" if masks else "OpenBA's builder, no masks"
        rows += compare(
            "denoising",
            CASE,
            (name, lambda masks=masks: authors.build_batch(texts, next(steps), 0, masks=masks)),
            *((ours_name, call, goal) for ours_name, call in ours.items()),
            rounds=7,
            repeats=15,
        )
    generator = np.random.default_rng(0)
    plain = ul2(None, None, None)
    rows += compare(
        "denoising",
        f"{BATCH} texts of {LENGTH} tokens, span corruption",
        ("T5's recipe in numpy", lambda: authors.collate(texts, generator)),
        (
            "lmcore, padded, same arrays",
            lambda: write(denoisers=plain, tasks=np.zeros(BATCH, np.int64)),
            "25",
        ),
        rounds=15,
        repeats=15,
    )
    return rows


def run_long() -> list[Row]:
    """Times O-UL2 on 2,048 tokens against UL2 on 568: both per batch, and what a token costs."""
    short, long = make_texts(LENGTH), make_texts(LONG)
    steps = count()
    room = denoise_batch(
        short, range(BATCH), seed=0, encoder_width=authors.ENCODER, decoder_width=authors.DECODER
    )
    mixture = o_ul2()
    wide = denoise_batch(
        long, range(BATCH), seed=0, denoisers=mixture, encoder_width=1_040, decoder_width=1_040
    )

    def indices() -> NDArray[np.int64]:
        return np.arange(BATCH) + BATCH * next(steps)

    rows = compare(
        "denoising",
        f"{BATCH} texts: UL2 of {LENGTH} tokens against O-UL2 of {LONG}",
        (
            "UL2",
            lambda: denoise_batch(short, indices(), seed=0, out=room, threads=1),
        ),
        (
            "O-UL2",
            lambda: denoise_batch(long, indices(), seed=0, denoisers=mixture, out=wide, threads=1),
            f"{LENGTH / LONG / 2:.3f}",
        ),
        rounds=31,
        repeats=5,
    )
    per_token = [1e6 / BATCH * time / length for time, length in (
        (rows[0].opponent_median, LENGTH), (rows[0].ours_median, LONG)
    )]  # fmt: skip
    print(f"a token: UL2 {per_token[0]:.3g} ns, O-UL2 {per_token[1]:.3g} ns")
    return rows


def main() -> None:
    """Runs all cases."""
    print_conditions()
    save("denoising", [*run_short(), *run_long()])


if __name__ == "__main__":
    main()
