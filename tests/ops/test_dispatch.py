"""`ops._dispatch`: the device decides what computes, and `use` in its place."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
import torch

from lmcore.ops import ranking
from lmcore.ops._autocast import without_autocast
from lmcore.ops._dispatch import choose, use
from lmcore.ops.ranking import rank_targets

CPU = torch.zeros(2)
META = torch.zeros(2, device="meta")


class OnGPU:
    """As a tensor on a GPU is seen by `choose`."""

    device = torch.device("cuda", 1)


def test_the_device_decides() -> None:
    on_gpu: Any = OnGPU()
    assert choose(CPU, CPU) == "core"
    assert choose(on_gpu, on_gpu) == "kernel"
    assert choose(META) == "reference"


@pytest.mark.parametrize(
    ("tensors", "got"),
    [((), "no tensor"), ((CPU, META, CPU), "cpu, meta"), ((META, CPU), "meta, cpu")],
)
def test_tensors_stand_on_one_device(tensors: Any, got: str) -> None:
    text = f"^tensors must be on one device: got {got}$"
    with pytest.raises(ValueError, match=text):
        choose(*tensors)
    with use("reference"), pytest.raises(ValueError, match=text):
        choose(*tensors)


def test_use_holds_until_its_block_ends() -> None:
    with use("reference"):
        assert choose(CPU) == "reference"
        with use("kernel"):
            assert choose(CPU) == "kernel"
        assert choose(CPU) == "reference"
        with pytest.raises(KeyError), use("core"):
            raise KeyError
        assert choose(META) == "reference"
    assert choose(CPU) == "core"


def test_use_holds_in_its_own_thread_and_task() -> None:
    seen: list[str] = []
    with use("reference"):
        thread = threading.Thread(target=lambda: seen.append(choose(CPU)))
        thread.start()
        thread.join()
    assert seen == ["core"]

    async def ask(name: Any) -> str:
        with use(name):
            await asyncio.sleep(0)
            return choose(CPU)

    async def ask_all() -> list[str]:
        return await asyncio.gather(*map(ask, ("kernel", "core", "reference")))

    assert asyncio.run(ask_all()) == ["kernel", "core", "reference"]


@pytest.mark.parametrize("name", ["", "Core", "cuda", None, 1])
def test_names_that_do_not_exist(name: Any) -> None:
    text = f"^name must be one of core, kernel, reference: got {name!r}$"
    with pytest.raises(ValueError, match=text), use(name):
        pass


def test_ranking_asks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks of a tensor come from the core or from torch, as `choose` says."""
    calls: list[str] = []
    in_core, by_torch = ranking._core.rank_targets, ranking._rank_by_torch
    monkeypatch.setattr(
        ranking._core, "rank_targets", lambda *a: calls.append("core") or in_core(*a)
    )
    monkeypatch.setattr(ranking, "_rank_by_torch", lambda *a: calls.append("torch") or by_torch(*a))
    scores = torch.tensor([[0.5, 1.0, 0.5]])
    plain = rank_targets(scores, [0])
    with use("reference"):
        for same in (rank_targets(scores, [0]), rank_targets(scores.numpy(), [0])):
            assert [values.tolist() for values in same] == [values.tolist() for values in plain]
    with use("kernel"):
        rank_targets(scores, np.array([2]))
    assert calls == ["core", "torch", "core", "torch"]


def test_a_compiled_graph_does_not_break_here() -> None:
    """And one that was compiled for another way, or another device, is not taken."""
    numbers = {"core": 1, "kernel": 2, "reference": 3}

    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y + numbers[choose(x, y)]

    compiled = torch.compile(add, fullgraph=True, backend="eager")
    assert compiled(CPU, CPU).tolist() == [1.0, 1.0]
    with use("kernel"):
        assert compiled(CPU, CPU).tolist() == [2.0, 2.0]
        with use("reference"):
            assert compiled(CPU, CPU).tolist() == [3.0, 3.0]
        assert compiled(CPU, CPU).tolist() == [2.0, 2.0]
    assert compiled(CPU, CPU).tolist() == [1.0, 1.0]
    assert compiled(META, META).device.type == "meta"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_autocast_is_left(device: str) -> None:
    """On a device that autocast does not know there is none to leave."""
    x = torch.ones(2, 2, device=device)

    def multiply(x: torch.Tensor) -> torch.Tensor:
        with without_autocast(x.device):
            return x @ x

    for call in (multiply, torch.compile(multiply, fullgraph=True, backend="eager")):
        assert call(x).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert call(x).dtype == torch.float32
            if device == "cpu":
                assert (x @ x).dtype == torch.bfloat16
