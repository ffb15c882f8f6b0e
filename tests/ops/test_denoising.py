"""`ops.denoising` against the authors' samples, the laws of its draws, and its definition."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lmcore.reference import denoising as reference
from lmcore.reference._denoisers import Denoiser, SpecialIds, o_ul2, ul2

Cases = dict[str, Any]


@pytest.fixture(scope="module")
def cases(golden_dir: Path) -> Cases:
    read: Cases = json.loads((golden_dir / "ul2" / "cases.json").read_text(encoding="utf-8"))
    return read


def ids_of(cases: Cases) -> SpecialIds:
    given = cases["ids"]
    return SpecialIds(
        vocabulary_size=given["X"] + 1,
        first_sentinel=given["sentinels"][1],
        eos=given["eos"],
        bos=given["bos"],
        pad=given["pad"],
    )


def mask_of(case: Cases) -> list[bool]:
    if case.get("prefix_len") is not None:
        return [place >= case["prefix_len"] for place in range(case["length"])]
    return [mark == "1" for mark in case["mask"]]


def lengths_of(mask: list[bool]) -> list[int]:
    return [len(list(run)) for _, run in groupby(mask)]


def is_uniform(counts: NDArray[Any]) -> bool:
    """Chi-square within five standard deviations."""
    expected = counts.sum() / len(counts)
    assert expected > 5
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return bool(abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom) + 5)


# Golden: what the authors' code makes of a mask.


def test_samples_are_the_authors(cases: Cases) -> None:
    ids = ids_of(cases)
    rows = [*cases["ul2"], *({**row, "type": "X"} for row in cases["oul2"])]
    assert len(rows) == 46
    for case in rows:
        given = {"prefix": cases["ids"][case["type"]], "ids": ids}
        mask = mask_of(case)
        for sample in (
            reference.apply_mask(case["tokens"], mask, **given),
            reference.apply_spans(case["tokens"], lengths_of(mask), **given),
        ):
            assert sample.encoder.tolist() == case["enc"]
            assert sample.decoder.tolist() == case["dec"]
            assert sample.labels.tolist() == case["labels"]
        assert reference.reconstruct(case["enc"], case["labels"], **given) == case["tokens"]


def test_numbers_of_spans_are_the_authors(cases: Cases) -> None:
    for case in cases["ul2"]:
        denoiser = ul2()[case["denoiser"] - 1]
        lengths = reference.draw_lengths(denoiser, case["length"], SpecialIds(), 0, 0)
        if denoiser.kind == "spans":
            assert sum(lengths[1::2]) == case["num_noise"] == case["mask"].count("1")
            assert len(lengths) // 2 == case["num_spans"] == len(lengths_of(mask_of(case))) // 2
    for case in cases["oul2"]:
        assert case["num_noise"] == round(case["length"] / 2)
        assert lengths_of(mask_of(case))[-1] >= round(0.2 * case["num_noise"])


def test_lengths_are_the_authors(cases: Cases) -> None:
    """What the file says of S is a range of its maker's; its samples lie in that of the paper."""
    for key, (encoder, decoder) in cases["lengths"].items():
        task, length = (int(part) for part in key.split("|"))
        if task == 3:
            continue
        plan = reference.plan_batch([length] * 3, range(3), seed=7, tasks=[task - 1] * 3)
        assert plan.encoder_lengths.tolist() == [encoder] * 3
        assert plan.decoder_lengths.tolist() == [decoder] * 3
    for case in cases["ul2"]:
        if case["type"] == "S":
            assert 1 <= case["length"] - case["prefix_len"] <= round(case["length"] / 4)
