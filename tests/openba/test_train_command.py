"""The commands `lmcore openba train` and `lmcore openba recipe`."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from commands import check_line, finish, run_here, run_warm, start_warm
from lmcore.openba import IndexedWriter
from lmcore.openba.models import load_model
from lmcore.worlds.openba import make_world, write_piece_file
from tiny_runs import LENGTH, SMALL, make_pairs, make_tokenizer

OPTIONS = [
    part
    for name, value in SMALL.items()
    if not name.startswith("device.")
    for part in ("--set", f"{name}={value}")
] + ["--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed texts for training and validation, and a tokenizer."""
    place: Path = tmp_path_factory.mktemp("openba")
    write_piece_file(place / "spiece.model")
    for name, count in (("train", 30), ("valid", 5)):
        text = make_world(len(name), documents=count).to_text()
        (place / f"{name}.txt").write_text(text, encoding="utf-8")
        given = ["--tokenizer", place / "spiece.model", "--length", LENGTH, "--quiet"]
        packed = run_here(
            "openba", "pack", place / f"{name}.txt", "--out", place / name, *given
        )  # fmt: skip
        assert packed[0] == 0, packed
    return place


def arguments(folder: Path, out: Path) -> list[Any]:
    return [
        "openba", "train", "tiny", "--data", folder / "train", "--valid", folder / "valid",
        "--tokenizer", folder / "spiece.model", "--out", out, *OPTIONS,
    ]  # fmt: skip


def test_a_recipe_is_printed() -> None:
    code, output, errors = run_here("openba", "recipe")
    assert (code, errors) == (0, "")
    config = json.loads(output)
    assert (config["batch_size"], config["shape"]["decoder_layers"]) == (4096, 36)
    tiny = run_here("openba", "recipe", "tiny", "--set", 'denoisers=["R3"]')
    assert json.loads(tiny[1])["denoisers"] == ["R3"]


def test_train(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, output, errors = run_here(*arguments(folder, out), "--quiet")
    assert (code, errors) == (0, ""), errors
    summary = json.loads(output)
    assert {**summary, "best_step": 0, "loss": 0} == {
        "out": str(out), "steps": 5, "best_step": 0, "loss": 0,
    }  # fmt: skip
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["data"]["path"] == str(folder / "train")
    assert recipe["data"]["tokenizer"] == str(folder / "spiece.model")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "tokens_per_second"} < set(lines[0])
    assert any(name.startswith("loss_") for name in lines[0])
    assert len(lines[1]["metrics"]) == 8
    again = run_here(*arguments(folder, out), "--quiet")
    assert json.loads(again[1]) == summary
    assert type(load_model(out)).__name__ == "OpenBAForConditionalGeneration"
    more = ["openba", "train", "tiny", "--data", folder / "train", "--model", out, *OPTIONS]
    assert run_here(*more, "--out", tmp_path / "more", "--steps", 2, "--quiet")[0] == 0


def test_progress(folder: Path, tmp_path: Path) -> None:
    code, output, errors = run_here(
        *arguments(folder, tmp_path), "--set", "device.precision=bfloat16"
    )
    assert (code, len(output.splitlines())) == (0, 1)
    assert "float32 in the place of bfloat16, which cpu lacks here" in errors
    assert "step 4/5  loss " in errors


def test_a_killed_command_goes_on(folder: Path, tmp_path: Path) -> None:
    longer = ["--quiet", "--steps", 40]
    whole = run_here(*arguments(folder, tmp_path / "whole"), *longer)
    out = tmp_path / "killed"
    process = start_warm(*arguments(folder, out), *longer)
    states = out / "states"
    while process.poll() is None and not [*states.glob("step-*")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    again = run_here(*arguments(folder, out), *longer)
    assert again[0] == 0
    assert {**json.loads(again[1]), "out": ""} == {**json.loads(whole[1]), "out": ""}
    one, two = (load_file(p / "best/model.safetensors") for p in (tmp_path / "whole", out))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_commands_into_one_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    longer = ["--quiet", "--steps", 5000, "--set", "loop.validate_every_steps=5000"]
    first = start_warm(*arguments(folder, out), *longer)
    while first.poll() is None and not (out / "recipe.json").exists():
        time.sleep(0.05)
    check_line(run_warm(*arguments(folder, out), *longer), "another process is training into it")
    first.send_signal(signal.SIGINT)
    code, _, errors = finish(first)
    assert (code, errors) == (130, "lmcore: interrupted\n")
    assert [*(out / "states").glob("step-*")]


def test_torchrun(folder: Path, tmp_path: Path) -> None:
    """Two processes with shards of the weights; then one goes on."""
    script = tmp_path / "main.py"
    script.write_text("from lmcore.cli import main; main()")
    out = tmp_path / "run"
    done = subprocess.run(
        ["torchrun", "--standalone", "--nproc-per-node", "2", str(script),
         *map(str, arguments(folder, out)), "--quiet", "--set", "device.sharding=full"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = run_here(*arguments(folder, tmp_path / "alone"), "--quiet")
    two, one = json.loads(done.stdout), json.loads(alone[1])
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-6)
    code, output, errors = run_here(*arguments(folder, out), "--quiet", "--steps", 6)
    assert (code, errors, json.loads(output)["steps"]) == (0, "", 6)


def test_bad_input_is_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = arguments(folder, out)

    def check(changes: dict[str, Any], *texts: str) -> None:
        given = list(good)
        for name, value in changes.items():
            if name == "RECIPE":
                given[2] = value
            elif name == "--set":
                given += ["--set", value]
            elif name == "--model":
                given += ["--model", value]
            else:
                given[given.index(name) + 1] = value
        check_line(run_here(*given, "--quiet"), *texts)
        assert not out.exists()

    size = len(make_tokenizer())
    for name, ids in (("high", [[5] * LENGTH, [5] * (LENGTH - 1) + [size]]), ("short", [[5] * 9])):
        with IndexedWriter(tmp_path / name, vocabulary_size=size + 1) as writer:
            for row in ids:
                writer.add(row)
    for name, content in (("empty", b""), ("other", b"text" * 20)):
        for ending in ("bin", "idx"):
            (tmp_path / f"{name}.{ending}").write_bytes(content)
    (tmp_path / "cut.idx").write_bytes((folder / "train.idx").read_bytes())
    (tmp_path / "cut.bin").write_bytes((folder / "train.bin").read_bytes()[:-1])
    (tmp_path / "folder").mkdir()
    check({"RECIPE": "t5"}, "RECIPE must be one of tiny, ", ", ul2, ", ": got 't5'")
    check({"--data": tmp_path / "none"}, "none.idx: No such file or directory")
    check({"--data": tmp_path / "empty"}, "empty.idx: not an index of tokens")
    check({"--data": tmp_path / "other"}, "other.idx: not an index of tokens")
    check({"--data": tmp_path / "cut"}, "cut.bin: expected ", " bytes as ")
    check(
        {"--data": tmp_path / "high"},
        f"high.bin: expected ids below {size}", f"got {size} at position {LENGTH - 1} of text 1",
    )  # fmt: skip
    check(
        {"--data": tmp_path / "short"},
        f"short.idx: expected texts of {LENGTH} tokens", "got 9 in item 0",
    )  # fmt: skip
    check({"--valid": tmp_path / "short"}, "short.idx: expected texts of")
    check({"--tokenizer": tmp_path / "none"}, "none: No such file or directory")
    check({"--tokenizer": folder / "train.txt"}, "train.txt: not a SentencePiece model")
    check({"--tokenizer": tmp_path / "folder"}, "folder: not a tokenizer that can be loaded")
    check({"--model": tmp_path / "none"}, "none: no such folder of a model")
    check({"--model": tmp_path / "folder"}, "not a model: there is no config.json in it")
    check({"--set": "batch_size=0"}, "batch_size must be at least 1")
    check(
        {"--set": "epochs=1"},
        "'epochs' is no setting of TrainConfig; there are stage, model",
    )
    check({"--set": "shape.kv_channels=3"}, "kv_channels must be even: got 3")
    check({"--set": "encoder_length=100"}, "train.idx: expected texts of 98 tokens")
    check({"--set": "device.sharding=full"}, "sharding must be none where one process runs")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Path:
    """Prefix of a token file of pairs."""
    with IndexedWriter(folder / "pairs", vocabulary_size=len(make_tokenizer())) as writer:
        for index in range(len(make_pairs())):
            writer.add(*make_pairs()[index])
    return folder / "pairs"


PAIRS = ["--set", "pairs=true", "--set", "decoder_length=20"]


def test_pairs(folder: Path, pairs: Path, tmp_path: Path) -> None:
    given = [
        "openba", "train", "tiny", "--data", pairs, "--valid", pairs,
        "--tokenizer", folder / "spiece.model", *OPTIONS, *PAIRS, "--set", "encoder_length=12",
    ]  # fmt: skip
    code, output, errors = run_here(*given, "--out", tmp_path / "run")
    assert (code, json.loads(output)["steps"]) == (0, 5)
    assert "sources and " in errors
    assert "targets are cut: the encoder has room for 12 ids, the decoder for 20" in errors
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert set(json.loads(lines[1])["metrics"]) == {"loss", "loss_pairs"}
    check_line(
        run_here(*given, "--out", tmp_path / "run", "--quiet", "--set", "decoder_length=19"),
        "holds another run: config.decoder_length is 20 there and 19 here",
    )


def write_mixture(file: Path, *sources: tuple[str, Path, Any]) -> Path:
    content = [{"name": name, "data": str(data), "weight": x} for name, data, x in sources]
    file.write_text(json.dumps({"sources": content}))
    return file


def test_mixture(folder: Path, pairs: Path, tmp_path: Path) -> None:
    """Texts and pairs in one; another mixture is another run, and files may move."""
    mixture = write_mixture(tmp_path / "mix.json", ("a", folder / "train", 3), ("b", pairs, 1.0))
    out = tmp_path / "run"
    base = ["openba", "train", "tiny", "--tokenizer", folder / "spiece.model", *OPTIONS, "--quiet",
            "--valid", folder / "valid", "--out", out, "--set", "decoder_length=30"]  # fmt: skip
    given = [*base, "--mixture", mixture]
    code, output, errors = run_here(*given)
    assert (code, errors) == (0, "")
    line = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    assert line["share_of_a"] + line["share_of_b"] == pytest.approx(1)
    assert {"loss_of_a", "loss_of_b", "loss_pairs"} < set(line)
    recipe = json.loads((out / "recipe.json").read_text())["data"]
    assert recipe["weights"] == {"a": 3.0, "b": 1.0}
    assert recipe["mixture"] == str(mixture)
    for ending in ("bin", "idx"):
        (tmp_path / f"moved.{ending}").write_bytes(pairs.with_suffix(f".{ending}").read_bytes())
    moved = ("b", Path("moved"), 1)
    other = write_mixture(tmp_path / "other.json", ("a", folder / "train", 3), moved)
    again = run_here(*base, "--mixture", other)
    assert (again[0], again[1]) == (0, output)
    write_mixture(mixture, ("a", folder / "train", 3), ("b", pairs, 2))
    check_line(run_here(*given), "holds another run: data.weights.b is 1.0 there and 2.0 here")
    (tmp_path / "moved.bin").unlink()
    check_line(run_here(*base, "--mixture", other), "moved.bin: No such file or directory")


def test_bad_mixtures_are_one_line(folder: Path, pairs: Path, tmp_path: Path) -> None:
    texts, out, file = folder / "train", tmp_path / "out", tmp_path / "mix.json"
    base = ["openba", "train", "tiny", "--tokenizer", folder / "spiece.model", *OPTIONS, "--quiet",
            "--out", out]  # fmt: skip
    with IndexedWriter(tmp_path / "short", vocabulary_size=100) as writer:
        writer.add([5] * 9)
    for sources, text in (
        ([("a", texts, 0)], "mix.json: sources[0]: weight must be above 0 and finite: got 0"),
        ([("a", texts, "1")], "mix.json: sources[0]: weight must be a number: got '1'"),
        ([("a", texts, 1), ("a", pairs, 1)], "mix.json: sources must have names of their own"),
        ([], "mix.json: sources must not be empty"),
        ([("a", tmp_path / "none", 1)], "none.idx: No such file or directory"),
        ([("a", texts, 1), ("b", tmp_path / "short", 1)], "short.idx: expected texts of"),
    ):
        write_mixture(file, *sources)
        check_line(run_here(*base, "--mixture", file), text)
    file.write_text('{"sources": [{"name": "a", "name": "b", "data": "x", "weight": 1}]}')
    check_line(run_here(*base, "--mixture", file), "mix.json: not a mixture: the key 'name' stands")
    check_line(run_here(*base, "--mixture", tmp_path / "no.json"), "no.json: No such file")
    check_line(run_here(*base, "--mixture", folder / "train.bin"), "train.bin: not a mixture")
    both = [*base, "--mixture", file, "--data", texts]
    for given in (base, both):
        assert run_here(*given)[0] == 2
    check_line(run_here(*base), "one of --data and --mixture must be given")
    assert not out.exists()


def test_stages_follow_each_other(folder: Path, pairs: Path, tmp_path: Path) -> None:
    """From texts to answers, by commands; a stage that is left out is one line."""
    run_here(*arguments(folder, tmp_path / "one"), "--quiet", "--steps", 1)
    given = ["openba", "pack", folder / "train.txt", "--tokenizer", folder / "spiece.model"]
    assert run_here(*given, "--length", 160, "--out", tmp_path / "long", "--quiet")[0] == 0
    common = ["--threads", 1, "--device", "cpu", "--quiet", "--set", "batch_size=4"]
    more = [*common, "--set", "loop.validate_every_steps=1", "--steps", 1]
    flan = ["openba", "train", "tiny_flan", "--data", pairs, "--valid", pairs, *more]
    check_line(
        run_here(*flan, "--model", tmp_path / "one", "--out", tmp_path / "three"),
        "one: a model of the stage ul2; bilingual_flan starts from length_adaptation",
    )
    check_line(
        run_here(*flan, "--out", tmp_path / "three", "--tokenizer", folder / "spiece.model"),
        "the stage bilingual_flan starts from a model of length_adaptation: name one",
    )
    longer = ["openba", "train", "tiny_length_adaptation", "--data", tmp_path / "long", *more,
              "--set", "text_tokens=160", "--model", tmp_path / "one"]  # fmt: skip
    assert run_here(*longer, "--out", tmp_path / "two")[::2] == (0, "")
    done = run_here(*flan, "--model", tmp_path / "two", "--out", tmp_path / "three")
    assert done[::2] == (0, "")
    assert json.loads(done[1])["steps"] == 1
    chat = [*flan, "--set", "stage=chat", "--model", tmp_path / "three", "--out", tmp_path / "four"]
    assert run_here(*chat)[::2] == (0, "")


@pytest.mark.parametrize("resume", ["--resume", "--no-resume"])
def test_an_output_is_no_model_that_is_read(folder: Path, tmp_path: Path, resume: str) -> None:
    """Starting anew would remove the model that is to be read."""
    out = tmp_path / "run"
    assert run_here(*arguments(folder, out), "--quiet", "--steps", 1)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(out)
    for model in (out, out / "best", out / "models" / "step-1", tmp_path / "link"):
        given = [*arguments(folder, out), "--quiet", resume, "--model", model]
        check_line(run_here(*given), "the output is an input too")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_exploding_loss_is_one_line(folder: Path, tmp_path: Path) -> None:
    given = [*arguments(folder, tmp_path / "run"), "--quiet", "--set", "optimizer.lr=1e30"]
    check_line(run_here(*given), "loss of step 2 is nan")


def test_another_recipe_is_one_line(folder: Path, tmp_path: Path) -> None:
    given = [*arguments(folder, tmp_path), "--quiet"]
    assert run_here(*given)[0] == 0
    result = run_here(*given, "--set", "batch_size=11")
    check_line(result, "holds another run: config.batch_size is 12 there and 11 here")
    state = tmp_path / "states" / "step-5" / "state.pt"
    content = bytearray(state.read_bytes())
    content[1000] ^= 1
    state.write_bytes(content)
    check_line(run_here(*given, "--steps", 7), "state.pt: has changed since it was written")
