"""`lmcore compression learn-masks`: gates that are trained, and the plan that they come to."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from commands import check_line, run_here
from lmcore.compression.choosing import draw_scores
from lmcore.compression.families import find_family
from lmcore.compression.gate_sizes import choose_sizes, find_expected, make_gate_grid
from lmcore.compression.gates import Gates
from lmcore.compression.importance import Calibration, make_batches, read_rows
from lmcore.compression.loading import load_model
from lmcore.compression.mask_config import MaskConfig
from lmcore.compression.mask_learning import learn_masks
from lmcore.compression.mask_run import MaskRun, read_texts
from lmcore.compression.plan import Plan, find_kept, prune_shape
from lmcore.compression.plan_files import read_plan
from lmcore.compression.planning import add_chosen_stage
from lmcore.compression.probes import sum_losses
from lmcore.compression.recipes import OPENBA_V1, tiny_masks
from lmcore.compression.scores_files import digest_weights, read_scores
from lmcore.cost import count_parameters, read_shape
from lmcore.training.config import change
from tiny_families import save_model
from tiny_generation import PROMPTS, save_pair

FAST = {
    "loop.steps": 6, "loop.validate_every_steps": 2, "warmup_steps": 3, "batch_size": 4,
    "micro_batch_size": 2, "device.device": "cpu", "target": "params=70%",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("masks") / "openba")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "text.txt"
    file.write_text(("\n".join(text for text in PROMPTS if text) + "\n") * 3)
    return file


def fast(**changes: Any) -> MaskConfig:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return change(tiny_masks(), {**FAST, **named})


def learn(model: Path, out: Path, *arguments: object) -> tuple[int, str, str]:
    given = ["--recipe", "tiny_masks", "--quiet", "--device", "cpu"]
    return run_here("compression", "learn-masks", model, out, *given, *arguments)


def test_a_plan_that_prunes(tmp_path: Path, model: Path, text: Path) -> None:
    """The plan is under the target, `prune` takes it, and the loss is that of the pruned model."""
    out = tmp_path / "run"
    sets = [item for name in ("warmup_steps", "batch_size") for item in ("--set", f"{name}=4")]
    code, output, errors = learn(
        model, out, "--data", text, "--valid", text, "--target", "params=60%", "--steps", 8,
        "--set", "loop.validate_every_steps=4", *sets,
    )  # fmt: skip
    assert code == 0, errors
    told = json.loads(output)
    plan = read_plan(out / "plan.json")
    shape = prune_shape(plan)
    whole = count_parameters(plan.shape).distinct
    assert told["parameters"] == count_parameters(shape).distinct <= 0.6 * whole
    [stage] = plan.stages
    assert stage.method == "learned"
    code, _, errors = run_here(
        "compression", "prune", model, tmp_path / "small", "--plan", out / "plan.json", "--quiet"
    )
    assert code == 0, errors
    assert read_shape(tmp_path / "small") == shape
    rows, kind, ids = read_rows(model, Calibration(text=text, tokens=16384))
    small = load_model(tmp_path / "small")
    total = labels = 0.0
    with torch.no_grad():
        for batch in make_batches(rows, kind, 4, **ids):
            total += float(sum_losses(small, batch, shape))
            labels += int((batch.labels != -100).sum())
    assert told["loss"] == pytest.approx(total / labels, rel=1e-5)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "penalty", "parameters", "target_parameters"} <= {*log[-1]}
    # The same scores are those of other sizes.
    code, _, errors = run_here(
        "compression", "plan", model, tmp_path / "plan", "--ffn", 5, "--choose", "learned",
        "--scores", out / "masks.scores", "--quiet",
    )  # fmt: skip
    assert code == 0, errors
    stored = read_scores(out / "masks.scores")
    assert (stored.method, stored.model) == ("learned", digest_weights(model))
    assert stored.scores.decoder_ffn is not None
    best = np.sort(np.argsort(-stored.scores.decoder_ffn[0], kind="stable")[:5])
    assert find_kept(read_plan(tmp_path / "plan")).decoder_ffn[0] == tuple(best)


def test_gates_learn_what_is_of_no_use(tmp_path: Path, text: Path) -> None:
    """Half of the inner units lead nowhere, others do much: the gates tell which."""
    folder = save_pair(tmp_path / "planted")
    model = load_model(folder)
    units = model.config.inner_size
    dead = np.random.default_rng(0).permutation(units)[: units // 2]
    with torch.no_grad():
        for block in [*model.encoder.block, *model.decoder.block]:
            block.mlp.fc_out.weight *= 20
            block.mlp.fc_out.weight[:, torch.from_numpy(dead)] = 0
    model.save_pretrained(folder)
    config = fast(dimensions=["ffn"], loop__steps=60, warmup_steps=20, ffn_divisor=1)
    whole = count_parameters(read_shape(folder)).distinct
    inner = replace(read_shape(folder), inner_size=units - len(dead))
    most = count_parameters(inner).distinct
    assert most < whole
    config = replace(config, target=f"params={most}")
    result = learn_masks(config, text, tmp_path / "out", model=folder)
    assert result.shape.inner_size == units - len(dead)
    kept = find_kept(result.plan).decoder_ffn
    hits = np.mean([len({*row} - {*dead.tolist()}) / len(row) for row in kept.values()])
    assert hits > 0.8


@pytest.mark.parametrize("trains_weights", [False, True])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, trains_weights: bool
) -> None:
    config = fast(trains_weights=trains_weights, loop__save_every_seconds=0.0)
    config = change(config, {"schedule.warmup_steps": 0})
    whole = learn_masks(config, text, tmp_path / "whole", model=model, valid=text)
    out = tmp_path / "killed"
    step: Callable[[MaskRun, int], Any] = MaskRun.step
    for killed in (4, 6):

        def die(run: MaskRun, number: int, killed: int = killed) -> Any:
            if number == killed:
                raise RuntimeError("killed")
            return step(run, number)

        monkeypatch.setattr(MaskRun, "step", die)
        with pytest.raises(RuntimeError, match="killed"):
            learn_masks(config, text, out, model=model, valid=text)
    monkeypatch.setattr(MaskRun, "step", step)
    again = learn_masks(config, text, out, model=model, valid=text)
    assert again.resumed_after == 5
    assert (again.best_step, again.best_value) == (whole.best_step, whole.best_value)
    for name in ("plan.json", "masks.scores"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    if trains_weights:
        best = load_file(out / "best" / "model.safetensors")
        first = load_file(model / "model.safetensors")
        assert any(not torch.equal(best[name], first[name]) for name in first)
        assert read_scores(out / "masks.scores").model == digest_weights(out / "best")
    else:
        assert not (out / "best" / "config.json").exists()


def test_micro_batches_make_no_difference(model: Path, text: Path) -> None:
    texts = read_texts(model, [text], 10_000)
    found = []
    for size in (1, 4):
        run = MaskRun(fast(micro_batch_size=size, model=model), texts)
        values = [run.step(step) for step in (1, 2, 3)]
        found.append((run.gates.log_alpha.detach(), values[-1]["loss"]))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4)


def test_the_target_warms_up(model: Path, text: Path) -> None:
    run = MaskRun(fast(model=model, warmup_steps=4), read_texts(model, [text], 1000))
    assert [round(run.find_target(step), 4) for step in (1, 2, 4, 9)] == [0.925, 0.85, 0.7, 0.7]


# Sizes.


def test_sizes_are_the_best_of_all() -> None:
    """Against all combinations, one by one."""
    shape = replace(
        OPENBA_V1, encoder_layers=4, decoder_layers=5, hidden_size=64, heads=4, groups=4,
        head_size=16, inner_size=160, vocabulary_size=100,
    )  # fmt: skip
    gates = Gates(shape)
    with torch.no_grad():
        gates.log_alpha.copy_(torch.linspace(-3, 3, len(gates.log_alpha)))
    expected = find_expected(gates)
    grid = make_gate_grid(shape, find_family("openba"))
    whole = count_parameters(shape).distinct
    for share in (0.3, 0.55, 0.8):
        sizes, parameters = choose_sizes(shape, grid, expected, share * whole)
        best = np.inf
        for encoder in grid.values["encoder_layers"]:
            for decoder in grid.values["decoder_layers"]:
                for hidden, heads in grid.pairs:
                    for inner in grid.values["ffn"]:
                        small = replace(
                            shape, encoder_layers=encoder, decoder_layers=decoder,
                            hidden_size=hidden, heads=heads, groups=heads, inner_size=inner,
                        )  # fmt: skip
                        count = count_parameters(small).distinct
                        if count > share * whole:
                            continue
                        named = {"encoder_layers": encoder, "decoder_layers": decoder,
                                 "hidden": hidden, "heads": heads, "ffn": inner}  # fmt: skip
                        away = np.std([np.log(named[n] / expected[n]) for n in expected])
                        rank = round(float(away) - np.log(count / (share * whole)), 9)
                        if rank < best:
                            best, chosen, leaves = rank, named, count
        assert {name: getattr(sizes, name) for name in chosen} == chosen
        assert parameters == leaves


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_sizes_are_what_a_family_can_say(name: str, tmp_path: Path) -> None:
    shape = read_shape(save_model(name, tmp_path))
    family = find_family(name)
    gates = Gates(shape, shared_heads=family.shared_heads, start=0.0)
    grid = make_gate_grid(shape, family)
    whole = count_parameters(shape).distinct
    sizes, parameters = choose_sizes(shape, grid, find_expected(gates), 0.6 * whole)
    plan = Plan(model_type=name, shape=shape)
    _, small = add_chosen_stage(plan, sizes, scores=draw_scores(shape, 0), method="learned")
    assert count_parameters(small).distinct == parameters <= 0.6 * whole


# Bad input.


def test_what_cannot_be(tmp_path: Path, model: Path, text: Path) -> None:
    out = tmp_path / "out"
    read = ["--data", text]
    check_line(
        learn(model, out, *read, "--target", "params=1%"), "no sizes come down to", "nearest"
    )
    check_line(learn(model, out, *read, "--target", "params=9B"), "must be below the")
    check_line(learn(model, out, *read, "--target", "memory_mb=9"), "must be params=VALUE")
    check_line(learn(model, out, *read, "--target", "params=x"), "params must be a number")
    check_line(learn(model, out, *read, "--set", 'dimensions=["depth"]'), "must be some of layers")
    check_line(learn(model, out, *read, "--set", "fused=on"), "no CUDA device")
    check_line(learn(model, out, *read, "--set", "device.sharding=full"), "must be none")
    check_line(learn(model, out, *read, "--recipe", "tiny"), "RECIPE must be one of")
    check_line(learn(model, out, "--data", tmp_path / "none"), "none")
    check_line(learn(tmp_path / "nowhere", out, *read), "no such folder of a model")
    (tmp_path / "empty.txt").write_text("\n")
    check_line(learn(model, out, "--data", tmp_path / "empty.txt"), "holds no texts")
    check_line(learn(tmp_path, out, *read), str(tmp_path))
    assert not (out / "plan.json").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "plan.json").write_text("{}")
    check_line(learn(model, tmp_path / "own", *read), "no link of a run")
    assert (tmp_path / "own" / "plan.json").read_text() == "{}"
    plan = ["compression", "plan", model, tmp_path / "plan", "--ffn", 5, "--choose", "learned"]
    check_line(run_here(*plan), "learned needs --scores")
    check_line(run_here(*plan, "--scores", tmp_path / "s"), "learned scores come from")


def test_another_recipe_or_text_is_refused(tmp_path: Path, model: Path, text: Path) -> None:
    out = tmp_path / "out"
    learn_masks(fast(loop__steps=1), text, out, model=model)
    with pytest.raises(FileExistsError, match="target"):
        learn_masks(fast(loop__steps=1, target="params=80%"), text, out, model=model)
    other = tmp_path / "other.txt"
    other.write_text("Otto met Ada in Kelp\n" * 9)
    with pytest.raises(FileExistsError, match=r"fingerprint|tokens|rows"):
        learn_masks(fast(loop__steps=1), other, out, model=model)


def test_a_text_that_is_too_short(tmp_path: Path) -> None:
    folder = save_model("gpt2", tmp_path / "gpt2")
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "a": 1, "b": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="?").save_pretrained(folder)
    short = tmp_path / "short.txt"
    short.write_text("a\n")
    check_line(learn(folder, tmp_path / "out", "--data", short), "short.txt", "too short")


def test_a_tokenizer_that_names_another_class(tmp_path: Path, model: Path, text: Path) -> None:
    """What is read is what the model's own class makes of it; nothing of the name is run."""
    other = tmp_path / "other"
    shutil.copytree(model, other)
    settings = json.loads((other / "tokenizer_config.json").read_text())
    for name in ("PreTrainedTokenizerFast", "Mine"):
        changed = {**settings, "tokenizer_class": name, "auto_map": {"AutoTokenizer": ["a.Mine"]}}
        (other / "tokenizer_config.json").write_text(json.dumps(changed))
        assert read_texts(other, [text], 500).rows == read_texts(model, [text], 500).rows


def test_a_gate_that_is_no_number(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real NaN, as a loss that overflows would leave it: one line, and the state before stays."""
    step: Callable[[MaskRun, int], Any] = MaskRun.step

    def spoil(run: MaskRun, number: int) -> Any:
        found = step(run, number)
        if number == 3:
            place = run.gates._places["decoder_ffn"].begin
            with torch.no_grad():
                run.gates.log_alpha[place] = float("nan")
        return found

    monkeypatch.setattr(MaskRun, "step", spoil)
    out = tmp_path / "out"
    sets = ["--set", "loop.save_every_seconds=0", "--set", "batch_size=4"]
    found = learn(model, out, "--data", text, "--steps", 5, *sets)
    check_line(found, "step 4", "a gate of decoder_ffn is no finite number")
    assert not (out / "plan.json").exists()
    # A run that goes on from its last whole state ends.
    monkeypatch.setattr(MaskRun, "step", step)
    shutil.rmtree(out / "states" / "step-3", ignore_errors=True)
    code, _, errors = learn(model, out, "--data", text, "--steps", 5, *sets)
    assert code == 0, errors


def test_a_model_that_gives_no_number(tmp_path: Path, text: Path) -> None:
    folder = save_pair(tmp_path / "model")
    spoilt = load_model(folder)
    with torch.no_grad():
        spoilt.lm_head.weight[7] = float("nan")
    spoilt.save_pretrained(folder)
    found = learn(folder, tmp_path / "out", "--data", text, "--steps", 2)
    check_line(found, f"{folder}: ", "weight is not finite")


def test_links_of_others_stay(tmp_path: Path, model: Path, text: Path) -> None:
    """A link under a name that the run gives is its own only where it names its own file."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine").write_text("mine")
    (out / "plan.json").symlink_to("../mine")
    found = learn(model, out, "--data", text, "--steps", 2)
    check_line(found, "plan.json: is there already, and no link of a run")
    assert (out / "plan.json").read_text() == "mine"
    found = learn(model, model / "out", "--data", text, "--steps", 2)
    check_line(found, "out: lies in the folder of the model that is read")


def test_a_run_stands_for_its_best_model(tmp_path: Path, model: Path, text: Path) -> None:
    """A run that trains weights leaves a model, from which another run begins."""
    run, given = tmp_path / "run", ["--data", text, "--steps", 2]
    sets = ["--set", "trains_weights=true", "--set", "schedule.warmup_steps=0"]
    assert learn(model, run, *given, *sets)[0] == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    plans = []
    for source in (run, run / "best"):
        out = tmp_path / f"of-{source.name}"
        found = learn(source, out, *given)
        assert found[0] == 0, found
        plans.append((out / "plan.json").read_bytes())
        check_line(learn(source, run, *given, "--no-resume"), "the output is an input too")
    assert plans[0] == plans[1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_fewer_steps_than_the_target_takes(
    tmp_path: Path, model: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gates were never held to the target; the plan is under it all the same."""
    result = learn_masks(fast(warmup_steps=12), text, tmp_path / "few", model=model, progress=True)
    whole = count_parameters(read_shape(model)).distinct
    held = round((1 - 6 / 12 * 0.3) * whole)
    lines = [line for line in capsys.readouterr().err.splitlines() if "warmup_steps" in line]
    assert result.parameters <= 0.7 * whole
    [line] = lines
    assert line.startswith("loop.steps is 6 and warmup_steps 12: gates are held to ")
    told, most = (int(n.replace(",", "")) for n in re.findall(r"[0-9,]+(?= param|$)", line))
    assert abs(told - held) <= 2
    assert abs(most - 0.7 * whole) <= 1
    learn_masks(fast(warmup_steps=6), text, tmp_path / "enough", model=model, progress=True)
    assert "warmup_steps" not in capsys.readouterr().err


def test_settings_of_a_run() -> None:
    with pytest.raises(ValueError, match="metric must be loss"):
        change(tiny_masks(), {"loop.metric": "loss_S"})
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        change(tiny_masks(), {"device.precision": "float16"})
