"""What times kernels on a GPU, on a CPU and on a GPU that is not there; and what compiles them."""

import importlib
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benches"))
        yield importlib.import_module("gpu")
        for name in ("gpu", "timing"):
            sys.modules.pop(name, None)


def test_everybody_begins_and_follows_everybody(gpu: Any) -> None:
    orders = [gpu.rotate(3, turn) for turn in range(6)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert [order[0] for order in orders[:3]] == [0, 1, 2]
    followed = {pair for order in orders for pair in itertools.pairwise(order)}
    assert followed == {(a, b) for a in range(3) for b in range(3) if a != b}


def test_rows_on_a_cpu(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.ones(300, 300)
    called: list[str] = []
    slow = gpu.Contender(name="slow", call=lambda: [called.append("slow"), *(x @ x for _ in "123")])
    quick = gpu.Contender(name="quick", call=lambda: called.append("quick"), goal=">= 2")
    rows = gpu.compare_on(CPU, "concept", "case", [slow, slow], [quick], rounds=3)
    assert len(rows) == 2
    for row in rows:
        assert (row.opponent, row.ours, row.goal, row.rounds) == ("slow", "quick", ">= 2", 3)
        assert row.opponent_median > row.ours_median > 0
        assert row.ratio_median > 2
        assert row.ours_peak is not None
    # To measure memory twice, to warm up, and three rounds.
    assert called.count("quick") == 6
    assert called.count("slow") == 12
    assert "asked: >= 2" in capsys.readouterr().out


class Queue:
    """A GPU whose work takes as long as is said, and a host that takes its time to launch it."""

    def __init__(self, launch: float) -> None:
        self.host, self.device, self.launch = 0.0, 0.0, launch
        self.log: list[str] = []

    def work(self, name: str, milliseconds: float) -> None:
        self.host += self.launch
        self.device = max(self.device, self.host) + milliseconds
        self.log.append(name)

    def synchronize(self, *_: Any) -> None:
        self.host = max(self.host, self.device)

    def make_event(self, **_: Any) -> Any:
        queue = self

        class Event:
            at = 0.0

            def record(self) -> None:
                self.at = max(queue.device, queue.host)

            def query(self) -> bool:
                return self.at <= queue.host

            def elapsed_time(self, other: Any) -> float:
                return float(other.at - self.at)

        return Event()


@pytest.fixture
def device(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue(launch=1.0)
    flushed = SimpleNamespace(zero_=lambda: queue.work("flush", 0.5))
    cuda = SimpleNamespace(
        get_device_properties=lambda _: SimpleNamespace(L2_cache_size=50 << 20),
        Event=queue.make_event, synchronize=queue.synchronize,
        _sleep=lambda cycles: queue.work("backlog", cycles / 1e6),
    )  # fmt: skip
    monkeypatch.setattr(gpu.torch, "cuda", cuda)
    monkeypatch.setattr(gpu.torch, "empty", lambda *_, **__: flushed)
    monkeypatch.setattr(gpu, "_WARM_SECONDS", 0)
    return queue


def test_the_host_does_not_count_on_a_gpu(gpu: Any, device: Queue) -> None:
    """A launch takes the host 1 ms, and what it launches less than that on the device."""
    contenders = [
        gpu.Contender(name="a", call=lambda: device.work("a", 0.25)),
        gpu.Contender(name="b", call=lambda: [device.work("b", 0.125) for _ in range(2)]),
    ]
    a, b = gpu.time_rounds(GPU, contenders, 4)
    assert a == b == [0.25] * 4
    rounds = " ".join(device.log).split("backlog ")
    # The backlog of two sleeps is too short, and the host is not ahead: these rounds are repeated.
    assert len(rounds) > 5
    ones, others = "flush a flush b b", "flush b b flush a"
    assert [text.strip() for text in rounds[-4:]] == [ones, others, others, ones]


def test_who_waits_for_the_device_is_told(
    gpu: Any, device: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = gpu.Contender(name="waiting", call=device.synchronize)
    times = gpu.time_rounds(GPU, [waiting], 3)
    assert len(times[0]) == 3
    assert capsys.readouterr().out.count("waits for the device") == 1


def test_the_lack_of_a_gpu_is_an_exit_of_2(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.py"])
    assert gpu.find_device() == CPU
    for call in (gpu.find_device, gpu.main):
        monkeypatch.setattr(sys, "argv", ["bench.py", "--cuda"])
        with pytest.raises(SystemExit) as stop:
            call()
        assert stop.value.code == 2
        assert capsys.readouterr().err == "no CUDA device was found: these benches need one\n"


def test_tests_come_before_times(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "find_device", lambda: CPU)
    monkeypatch.setattr(gpu, "list_concepts", lambda: ["one", "two"])
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    codes: dict[str, int | None] = {"test": 0, "one": 0, "two": 0}
    ran: list[str] = []

    def run(command: list[str], *, check: bool, timeout: float) -> Any:
        last = Path(command[-2] if command[-1] == "--cuda" else "test").stem
        name = last.removeprefix("bench_")
        ran.append(name)
        if codes[name] is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=codes[name])

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert gpu.main() == 0
    assert ran == ["test", "one", "two"]
    codes["one"] = None
    assert gpu.main() == 1
    assert ran[3:] == ["test", "one", "two"]
    assert capsys.readouterr().err == "failed: one\n"
    codes["test"] = 1
    assert gpu.main() == 1
    assert ran[6:] == ["test"]
    monkeypatch.setattr(gpu, "SECONDS", 0)
    assert gpu.main() == 1
    assert ran[7:] == []


def test_each_kernel_has_a_bench_and_launches_to_compile(gpu: Any) -> None:
    concepts = gpu.list_concepts()
    assert "nearest_embedding" in concepts
    for name in concepts:
        assert (ROOT / f"tests/ops/test_{name}.py").exists()
    name, command = next(gpu.list_commands(concepts))
    assert name == "parity"
    # A compiler beside another one: in a row they take longer than there is time.
    assert int(command[command.index("-n") + 1]) >= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benches"))
        launches = importlib.import_module("launches")
        sys.modules.pop("launches")
    assert sorted(launches.LAUNCHES) == concepts


@pytest.fixture
def attention(gpu: Any) -> Iterator[Any]:
    yield importlib.import_module("bench_attention")
    sys.modules.pop("bench_attention")


def test_attention_that_is_off_is_not_timed(
    attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision too, where a mean of many values is as small as a usual tolerance."""
    expected = torch.randn(64, 16) * 0.03
    attention.assert_near(expected * 1.01, expected, 0.02, "itself")
    for wrong in (expected * 0, expected * 1.05, expected / 0):
        with pytest.raises(AssertionError, match="attention differs from another by"):
            attention.assert_near(wrong, expected, 0.02, "another")
    monkeypatch.setattr(attention, "compare_on", lambda *_: [])
    case = attention.SMALL[0]
    assert attention.measure(case, CPU) == []
    monkeypatch.setattr(attention, "attention", lambda query, *_, **__: query * 0)
    with pytest.raises(AssertionError, match="attention differs from sdpa with a mask by"):
        attention.measure(case, CPU)


def test_flex_attention_is_compiled_for_each_case(
    attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = torch.compile

    def compile_quickly(function: Any, **options: Any) -> Any:
        return compiler(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    limits = {"recompile_limit": 1, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(limits), torch.no_grad():
        for case in attention.SMALL[:2]:
            inputs = attention.make_inputs(case, CPU)
            for tensor in (inputs.query, inputs.key, inputs.value):
                tensor.requires_grad_(False)
            expected = attention.list_opponents(case, inputs)[attention.MASKED]()
            torch.testing.assert_close(attention.make_flex(case, inputs)(), expected)


def test_rows_of_a_gpu_stand_in_a_file_of_its_own(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timing = sys.modules["timing"]
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    row = timing.make_row("concept", "case", ("a", [2.0]), ("b", [1.0]), "", (3.5, 0.0))
    timing.save("concept", [row], "NVIDIA H100 80GB HBM3")
    lines = (tmp_path / "nvidia-h100-80gb-hbm3.csv").read_text().splitlines()
    assert lines[0].endswith(",lmcore,opponent_peak,ours_peak")
    assert lines[1].endswith(",3.5,0")


def test_kernels_compile_for_gpus_that_are_not_here() -> None:
    """The compiler refuses some of what the interpreter takes, and tells what a kernel needs."""
    triton = pytest.importorskip("triton")
    if triton.knobs.nvidia.ptxas is None:
        pytest.skip("triton has no ptxas here")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "benches/compile_kernels.py", "--quick",
         "--target", "90"],
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nearest_embedding | _nearest_kernel | sm_90 | *bf16" in done.stdout
