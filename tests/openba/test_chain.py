"""From texts to a model that answers: all steps in a row, by one call and by one command."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from commands import check_line, finish, run_here, start_warm
from lmcore.openba import ChainConfig, ChainInputs, run_chain
from lmcore.openba.stages import read_stage
from lmcore.training.config import change
from lmcore.worlds.openba import TEMPLATES, generate_rows, make_world, write_piece_file

STAGES = ("ul2", "length_adaptation", "bilingual_flan")
SIZES: dict[str, Any] = {
    "shape.hidden_size": 16, "shape.heads": 2, "shape.kv_channels": 8, "shape.ffn_hidden_size": 16,
    "shape.encoder_layers": 1, "shape.decoder_layers": 1, "batch_size": 4, "micro_batch_size": 2,
    "loop.steps": 2, "loop.validate_every_steps": 1, "schedule.warmup_steps": 0,
    "validation_texts": 4, "device.device": "cpu", "device.threads": 1,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "documents": 120, "rows": 40,
    **{f"{stage}.{name}": size for stage in STAGES for name, size in SIZES.items()},
}  # fmt: skip
SMALL = change(ChainConfig(), SETTINGS)
OPTIONS = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "bilingual_flan" / "best" / "model.safetensors")


def test_a_generated_world(tmp_path: Path) -> None:
    lines: list[str] = []
    result = run_chain(SMALL, tmp_path / "out", tell=lines.append)
    assert [line.partition(":")[0] for line in lines] == [
        "clean", "pack", "ul2", "pack", "length_adaptation", "instructions", "pack",
        "bilingual_flan",
    ]  # fmt: skip
    # Every eighth document came twice, and each tenth had a link.
    assert lines[0] == "clean: 120 of 135 documents kept"
    report = json.loads((tmp_path / "out" / "clean" / "report.json").read_text())
    assert report["rules"]["links"]["documents"] > 10
    assert "http" not in (tmp_path / "out" / "clean" / "texts.txt").read_text()
    assert list(result.stages) == list(STAGES)
    for stage in STAGES:
        assert read_stage(tmp_path / "out" / stage) == stage
    assert (result.asked, result.stages["bilingual_flan"].steps) == (4, 2)
    # What is asked was held out: it is none of the pairs that were trained on.
    rows = [json.loads(r) for r in (tmp_path / "out/instructions.jsonl").read_text().splitlines()]
    assert result.prompt == rows[-4]["source"]
    assert result.prompt not in {row["source"] for row in rows[:-4]}
    again = run_chain(SMALL, tmp_path / "out", prompt="Ada lived in")
    assert again.prompt == "Ada lived in"
    assert [stage.resumed_after for stage in again.stages.values()] == [2, 2, 2]


@pytest.mark.parametrize("stage", STAGES)
def test_a_schedule_that_does_not_fit_is_said_first(tmp_path: Path, stage: str) -> None:
    """Not when the stages before it are trained."""
    config = change(
        SMALL, {f"{stage}.schedule.kind": "cosine", f"{stage}.schedule.warmup_steps": 2}
    )
    with pytest.raises(ValueError, match=f"^{stage}: warmup_steps must be below the 2 steps"):
        run_chain(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_given_files_give_what_the_world_gives(tmp_path: Path) -> None:
    """The files that a world writes are such as may be given."""
    one = run_chain(SMALL, tmp_path / "one")
    world = tmp_path / "one" / "world"
    inputs = ChainInputs(
        texts=(str(world / "texts.txt"),), rows=(str(world / "rows.jsonl"),),
        templates=str(world / "templates.json"), tokenizer=str(world / "spiece.model"),
    )  # fmt: skip
    two = run_chain(SMALL, tmp_path / "two", inputs)
    assert (one.prompt, one.answer) == (two.prompt, two.answer)
    weights = [best_weights(tmp_path / name) for name in ("one", "two")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_command_and_a_kill(tmp_path: Path) -> None:
    """A chain that is killed in its second stage goes on there, to the same weights."""
    given = ["openba", "chain", "--quiet", *OPTIONS, "--set", "length_adaptation.loop.steps=30"]
    whole = run_here(*given, tmp_path / "whole")
    assert (whole[0], whole[2]) == (0, ""), whole
    lines = whole[1].splitlines()
    assert [line.partition(":")[0] for line in lines[-3:]] == ["answers", "asked", "answered"]
    out = tmp_path / "killed"
    process = start_warm(*given, out)
    states = out / "length_adaptation" / "states"
    while process.poll() is None and not [*states.glob("step-*")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    again = run_here(*given, out)
    assert (again[0], again[1]) == (0, whole[1])
    one, two = best_weights(tmp_path / "whole"), best_weights(out)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_chain_is_refused_before_a_file_changes(tmp_path: Path) -> None:
    run_chain(SMALL, tmp_path)
    before = (tmp_path / "world" / "texts.txt").read_bytes()
    with pytest.raises(FileExistsError, match=r"config.world.documents is 120 there and 130 here"):
        run_chain(change(SMALL, {"documents": 130}), tmp_path)
    with pytest.raises(FileExistsError, match=r"config.cleaning.minimum_words is 3 there and 4"):
        run_chain(change(SMALL, {"cleaning.minimum_words": 4}), tmp_path)
    assert (tmp_path / "world" / "texts.txt").read_bytes() == before
    with pytest.raises(FileExistsError, match=r"holds another run: config.batch_size is 4 there"):
        run_chain(change(SMALL, {"ul2.batch_size": 5}), tmp_path)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    write_piece_file(tmp_path / "spiece.model")
    text = "".join(f"{line}\n" for line in make_world(0, documents=60).texts)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    rows = "".join(json.dumps(row) + "\n" for row in generate_rows(20, 0))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "templates.json").write_text(json.dumps(TEMPLATES))
    files = {
        "--texts": "a.txt", "--tasks": "rows.jsonl", "--templates": "templates.json",
        "--tokenizer": "spiece.model",
    }  # fmt: skip

    def check(changes: dict[str, str | None], *texts: str) -> None:
        chosen = {**files, **changes}
        given = [p for n, f in chosen.items() if f is not None for p in (n, tmp_path / f)]
        begin = ["openba", "chain", tmp_path / "out", "--no-resume", *OPTIONS]
        check_line(run_here(*begin, *given, "--quiet"), *texts)

    for name in files:
        check({name: None}, f"{name} must be given where other files are")
    check({"--texts": "none.txt"}, "none.txt: No such file or directory")
    check({"--tokenizer": "a.txt"}, "a.txt: not a SentencePiece model")
    check_line(
        run_here("openba", "chain", tmp_path / "x", "--set", "ul2.stages=a"),
        "'ul2.stages' is no setting of TrainConfig",
    )
    check_line(
        run_here("openba", "chain", tmp_path / "x", "--set", "documents=0"),
        "documents must be at least 10",
    )
