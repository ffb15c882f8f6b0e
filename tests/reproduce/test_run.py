"""`reproduce`: every seed is measured once, whatever stops a run in between."""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from claims import CLAIM, row
from commands import check_line, finish, run, start
from lmcore.cli import app
from lmcore.reproduce import reproduce
from lmcore.reproduce.catalogue import CLAIMS
from lmcore.reproduce.claim import Claim, Estimate, Measurement, ResultRow, Size, Verdict
from lmcore.reproduce.measurements import only_here
from lmcore.reproduce.run import _make_jobs


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "lmcore-research\[report\]"'):
        reproduce(["matching_rescue"], out=tmp_path / "report", progress=False)
    assert not (tmp_path / "report").exists()


@pytest.fixture
def fake_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> Measurement:
        raise RuntimeError("out of order")

    monkeypatch.setitem(CLAIMS, "a_claim", CLAIM)
    broken = dataclasses.replace(CLAIM, id="broken", measure=break_down)
    monkeypatch.setitem(CLAIMS, "broken", broken)


@pytest.mark.usefixtures("fake_claims")
def test_a_run_measures_every_seed_and_writes_the_report(tmp_path: Path) -> None:
    (result,) = reproduce(
        ["a_claim", "a_claim"], seeds=3, out=tmp_path / "new", progress=False, processes=1
    )
    assert result.estimates == {"score": Estimate(mean=2.0, spread=1.0)}
    assert result.seeds == (0, 1, 2)
    assert result.verdict == "reproduced"
    files = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert files == ["index.html", "measurements", "results.json"]


@pytest.mark.usefixtures("fake_claims")
def test_a_run_that_breaks_leaves_the_claims_it_finished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of order"):
        reproduce(["a_claim", "broken"], seeds=2, out=tmp_path, progress=False, processes=1)
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [saved["id"] for saved in rows] == ["a_claim"]


def test_unknown_claims_and_seed_counts_raise(tmp_path: Path) -> None:
    known = "ner, openba, compression, detox, diffusion, recsys, matching_rescue"
    with pytest.raises(ValueError, match=f"got bogus; known are {known}"):
        reproduce(["bogus", "matching_speed"], out=tmp_path)
    with pytest.raises(ValueError, match="seeds must be at least 1: got 0"):
        reproduce([], seeds=0, out=tmp_path)
    with pytest.raises(ValueError, match="processes must be at least 1: got 0"):
        reproduce([], processes=0, out=tmp_path)
    with pytest.raises(ValueError, match="size must be one of tiny, quick, full: got 'huge'"):
        reproduce([], size="huge", out=tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verdict", "expected", "code"),
    [
        ("reproduced", "reproduced", 0),
        ("not reproduced", "not reproduced", 0),
        ("measured", "measured", 0),
        ("measured", "reproduced", 1),
        ("not reproduced", "reproduced", 1),
        ("reproduced", "not reproduced", 1),
        ("not run", "reproduced", 0),
    ],
)
def test_strict_holds_a_run_to_the_documented_verdicts(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, expected: Verdict, code: int
) -> None:
    rows = [dataclasses.replace(row(1.0, 1.2), verdict=verdict, expected=expected)]
    monkeypatch.setattr("lmcore.reproduce.reproduce", lambda *_, **__: rows)
    assert CliRunner().invoke(app, ["reproduce", "--strict"]).exit_code == code
    assert CliRunner().invoke(app, ["reproduce"]).exit_code == 0


def test_strict_needs_a_spread(tmp_path: Path) -> None:
    """One seed gives no verdict, so that nothing could be held to the documented one."""
    arguments = ["reproduce", "--strict", "--seeds", "1", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "lmcore: --strict needs --seeds 2 or more, for a verdict: got 1\n"
    assert not (tmp_path / "report").exists()
    for arguments, text in {
        ("--strict", "--tiny"): "--strict needs --seeds 2 or more, for a verdict: got --tiny",
        ("--full", "--tiny"): "--full and --tiny exclude each other",
    }.items():
        failed = CliRunner().invoke(app, ["reproduce", *arguments, "--out", str(tmp_path / "new")])
        assert (failed.exit_code, failed.stderr) == (2, f"lmcore: {text}\n")


# What was measured is kept.


class Counter:
    """A claim that counts how often it is measured, and may break at a seed."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.broken: int | None = None

    def measure(self, seed: int, size: Size) -> Measurement:
        if seed == self.broken:
            raise RuntimeError("out of order")
        self.seeds.append(seed)
        return Measurement(values={"score": seed + 1.0})


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    counter = Counter()
    monkeypatch.setitem(
        CLAIMS, "counted", dataclasses.replace(CLAIM, id="counted", measure=counter.measure)
    )
    yield counter
    counter.seeds.clear()


def measure(out: Path, seeds: int = 3, fresh: bool = False) -> ResultRow:
    (found,) = reproduce(
        ["counted"], seeds=seeds, out=out, progress=False, processes=1, fresh=fresh
    )
    return found


def test_a_run_goes_on_where_it_stopped(counter: Counter, tmp_path: Path) -> None:
    counter.broken = 2
    with pytest.raises(RuntimeError, match="out of order"):
        measure(tmp_path)
    assert counter.seeds == [0, 1]
    counter.broken = None
    found = measure(tmp_path)
    assert counter.seeds == [0, 1, 2]
    assert found.estimates == {"score": Estimate(mean=2.0, spread=1.0)}
    assert found.kept == 2
    again = measure(tmp_path)
    assert counter.seeds == [0, 1, 2]
    assert again == dataclasses.replace(found, kept=3)
    assert measure(tmp_path, seeds=4).estimates["score"].mean == 2.5
    assert counter.seeds == [0, 1, 2, 3]


def test_all_is_measured_again_on_request(counter: Counter, tmp_path: Path) -> None:
    measure(tmp_path)
    assert measure(tmp_path, fresh=True).kept == 0
    assert counter.seeds == [0, 1, 2] * 2


@pytest.mark.parametrize("name", ["lmcore", "torch", "sources", "device", "data:x"])
def test_other_conditions_are_measured_again(
    counter: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    conditions = {"lmcore": "0", "device": "a machine", "sources": "1"}
    monkeypatch.setattr("lmcore.reproduce.run.find_conditions", lambda _: conditions)
    measure(tmp_path)
    conditions = {**conditions, name: "another"}
    assert measure(tmp_path).kept == 0
    assert counter.seeds == [0, 1, 2] * 2
    assert measure(tmp_path).kept == 3


def test_a_damaged_measurement_is_measured_again(counter: Counter, tmp_path: Path) -> None:
    whole = measure(tmp_path)
    file = tmp_path / "measurements" / "counted-quick-1.json"
    text = file.read_text(encoding="utf-8")
    for damage in ("", text[:-20], text.replace('"score": 2.0', '"score": 2.5'), "[]", "null"):
        file.write_text(damage, encoding="utf-8")
        counter.seeds.clear()
        assert measure(tmp_path).estimates == whole.estimates
        assert counter.seeds == [1]
        assert file.read_text(encoding="utf-8") != damage


def test_two_processes_do_not_measure_into_one_folder(counter: Counter, tmp_path: Path) -> None:
    with (
        only_here(tmp_path),
        pytest.raises(FileExistsError, match="another process is measuring into it"),
    ):
        measure(tmp_path)
    assert counter.seeds == []
    assert measure(tmp_path).kept == 0


def test_what_a_killed_run_left_is_removed(counter: Counter, tmp_path: Path) -> None:
    measure(tmp_path)
    for folder in (tmp_path, tmp_path / "measurements"):
        (folder / ".lmcore-0123").touch()
    measure(tmp_path)
    assert list(tmp_path.rglob(".lmcore-*")) == []


# What cannot be measured here.


def test_what_is_missing_is_said_and_nothing_else_suffers(
    counter: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("LMCORE_DATA", str(data))
    for name, changes in {
        "needy": {"needs": ("data:corpus",)},
        "long": {"sizes": ("tiny", "full")},
    }.items():
        changed = dataclasses.replace(CLAIMS["counted"], id=name, **changes)  # type: ignore[arg-type]
        monkeypatch.setitem(CLAIMS, name, changed)
    names = ["needy", "long", "counted"]
    rows = {r.id: r for r in reproduce(names, out=tmp_path / "out", progress=False, processes=1)}
    assert rows["needy"].reason == (
        "needs data that are not here: LMCORE_DATA names no folder that has corpus"
    )
    assert rows["long"].reason == "takes longer than a demo may: lmcore reproduce --full"
    assert [rows[name].verdict for name in names] == ["not run", "not run", "reproduced"]
    assert counter.seeds == [0, 1, 2]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert rows["needy"].reason in page

    (data / "corpus").mkdir()
    (data / "corpus" / "a.txt").write_text("a")
    found = reproduce(["needy"], out=tmp_path / "out", progress=False, processes=1)
    assert found[0].verdict == "reproduced"
    assert counter.seeds == [0, 1, 2] * 2
    # Other data give other numbers.
    (data / "corpus" / "a.txt").write_text("abc")
    reproduce(["needy"], out=tmp_path / "out", progress=False, processes=1)
    assert counter.seeds == [0, 1, 2] * 3


def test_a_gpu_is_looked_for(
    counter: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = dataclasses.replace(CLAIMS["counted"], needs=("cuda",))
    monkeypatch.setitem(CLAIMS, "counted", needy)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert measure(tmp_path).reason == "needs a GPU: torch finds none"
    assert counter.seeds == []


# Jobs.


def claim(name: str, **changes: object) -> Claim:
    return dataclasses.replace(CLAIM, id=name, **changes)  # type: ignore[arg-type]


def test_a_group_is_one_job_and_times_are_taken_alone() -> None:
    claims = [
        claim("one", group="runs"),
        claim("two"),
        claim("three", group="runs"),
        claim("four", timed=True),
        claim("five", needs=("cuda",)),
    ]
    jobs = _make_jobs(claims, 2, "quick", frozenset([("one", 1), ("two", 0)]))
    assert [(job.claims, job.seed, job.alone) for job in jobs] == [
        (("one", "three"), 0, False),
        (("three",), 1, False),
        (("two",), 1, False),
        (("four",), 0, True),
        (("four",), 1, True),
        (("five",), 0, True),
        (("five",), 1, True),
    ]


def test_processes_change_nothing(tmp_path: Path) -> None:
    names = ["matching_rescue", "matching_rescue_chinese"]
    alone, together = (
        reproduce(names, 2, "tiny", out=tmp_path / str(n), progress=False, processes=n)
        for n in (1, 3)
    )
    assert [r.estimates for r in alone] == [r.estimates for r in together]
    assert [r.id for r in together] == names


# From outside.

TINY = ["reproduce", "--only", "matching_rescue", "--tiny", "--seeds", "2"]


def test_a_killed_command_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Whenever it is killed: what is there is whole, and no process is left behind."""
    out = tmp_path / "report"
    process = start(*TINY, "--seeds", "9", "--out", out)
    deadline = time.monotonic() + 60
    while not list(out.glob("measurements/*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    children = list_children(process.pid)
    assert children
    process.kill()
    finish(process)
    while any(Path("/proc", child).exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlives its run"
        time.sleep(0.05)
    kept = {file.name: file.read_bytes() for file in out.glob("measurements/*.json")}
    code, output, _ = run(*TINY, "--seeds", "9", "--out", out)
    assert code == 0
    assert f"{len(kept)} of 9 measurements were there already" in output
    assert {name: (out / "measurements" / name).read_bytes() for name in kept} == kept


def list_children(parent: int) -> list[str]:
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text.rpartition(")")[2].split()[1] == str(parent):
            children.append(path.parent.name)
    return children


@pytest.mark.alone
def test_ctrl_c_ends_workers_and_all(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all of a command's processes."""
    out = tmp_path / "report"
    process = start(*TINY[:3], "--full", "--out", out, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list_children(process.pid) or not (out / "index.html").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    children = list_children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    sent = time.monotonic()
    code, output, errors = finish(process)
    assert time.monotonic() - sent < 5
    assert (code, output) == (130, "")
    assert errors.splitlines()[-1] == "lmcore: interrupted"
    assert "Traceback" not in errors
    assert not any(Path("/proc", child).exists() for child in children)
    assert (out / "results.json").exists()


def test_what_differs_is_printed(tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = [*TINY, "--out", out, "--processes", "1"]
    assert run(*command)[0] == 0
    results = out / "results.json"
    before = tmp_path / "before.json"
    text = results.read_text(encoding="utf-8")
    before.write_text(text.replace("by position: ", "by place: "), encoding="utf-8")
    code, output, _ = run(*command, "--against", results)
    assert (code, output.splitlines()[-1]) == (0, "no claim differs")
    code, output, _ = run(*command, "--against", before)
    assert code == 0
    assert "  - by place: " in output
    assert "  + by position: " in output


@pytest.mark.parametrize("content", ["{}", "[]", '{"rows": 1, "run": {}}', "x", '["', "[" * 10**5])
def test_a_file_that_holds_no_results_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    result = run("reproduce", "--against", file, "--out", tmp_path / "out")
    check_line(result, "file.json: not results of claims")
    assert not (tmp_path / "out").exists()
