"""The seeds of torch's generators."""

import pytest
import torch

from lmcore.training.seeding import seed_torch


def test_seeds_differ_by_every_argument() -> None:
    cases = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (2**63, 0, 0)]
    draws = []
    for case in cases:
        seed_torch(*case)
        draws.append(tuple(torch.rand(3).tolist()))
        seed_torch(*case)
        assert tuple(torch.rand(3).tolist()) == draws[-1]
    assert len(set(draws)) == len(cases)


@pytest.mark.parametrize("case", [(0, -1, 0), (0, 2**40, 0), (0, 0, 2**20), (-1, 0, 0)])
def test_ranges(case: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 0 and below"):
        seed_torch(*case)


def test_the_generator_is_that_of_torch() -> None:
    value = seed_torch(5, 7)
    found = torch.rand(3)
    torch.manual_seed(value)
    assert torch.equal(torch.rand(3), found)
    assert torch.initial_seed() == value
