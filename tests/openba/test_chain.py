"""From texts to a model that answers: all steps in a row, by one call and by one command."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from commands import check_line, finish, run_here, start_warm
from lmcore.openba import ChainConfig, ChainInputs, chain, run_chain
from lmcore.openba.stages import read_stage
from lmcore.openba.tokenization_openba import load_tokenizer
from lmcore.training.config import change
from lmcore.worlds.openba import TEMPLATES, make_instructions, make_world, write_piece_file

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
        "1/8 clean", "2/8 pack", "3/8 pack", "4/8 instructions", "5/8 pack", "6/8 train ul2",
        "7/8 train length_adaptation", "8/8 train bilingual_flan",
    ]  # fmt: skip
    # Every eighth document came twice, and each tenth had a link.
    assert lines[0] == "1/8 clean: 120 of 135 documents kept"
    report = json.loads((tmp_path / "out" / "clean" / "report.json").read_text())
    assert report["rules"]["links"]["documents"] > 10
    assert "http" not in (tmp_path / "out" / "clean" / "texts.txt").read_text()
    assert list(result.stages) == list(STAGES)
    for stage in STAGES:
        assert read_stage(tmp_path / "out" / stage) == stage
    assert (result.reply, result.stages["bilingual_flan"].steps) == (None, 2)
    rows = [json.loads(r) for r in (tmp_path / "out/instructions.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    for answer, row in zip(result.answers, rows[-4:], strict=True):
        assert (answer.task, answer.source, answer.target) == (
            row["task"], row["source"], row["target"],
        )  # fmt: skip
    assert result.right == sum(answer.is_right for answer in result.answers)
    again = run_chain(SMALL, tmp_path / "out", prompt="Ada lived in")
    assert (again.answers, type(again.reply)) == (result.answers, str)
    assert [stage.resumed_after for stage in again.stages.values()] == [2, 2, 2]


def test_what_is_asked_was_never_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor in a row that asks the same once more."""
    run_chain(SMALL, tmp_path / "one")
    world = tmp_path / "one" / "world"
    rows = (world / "rows.jsonl").read_text(encoding="utf-8")
    (tmp_path / "twice.jsonl").write_text(rows * 2, encoding="utf-8")
    inputs = ChainInputs(
        texts=(str(world / "texts.txt"),), rows=(str(tmp_path / "twice.jsonl"),),
        templates=str(world / "templates.json"), tokenizer=str(world / "spiece.model"),
    )  # fmt: skip
    seen: list[tuple[Any, Any]] = []
    train = chain.train

    def watch(config: Any, data: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((data, options["valid"]))
        return train(config, data, *arguments, **options)

    monkeypatch.setattr(chain, "train", watch)
    result = run_chain(SMALL, tmp_path / "two", inputs)
    data, valid = seen[-1]
    assert (len(result.answers), len(valid)) == (8, 4)
    tokenizer = load_tokenizer(inputs.tokenizer)
    asked = {(*tokenizer(one.source, add_special_tokens=False)["input_ids"],)
             for one in result.answers}  # fmt: skip
    held = asked | {(*valid[number].source.tolist(),) for number in range(len(valid))}
    trained = [(*data[number].source.tolist(),) for number in range(len(data))]
    assert not held & {*trained}
    assert 40 < len(data) < 68


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
    assert one.answers == two.answers
    weights = [best_weights(tmp_path / name) for name in ("one", "two")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_command_and_a_kill(tmp_path: Path) -> None:
    """A chain that is killed in its second stage goes on there, to the same weights."""
    given = ["openba", "chain", "--quiet", *OPTIONS, "--set", "length_adaptation.loop.steps=30"]
    whole = run_here(*given, tmp_path / "whole")
    assert (whole[0], whole[2]) == (0, ""), whole
    lines = whole[1].splitlines()
    assert [line.split()[0] for line in lines[9:11]] == ["asked", "answered"]
    assert re.fullmatch(r"\d of 4 held-out instructions answered right: \d+%", lines[-1])
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
    rows = make_instructions(0, rows=20).to_text()
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    templates = {task: [*map(dict, own)] for task, own in TEMPLATES.items()}
    (tmp_path / "templates.json").write_text(json.dumps(templates))
    files = {
        "--texts": "a.txt", "--tasks": "rows.jsonl", "--templates": "templates.json",
        "--tokenizer": "spiece.model",
    }  # fmt: skip

    def check(changes: dict[str, str | None], *texts: str) -> None:
        chosen = {**files, **changes}
        given = [p for n, f in chosen.items() if f is not None for p in (n, tmp_path / f)]
        begin = ["openba", "chain", tmp_path / "out", "--no-resume", *OPTIONS]
        code, out, error = run_here(*begin, *given, "--quiet")
        assert "train" not in (out or "")  # whatever it is, it is said before
        check_line((code, "", error), *texts)

    for name in files:
        check({name: None}, f"{name} must be given where other files are")
    check({"--texts": "none.txt"}, "none.txt: No such file or directory")
    check({"--tokenizer": "a.txt"}, "a.txt: not a SentencePiece model")
    (tmp_path / "empty").touch()
    check({"--texts": "empty"}, "expected 126 tokens for a group, got 0 in 0 documents")
    check({"--tasks": "empty"}, "empty: the file holds no rows")
    check({"--templates": "empty"}, "empty: not templates")
    (tmp_path / "two.jsonl").write_text("".join(rows.splitlines(True)[:2]), encoding="utf-8")
    (tmp_path / "place.json").write_text(json.dumps({"place": templates["place"]}))
    check(
        {"--tasks": "two.jsonl", "--templates": "place.json"},
        "instructions.jsonl: expected at least 3 rows, of which some are held out: got 2",
    )
    # A misspelt name leaves nothing that the right one would meet.
    given = [part for name, file in files.items() for part in (name, tmp_path / file)]
    for name in files:
        wrong = [*given, name, tmp_path / "none"]
        check_line(run_here("openba", "chain", tmp_path / "new", *OPTIONS, *wrong), "none")
        assert not (tmp_path / "new").exists()
    check_line(
        run_here("openba", "chain", tmp_path / "x", "--set", "ul2.stages=a"),
        "'ul2.stages' is no setting of TrainConfig",
    )
    check_line(
        run_here("openba", "chain", tmp_path / "x", "--set", "documents=0"),
        "documents must be at least 10",
    )
