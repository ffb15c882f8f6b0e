"""Times of a pruned model beside those of the original."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.compression.latency import (
    Latency,
    LatencyReport,
    dump_report,
    load_report,
    measure_latency,
)
from lmcore.compression.plan_files import write_plan
from lmcore.compression.record import Record, read_record, write_record
from tiny_families import make_plan, save_model

TIMES = Latency(parameters=10, prefill_seconds=0.5, token_seconds=0.25)
REPORT = LatencyReport(
    device="a", dtype="float32", threads=1, versions={"torch": "2"}, prompt_tokens=1, new_tokens=2,
    rounds=1, original=TIMES, pruned=replace(TIMES, token_seconds=None, cached=False),
)  # fmt: skip
SMALL = ["--prompt-tokens", 5, "--new-tokens", 3, "--rounds", 2, "--quiet"]


@pytest.mark.parametrize("name", ["openba", "t5", "gpt2", "bert"])
def test_prune_with_latency(tmp_path: Path, name: str) -> None:
    """The times stand in the record, where a later start leaves them."""
    folder = save_model(name, tmp_path / "model")
    plan = make_plan(folder, {"ffn": 7})
    write_plan(tmp_path / "plan", plan)
    arguments = ["compression", "prune", folder, tmp_path / "out", "--plan", tmp_path / "plan"]
    code, output, errors = run_here(*arguments, "--latency", *SMALL)
    assert code == 0, errors
    head, *rows = output.splitlines()
    assert head.split() == ["parameters", "prefill", "ms", "ms/token"]
    assert [row.split()[0] for row in rows] == ["original", "pruned", "ratio"]
    found = read_record(tmp_path / "out").latency
    assert found is not None
    assert (found.prompt_tokens, found.new_tokens, found.rounds) == (5, 3, 2)
    assert {*found.versions} == {"torch", "transformers"}
    assert found.pruned.parameters < found.original.parameters
    assert found.pruned.prefill_seconds > 0
    assert (found.pruned.token_seconds is None) == (name == "bert")
    # Four layers behind three: see the table of families.
    assert found.pruned.cached == (name != "t5")
    record = tmp_path / "out" / "pruning.json"
    before = record.read_bytes()
    check_line(run_here(*arguments, "--quiet"), "holds model.safetensors already")
    assert record.read_bytes() == before
    # A model that is there is measured again.
    code, output, errors = run_here(*arguments, "--latency", *SMALL, "--rounds", 1)
    assert (code, len(errors.splitlines())) == (0, 1)
    again = read_record(tmp_path / "out")
    assert again.latency is not None
    assert again.latency.rounds == 1
    assert again.plan == plan
    if name == "bert":
        write_plan(tmp_path / "plan", make_plan(folder, {"ffn": 6}))
        check_line(run_here(*arguments, "--quiet"), "holds a model that was made otherwise")


def test_no_room(tmp_path: Path) -> None:
    folder = save_model("gpt2", tmp_path / "model")
    with pytest.raises(ValueError, match="reads at most 16 tokens: got 17"):
        measure_latency(folder, prompt_tokens=12, new_tokens=5)
    for name, least in (("prompt_tokens", 1), ("new_tokens", 2), ("rounds", 1)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}: got 0"):
            measure_latency(folder, **{name: 0})


def test_a_record_reads_times_strictly(tmp_path: Path) -> None:
    write_record(tmp_path, Record(source="ab", latency=REPORT))
    assert read_record(tmp_path).latency == REPORT
    content = json.loads((tmp_path / "pruning.json").read_text())
    times: dict[str, Any] = content["latency"]
    for changed, message in (
        ({**times, "threads": "1"}, "threads must be a whole number"),
        ({**times, "threads": 0}, "threads must be from 1 to"),
        ({**times, "rounds": True}, "rounds must be a whole number"),
        ({**times, "more": 1}, "latency must have device, "),
        ({**times, "device": 3}, "device must be a text"),
        ({**times, "versions": {"torch": 2}}, "versions must be a text"),
        ({**times, "versions": []}, "versions must be an object"),
        ({**times, "pruned": {}}, "pruned must have parameters, "),
        ({**times, "pruned": {**times["pruned"], "prefill_seconds": -1}}, "must be at least 0"),
        ({**times, "pruned": {**times["pruned"], "cached": 1}}, "cached must be true or false"),
        ({**times, "pruned": {**times["pruned"], "token_seconds": "1"}}, "must be a number"),
        ([], "latency must have device, "),
    ):
        text = json.dumps({**content, "latency": changed})
        (tmp_path / "pruning.json").write_text(text)
        with pytest.raises(ValueError, match=f"not a record of pruning: .*{message}"):
            read_record(tmp_path)
    assert load_report(dump_report(REPORT)) == REPORT
    with pytest.raises(TypeError, match="latency must be a LatencyReport"):
        Record(source="ab", latency=dump_report(REPORT))  # type: ignore[arg-type]
