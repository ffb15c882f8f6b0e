"""Training of GNER: the loss, going on after a kill, several processes, and that it learns."""

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_models
import warm
import workers
from lmcore.ner import Generation, predict, score
from lmcore.ner.collator import GNERCollator
from lmcore.ner.models import load_model, load_tokenizer
from lmcore.ner.recipes import RECIPES, TrainConfig, llama_7b, t5_base, t5_xxl, tiny
from lmcore.ner.training import GNERRun, train
from lmcore.ner.validation import generate_texts
from lmcore.training.config import change, config_from_dict, config_to_dict
from lmcore.training.processes import choose_precision
from lmcore.training.seeding import seed_torch

SMALL: dict[str, Any] = {
    "batch_size": 6,
    "micro_batch_size": 4,
    "max_source_tokens": 16,
    "max_target_tokens": 8,
    "optimizer.lr": 0.02,
    "device.device": "cpu",
    "device.threads": 1,
    "loop.steps": 5,
    "loop.validate_every_steps": 2,
    "loop.save_every_seconds": 0.0,
}
LORA: dict[str, Any] = {"lora.rank": 2}
KINDS = ["t5", "llama", "t5 lora", "llama lora"]


def small(config: TrainConfig | None = None, **changes: Any) -> TrainConfig:
    return change(config or TrainConfig(), {**SMALL, **changes})


def of(kind: str, **changes: Any) -> TrainConfig:
    return small(**(LORA if "lora" in kind else {}), **changes)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "t5": tiny_models.save("t5", place / "t5", dropout=0.1),
        "still": tiny_models.save("t5", place / "still"),  # without dropout
        "llama": tiny_models.save("llama", place / "llama"),
    }


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return tiny_models.make_rows(14)


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "best" / "model.safetensors")


# Recipes.


def test_recipes_have_the_values_of_the_paper() -> None:
    assert list(RECIPES) == [
        "tiny", "t5_small", "t5_base", "t5_large", "t5_xl", "t5_xxl", "llama_7b",
    ]  # fmt: skip
    for name, recipe in RECIPES.items():
        config = recipe()
        again = config_from_dict(TrainConfig, json.loads(json.dumps(config_to_dict(config))))
        assert again == config
        assert (config.loop.seed, config.optimizer.weight_decay) == (1234, 0.0)
        if name != "tiny":
            assert config.batch_size == 256
            assert (config.max_source_tokens, config.max_target_tokens) == (640, 640)
            assert config.device.precision == "bfloat16"
    assert [RECIPES[f"t5_{size}"]().epochs for size in ("small", "base", "large", "xl", "xxl")] == [
        20, 20, 10, 10, 6,
    ]  # fmt: skip
    assert (t5_base().optimizer.lr, t5_xxl().schedule.kind) == (5e-5, "constant")
    llama = llama_7b()
    assert (llama.optimizer.lr, llama.schedule.kind, llama.warmup_share) == (2e-5, "cosine", 0.04)
    assert (llama.epochs, llama.micro_batch_size, llama.loop.validate_every_steps) == (3, 1, 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1 and at most 2147483647: got 0"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1"),
        ({"max_source_tokens": 1}, "max_source_tokens must be at least 2"),
        ({"lora.rank": -1}, "lora.rank must be at least 0 and at most 65536: got -1"),
        ({"lora.alpha": 0.0}, "lora.alpha must be above 0"),
        ({"lora.save": "both"}, "lora.save must be merged or adapter: got 'both'"),
        ({"scratch.vocabulary": 10}, "scratch.vocabulary must be at least 300"),
        ({"scratch.decoder_layers": 3}, "decoder_layers must be at most 2, the encoder's: got 3"),
        ({"loop.metric": "loss"}, "loop.metric must be f1 or precision or recall: got 'loss'"),
        ({"loop.metric_mode": "min"}, "loop.metric_mode must be max"),
        ({"warmup_share": 1.0}, "warmup_share must be at least 0 and below 1: got 1.0"),
        (
            {"warmup_share": 0.1, "schedule.warmup_steps": 3},
            "warmup_share and schedule.warmup_steps must not both be given",
        ),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(TrainConfig(), changes)


def test_half_precision_is_for_devices_that_have_it() -> None:
    config = small(**{"device.precision": "bfloat16"}).device
    assert choose_precision(config).precision == "float32"
    half = small(**{"device.precision": "float16"}).device
    assert choose_precision(half) is half


def test_a_share_of_warm_up_becomes_steps(
    folders: dict[str, Path], rows: list[dict[str, Any]]
) -> None:
    config = small(model=str(folders["t5"]), warmup_share=0.3, **{"schedule.kind": "cosine"})
    run = GNERRun(config, rows)
    assert run.schedule.warmup_steps == 2  # of 5
    assert run.optimizer.get_lr_share(2) == 0.5


# A step.


@pytest.mark.parametrize("kind", ["still", "llama", "still lora", "llama lora"])
def test_the_loss_is_that_of_transformers(
    kind: str, folders: dict[str, Path], rows: list[dict[str, Any]]
) -> None:
    """Whatever the micro-batches are, and so are the weights after the step."""
    config = of(kind, model=str(folders[kind.split()[0]]), batch_size=14)
    ends = []
    for size in (1, 5, 14):
        run = GNERRun(change(config, {"micro_batch_size": size}), rows)
        with torch.no_grad():
            expected = run.model(**run.collator(rows)).loss
        values = run.step(1)
        assert float(values["loss"]) == pytest.approx(float(expected), abs=1e-6)
        assert int(values["tokens"]) == sum(run.counts)
        ends.append([p.detach() for p in run.model.parameters() if p.requires_grad])
    for other in ends[1:]:
        # Adam divides by the gradient: what is about zero may turn.
        assert max((a - b).abs().max().item() for a, b in zip(ends[0], other, strict=True)) < 1e-3


def test_recomputed_layers_give_the_same_weights(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for kind in KINDS:
        config = of(kind, model=str(folders[kind.split()[0]]))
        ends = []
        for recompute in (False, True):
            run = GNERRun(change(config, {"device.recompute": recompute}), rows)
            for step in (1, 2):
                seed_torch(0, step)
                run.step(step)
            ends.append([p.detach() for p in run.model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True)), kind


def test_validation_scores_what_is_generated(
    folders: dict[str, Path], rows: list[dict[str, Any]]
) -> None:
    for kind in ("t5", "llama"):
        run = GNERRun(of(kind, model=str(folders[kind]), validation_batch_size=3), rows, rows)
        # Processors round differently: after 60 steps T5 is at 0.63 on one, above 0.8 on another.
        for step in range(1, 151):
            seed_torch(0, step)
            run.step(step)
        metrics = run.validate()
        assert metrics["f1"] > 0.8
        texts = generate_texts(run.model, run.collator, run.prompts, batch_size=1)
        # Padding and batches change nothing.
        assert texts == generate_texts(run.model, run.collator, run.prompts, batch_size=14)
        examples = [{**row, "prediction": text} for row, text in zip(rows, texts, strict=True)]
        assert score(examples).mean.f1 == metrics["f1"]
        with torch.no_grad():
            next(run.model.parameters()).view(-1)[0] = float("nan")
        with pytest.raises(FloatingPointError, match="is not finite; a smaller lr may help"):
            run.validate()


# A run.


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_with_the_same_weights(
    kind: str, folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    config, model = of(kind), folders[kind.split()[0]]
    whole = train(config, rows, tmp_path / "whole", dev=rows[:3], model=model)
    assert (whole.steps, whole.resumed_after) == (5, 0)
    for killed in (2, 5):
        out = tmp_path / str(killed)
        with pytest.MonkeyPatch.context() as patch:
            step = GNERRun.step

            def dying(run: GNERRun, number: int, step: Any = step, killed: int = killed) -> Any:
                if number == killed:
                    raise RuntimeError("killed")
                return step(run, number)

            patch.setattr(GNERRun, "step", dying)
            with pytest.raises(RuntimeError, match="killed"):
                train(config, rows, out, dev=rows[:3], model=model)
        again = train(config, rows, out, dev=rows[:3], model=model)
        assert again.resumed_after == killed - 1
        assert [{k: v for k, v in line.items() if "seconds" not in k and "per" not in k}
                for line in again.history] == [
                {k: v for k, v in line.items() if "seconds" not in k and "per" not in k}
                for line in whole.history]  # fmt: skip
        one, two = best_weights(tmp_path / "whole"), best_weights(out)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    check_use(out / "best", rows[:3], whole.best_value, tmp_path / "saved")


def check_use(folder: Path, rows: list[dict[str, Any]], value: float | None, saved: Path) -> None:
    """A model that was trained predicts what its validation scored, also once it is saved again."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    inputs = tokenizer([rows[0]["instruction"]], return_tensors="pt")["input_ids"]
    most = SMALL["max_target_tokens"]
    if not model.config.is_encoder_decoder:  # what the prompt leaves of both limits
        most += SMALL["max_source_tokens"] - inputs.shape[1] - 1
    generation = Generation(max_source_tokens=SMALL["max_source_tokens"], max_new_tokens=most)
    found = list(predict(model, tokenizer, rows, generation=generation))
    assert score(found, threads=1).mean.f1 == value
    for part in (model, tokenizer):
        part.save_pretrained(saved)
    again = predict(load_model(saved), load_tokenizer(saved), rows, generation=generation)
    assert list(again) == found


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from lmcore.ner.recipes import TrainConfig
from lmcore.ner.training import GNERRun, train
from lmcore.training.config import change
import tiny_models
step = GNERRun.step
def dying(run, number):
    if number == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(run, number)
GNERRun.step = dying
rows = tiny_models.make_rows(14)
config = change(TrainConfig(), eval(sys.argv[4]))
train(config, rows, sys.argv[1], dev=rows[:3], model=sys.argv[2])
"""


def test_kill_nine(folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    config = small()
    whole = train(config, rows, tmp_path / "whole", dev=rows[:3], model=folders["t5"])
    out = tmp_path / "killed"
    given = out, folders["t5"], 4, repr(SMALL)
    killed = warm.start(KILLED, *given, stdout=None, stderr=None)
    assert killed.wait() == -signal.SIGKILL
    again = train(config, rows, out, dev=rows[:3], model=folders["t5"])
    assert (again.resumed_after, again.best_value) == (3, whole.best_value)
    one, two = best_weights(tmp_path / "whole"), best_weights(out)
    assert all(torch.equal(one[name], two[name]) for name in one)


TOGETHER = """
import json, os, sys
import torch
torch.set_num_threads(1)
from lmcore.ner.recipes import TrainConfig
from lmcore.ner.training import train
from lmcore.training.config import change
import tiny_models
# One group for all runs: torch would make the second one at the address of the first.
torch.distributed.init_process_group("gloo")
rows = tiny_models.make_rows(14)
out = {}
for kind, model, changes in json.loads(sys.argv[2]):
    config = change(TrainConfig(), changes)
    result = train(config, rows, f"{sys.argv[1]}/{kind}", dev=rows[:5], model=model)
    out[kind] = [result.steps, result.best_value, [line["loss"] for line in result.history]]
print(json.dumps(out))
"""


def test_two_processes_train_as_one(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Also with sharded weights, and with matrices of LoRA beside them."""
    arms = []
    # Without dropout, whose draws belong to each process.
    for kind, sharding in (
        ("still", "none"), ("still lora", "full"), ("llama", "full"), ("llama lora", "none"),
    ):  # fmt: skip
        changes = {**SMALL, **(LORA if "lora" in kind else {}), "device.sharding": sharding}
        arms.append((f"{kind} {sharding}", str(folders[kind.split()[0]]), changes))
    found = [json.loads(o) for o in workers.run(TOGETHER, 2, tmp_path, json.dumps(arms))]
    assert found[0] == found[1]
    for name, model, changes in arms:
        alone = change(TrainConfig(), {**changes, "device.sharding": "none"})
        out = tmp_path / f"{name} alone"
        result = train(alone, rows, out, dev=rows[:5], model=model)
        steps, value, losses = found[0][name]
        assert (steps, value) == (result.steps, result.best_value)
        assert losses == pytest.approx([line["loss"] for line in result.history], abs=1e-5)
        one, two = best_weights(out), best_weights(tmp_path / name)
        assert one.keys() == two.keys(), name
        assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-3, name
        check_use(tmp_path / name / "best", rows[:5], value, tmp_path / f"{name} saved")
        # One process goes on with what two have, sharded or not.
        again = train(alone, rows, tmp_path / name, dev=rows[:5], model=model)
        assert (again.resumed_after, again.best_value) == (steps, value), name


def test_the_best_model_is_what_validation_saw(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for save, kind in itertools.product(("merged", "adapter"), ("t5", "llama")):
        out = tmp_path / save / kind
        config = small(
            **{"lora.rank": 4, "lora.save": save, "loop.steps": 8, "loop.validate_every_steps": 4}
        )
        result = train(config, rows, out, dev=rows, model=folders[kind])
        model, tokenizer = load_model(out), load_tokenizer(out)
        collator = GNERCollator(tokenizer, model=model, max_source_tokens=16, max_target_tokens=8)
        model.eval()
        prompts = collator.encode_prompts(rows)
        texts = generate_texts(model, collator, prompts, batch_size=32)
        examples = [{**row, "prediction": text} for row, text in zip(rows, texts, strict=True)]
        assert score(examples).mean.f1 == pytest.approx(result.best_value)
        assert result.best_value == max(
            line["metrics"]["f1"] for line in result.history if "metrics" in line
        )


def test_a_model_from_nothing_learns(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    config = small(
        tiny(),
        **{"loop.steps": 80, "loop.validate_every_steps": 40, "scratch.vocabulary": 320,
           "scratch.hidden_size": 32, "optimizer.lr": 0.01, "max_target_tokens": 60,
           "max_source_tokens": 60},
    )  # fmt: skip
    result = train(config, rows, tmp_path, dev=rows)
    assert result.best_value is not None
    assert result.best_value > 0.5
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["data"]["rows"] == recipe["data"]["dev_rows"] == 14
    # It goes on where the first one ended, as training in two parts does.
    config = change(config, {"loop.steps": 2})
    more = train(config, rows, tmp_path / "more", dev=rows[:1], model=tmp_path)
    assert more.history[0]["loss"] < result.history[0]["loss"] / 2


def test_without_validation_rows_the_last_model_is_kept(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = train(small(), rows, tmp_path, model=folders["llama"])
    assert (result.best_step, result.best_value) == (5, None)
    assert (tmp_path / "best").resolve().name == "step-5"


# What is refused.


def test_another_run_is_refused(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(small(), rows, out, model=folders["t5"])
    moved = tmp_path / "moved"
    folders["t5"].joinpath("x").mkdir()
    folders["t5"].joinpath("x").rmdir()
    moved.symlink_to(folders["t5"])
    longer = small(**{"loop.steps": 6})
    assert train(longer, rows, out, model=moved).resumed_after == 5
    other = tiny_models.save("t5", tmp_path / "other", dropout=0.2)
    weights = load_model(other)
    with torch.no_grad():
        weights.shared.weight[3, 3] += 1
    weights.save_pretrained(other)
    for changed, given in (
        ({"rows": rows[:-1]}, "data.rows is 14 there and 13 here"),
        ({"rows": [*rows[:-1], rows[0]]}, "data.fingerprint"),
        ({"model": other}, "data.fingerprint"),
        ({"config": change(longer, {"lora.rank": 1})}, "config.lora.rank is 0 there and 1 here"),
        ({"config": change(longer, {"batch_size": 7})}, "config.batch_size"),
    ):
        call: Any = {"config": longer, "rows": rows, "out": out, "model": moved, **changed}
        with pytest.raises(FileExistsError, match=f"holds another run: {given}"):
            train(**call)


def test_bad_rows_and_models(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    out, model = tmp_path / "run", folders["t5"]
    with pytest.raises(ValueError, match="rows must not be empty: there is nothing to train on"):
        train(small(), [], out, model=model)
    with pytest.raises(ValueError, match=r"rows\[1\]: target is missing"):
        train(small(), [rows[0], {"instruction": "a"}], out, model=model)
    with pytest.raises(TypeError, match=r"rows\[0\]: target must be a text: got int"):
        train(small(), [{"instruction": "a", "target": 1}], out, model=model)
    bare = [{"instruction": "a", "target": "b"}]
    with pytest.raises(ValueError, match=r"dev\[0\]: words is missing, which validation compares"):
        train(small(), rows, out, dev=bare, model=model)
    with pytest.raises(ValueError, match="no such folder of a model"):
        train(small(), rows, out, model=tmp_path / "none")
    with pytest.raises(ValueError, match=r"lora\.targets: 'none' is no linear layer"):
        train(small(**{"lora.rank": 1, "lora.targets": ("none",)}), rows, out, model=model)
    long = [{**rows[0], "instruction": "Ada " * 200}]
    message = "max_source_tokens and max_target_tokens must be less: a row has 206 tokens, and the"
    with pytest.raises(ValueError, match=message):
        train(small(max_source_tokens=640), long, out, model=folders["llama"])
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda: got 'fast'"):
        train(small(**{"device.device": "fast"}), rows, out, model=model)
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens(["met2"])
    tokenizer.save_pretrained(tmp_path / "grown")
    load_model(model).save_pretrained(tmp_path / "grown")
    grown = [{**rows[0], "target": "Ada(B-person) met2"}]
    message = "tokenizer and the model do not fit: a token has the id 28, and the model has 28 emb"
    with pytest.raises(ValueError, match=message):
        train(small(), grown, out, model=tmp_path / "grown")
    assert not out.exists()


def test_what_is_cut_is_reported(
    folders: dict[str, Path],
    rows: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = small(**{"max_source_tokens": 5, "loop.steps": 1})
    result = train(config, rows, tmp_path, model=folders["t5"], progress=True)
    assert (result.truncation.sources, result.truncation.targets) == (14, 0)
    assert "14 instructions and 0 targets of 14 rows are cut" in capsys.readouterr().err


def test_data_is_not_overwritten(
    folders: dict[str, Path], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "log.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="the output is an input too"):
        train(small(), rows, tmp_path, model=folders["t5"], data_path=tmp_path / "log.jsonl")
    out = tmp_path / "run"
    train(small(), rows, out, model=folders["t5"])
    for model in (out, out / "best"):
        with pytest.raises(ValueError, match="the output is an input too"):
            train(small(), rows, out, model=model, resume=False)
    assert (out / "best" / "config.json").is_file()
