"""The contrastive term: the authors' numbers, its bounds, and what its gradient reaches."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmcore.detox.contrastive import contrastive_loss, pool_states


def test_the_authors_numbers(golden_dir: Path) -> None:
    cases = json.loads((golden_dir / "detox_chain" / "contrastive.json").read_text())
    assert [len(case["negatives"]) for case in cases] == [1, 2, 3]
    for case in cases:
        candidates = torch.tensor([*case["positive"], *case["negatives"]])[None]
        loss = contrastive_loss(torch.tensor(case["anchor"]), candidates)
        assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    # Of one batch, with room for the longest.
    rooms = torch.full((3, 4, 16), torch.nan)
    present = torch.zeros(3, 4, dtype=torch.bool)
    for row, case in enumerate(cases):
        texts = torch.tensor([*case["positive"], *case["negatives"]])
        rooms[row, : len(texts)] = texts
        present[row, : len(texts)] = True
    anchors = torch.cat([torch.tensor(case["anchor"]) for case in cases])
    losses = contrastive_loss(anchors, rooms, present)
    assert losses.tolist() == pytest.approx([case["loss"] for case in cases], abs=1e-6)


@given(st.integers(1, 5), st.integers(0, 2**31), st.floats(0.25, 4.0))
def test_bounds(negatives: int, seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.randn(3, 6, generator=generator)
    candidates = torch.randn(3, 1 + negatives, 6, generator=generator)
    losses = contrastive_loss(anchors, candidates, temperature=temperature)
    width = 2 / temperature
    assert bool((losses >= math.log1p(negatives * math.exp(-width)) - 1e-5).all())
    assert bool((losses <= math.log1p(negatives * math.exp(width)) + 1e-5).all())
    # Lengths of vectors do not matter.
    scaled = contrastive_loss(anchors * 7, candidates * 0.1, temperature=temperature)
    assert torch.allclose(losses, scaled, atol=1e-5)


@pytest.mark.parametrize("negatives", [1, 2, 3, 7])
def test_equal_similarities(negatives: int) -> None:
    same = torch.randn(1, 1, 8).expand(2, 1 + negatives, 8)
    losses = contrastive_loss(torch.randn(2, 8), same)
    assert losses.tolist() == pytest.approx([math.log(negatives + 1)] * 2, abs=1e-6)


def test_the_extremes() -> None:
    one = torch.ones(1, 4)
    best = contrastive_loss(one, torch.stack([one, -one], 1))
    worst = contrastive_loss(one, torch.stack([-one, one], 1))
    assert (best.item(), worst.item()) == pytest.approx(
        (math.log1p(math.exp(-2)), math.log1p(math.exp(2)))
    )


def test_the_gradient_reaches_all_but_absent_texts() -> None:
    torch.manual_seed(0)
    anchors = torch.randn(2, 4, requires_grad=True)
    candidates = torch.randn(2, 4, 4, requires_grad=True)
    present = torch.tensor([[True, True, True, True], [True, False, True, False]])
    contrastive_loss(anchors, candidates, present).sum().backward()  # type: ignore[no-untyped-call]
    assert anchors.grad is not None
    assert candidates.grad is not None
    assert bool((anchors.grad.abs().sum(1) > 1e-4).all())
    assert ((candidates.grad.abs().sum(2) > 1e-4) == present).all()
    # A step along it draws the clean one nearer, and pushes a toxic one away.
    moved = (candidates - 0.1 * candidates.grad).detach()
    near = torch.cosine_similarity(anchors[0], moved[0, 0], dim=0)
    assert near > torch.cosine_similarity(anchors[0], candidates[0, 0], dim=0)
    far = torch.cosine_similarity(anchors[0], moved[0, 1], dim=0)
    assert far < torch.cosine_similarity(anchors[0], candidates[0, 1], dim=0)


def test_pooling() -> None:
    states = torch.tensor([[[1.0, 0], [3, 2], [8, 7]], [[2, 2], [torch.nan, 0], [0, 0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert pool_states(states, mask).tolist() == [[2, 1], [2, 2]]
    assert pool_states(states, mask, "released")[0].tolist() == [4, 3]
    assert pool_states(states, torch.zeros(2, 3))[0].tolist() == [0, 0]
    half = pool_states(torch.ones(1, 2, 2, dtype=torch.bfloat16), mask[:1, :2])
    assert half.dtype == torch.float32


def test_what_cannot_be_contrasted() -> None:
    one, pair = torch.ones(1, 4), torch.ones(1, 2, 4)
    with pytest.raises(ValueError, match=r"anchors must be .*got \[2, 4\] and \[1, 2, 4\]"):
        contrastive_loss(torch.ones(2, 4), pair)
    with pytest.raises(ValueError, match="temperature must be above 0: got 0"):
        contrastive_loss(one, pair, temperature=0)
    for present in ([[True, False]], [[False, True]]):
        with pytest.raises(ValueError, match="its clean continuation and at least one toxic"):
            contrastive_loss(one, pair, torch.tensor(present))
    with pytest.raises(ValueError, match=r"present must be \[1, 2\] bool"):
        contrastive_loss(one, pair, torch.ones(1, 2))
    with pytest.raises(ValueError, match="pooling must be released or corrected: got 'max'"):
        pool_states(pair, torch.ones(1, 2), "max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"states must be \[texts, length, hidden\]"):
        pool_states(pair, torch.ones(1, 3))
