"""Training on chains: both losses, anchors of several steps, going on after a kill, processes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tiny_chains
import workers
from lmcore.detox import anchor_window
from lmcore.detox.anchors import Anchors, contrast
from lmcore.detox.recipes import TrainConfig, released, tiny
from lmcore.detox.training import ChainRun, train
from lmcore.training.config import change
from lmcore.training.models import load_model, load_tokenizer

ROWS = tiny_chains.make_rows(9)
SMALL: dict[str, Any] = {
    "batch_size": 5, "micro_batch_size": 2, "anchor_batch_size": 3, "optimizer.lr": 0.01,
    "max_chain_tokens": 120, "contrastive.anchor_tokens": 6, "warmup_share": 0.0,
    "contrastive.max_continuation_tokens": 8, "contrastive.refresh_every_steps": 3,
    "device.device": "cpu", "device.threads": 1, "loop.steps": 5, "loop.log_every_steps": 1,
    "loop.validate_every_steps": 5, "loop.save_every_seconds": 0.0,
}  # fmt: skip
KINDS = ["gpt2 lora", "t5"]


def small(kind: str = "", **changes: Any) -> TrainConfig:
    more = {"lora.rank": 2, "lora.dropout": 0.1} if "lora" in kind else {}
    return change(TrainConfig(), {**SMALL, **more, **changes})


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
        "gpt2": tiny_chains.save("gpt2", place / "gpt2", dropout=0.1),
        "t5": tiny_chains.save("t5", place / "t5", dropout=0.1),
        "still": tiny_chains.save("gpt2", place / "still"),  # without dropout
    }


def best_weights(folder: Path) -> dict[str, Tensor]:
    (file,) = (folder / "best").glob("*model.safetensors")
    return load_file(file)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_the_losses(kind: str, tmp_path: Path) -> None:
    """A step is one of Adam on the cross entropy of all tokens, and the mean term of all groups."""
    folder = tiny_chains.save(kind, tmp_path)
    config = small(model=str(folder), **{"contrastive.weight": 0.5, "optimizer.clip_norm": None})
    run = ChainRun(config, ROWS)
    items = [run.encoded[index] for index in run.batches.find(1, slice(5))]
    batch = run.collator.pad(items)
    seen: dict[str, Tensor] = {}

    def look() -> None:
        for name, parameter in run.model.named_parameters():
            seen[name] = parameter.grad.clone()

    run.optimizer.update = lambda step: look()  # type: ignore[method-assign]
    values = run.step(1)
    run.optimizer.adam.zero_grad()
    loss = run.model(**{n: batch[n] for n in ("input_ids", "attention_mask", "labels")}).loss
    anchors = run.anchors.find([(1, row) if i.has_group else None for row, i in enumerate(items)])
    term = contrast(run.model, batch, anchors, config.contrastive)
    assert len(term) == values["groups"] == sum(len(item.continuations) > 1 for item in items)
    assert values["cross_entropy"].item() == pytest.approx(loss.item(), abs=1e-5)
    assert values["contrastive"].item() == pytest.approx(term.mean().item(), abs=1e-5)
    assert values["loss"].item() == pytest.approx(loss.item() + 0.5 * term.mean().item(), abs=1e-5)
    (loss + 0.5 * term.mean()).backward()
    largest = 0.0
    for name, parameter in run.model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, seen[name], atol=1e-5), name
        largest = max(largest, parameter.grad.abs().max().item())
    assert largest > 0.01
    assert run.model.training


def test_the_term_changes_what_is_learnt(folders: dict[str, Path], tmp_path: Path) -> None:
    """It really runs, for the paper's form and the released one."""
    found = []
    for number, config in enumerate(
        [small(), small(**{"contrastive.weight": 0.0}), released(small())]
    ):
        result = train(config, ROWS, tmp_path / str(number), model=folders["still"])
        assert result.groups == 7
        assert ("contrastive" in result.history[0]) == (config.contrastive.weight > 0)
        found.append(best_weights(tmp_path / str(number))["transformer.h.0.attn.c_attn.weight"])
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (found[0] - found[2]).abs().max() > 1e-3


def test_a_term_that_cannot_run_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """The released scripts go on without a word: what one writes the other does not read."""
    lost = [{k: v for k, v in row.items() if k != "cont_generation"} for row in ROWS]
    with pytest.raises(ValueError, match="none has a clean and a toxic continuation"):
        train(small(), lost, tmp_path / "a", model=folders["gpt2"])
    without = small(**{"contrastive.weight": 0.0, "loop.steps": 1})
    plain = train(without, lost, tmp_path / "b", model=folders["gpt2"])
    assert (plain.groups, str(plain.counts)) == (0, "")
    few = train(small(**{"loop.steps": 1}), ROWS[:4], tmp_path / "c", model=folders["gpt2"])
    assert (few.groups, few.counts.without_negatives) == (3, 1)
    assert str(few.counts) == "of 4 rows: 1 chains have no toxic continuation to contrast with"


def test_anchors_are_sampled_every_few_steps(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all steps of a window, by the model at its beginning, whatever the batches are."""
    kept: dict[int, list[Any]] = {3: [], 100: []}
    calls: list[int] = []
    sample = anchor_window.sample_anchors

    def count(model: Any, batch: Any, noise: Tensor, *rest: Any, **more: Any) -> Anchors:
        calls.append(len(noise))
        return sample(model, batch, noise, *rest, **more)

    monkeypatch.setattr(anchor_window, "sample_anchors", count)
    for size in (3, 100):
        run = ChainRun(small(model=str(folders["still"]), anchor_batch_size=size), ROWS)
        sampled = []
        for step in range(1, 8):
            calls.clear()
            run.step(step)
            sampled.append(sum(calls))
            kept[size].append(dict(run.anchors.known))
        assert [bool(number) for number in sampled] == [True, False, False] * 2 + [True]
        assert sampled[0] == len(kept[size][0])
        assert {step for step, _ in kept[size][0]} == {1, 2, 3}
        assert {step for step, _ in kept[size][6]} == {7, 8, 9}
    assert kept[3] == kept[100]
    own = [row[0] for row in kept[3][0].values()]
    assert len({tuple(row) for row in own}) > len(own) // 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Within a window of anchors and at its beginning, with dropout."""
    config, model = small(kind), folders[kind.split()[0]]
    whole = train(config, ROWS, tmp_path / "whole", valid=ROWS[:4], model=model)
    step = ChainRun.step
    for killed in (3, 4):
        out = tmp_path / str(killed)

        def dying(run: ChainRun, number: int, killed: int = killed) -> Any:
            if number == killed:
                raise RuntimeError("killed")
            return step(run, number)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ChainRun, "step", dying)
            with pytest.raises(RuntimeError, match="killed"):
                train(config, ROWS, out, valid=ROWS[:4], model=model)
        again = train(config, ROWS, out, valid=ROWS[:4], model=model)
        assert again.resumed_after == killed - 1
        assert again.best_value == whole.best_value
        one, two = best_weights(tmp_path / "whole"), best_weights(out)
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_validation_is_the_mean_of_all_tokens(folders: dict[str, Path]) -> None:
    run = ChainRun(small(model=str(folders["gpt2"])), ROWS, ROWS[:5])
    (value,) = run.validate().values()
    run.model.eval()
    batch = run.collator.pad(item for item in run.collator.encode(ROWS[:5]) if item)
    with torch.no_grad():
        loss = run.model(**{n: batch[n] for n in ("input_ids", "attention_mask", "labels")}).loss
    assert value == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_a_saved_model_is_the_trained_one(
    save: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    config = small("lora", **{"lora.save": save, "lora.targets": ("c_attn",)})
    result = train(config, ROWS, tmp_path, valid=ROWS[:5], model=folders["gpt2"])
    assert (tmp_path / "best" / "adapter_config.json").exists() == (save == "adapter")
    model, tokenizer = load_model(tmp_path), load_tokenizer(tmp_path)
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    run = ChainRun(small(model=str(tmp_path / "again")), ROWS, ROWS[:5])
    assert run.validate()["loss"] == pytest.approx(result.best_value, abs=1e-5)


def test_a_model_from_nothing_learns(tmp_path: Path) -> None:
    sizes = {"scratch.hidden_size": 32, "scratch.heads": 2, "scratch.vocabulary": 400}
    config = change(tiny(), {**SMALL, **sizes, "loop.steps": 40, "loop.validate_every_steps": 40})
    result = train(config, ROWS, tmp_path, valid=ROWS)
    assert result.best_value is not None
    assert result.best_value < result.history[0]["cross_entropy"] / 3
    first, last = (result.history[place]["contrastive"] for place in (0, -1))
    assert last < first
    assert last > math.log1p(math.exp(-2)) - 1e-6


TOGETHER = """
import json, os, sys
import torch
torch.set_num_threads(1)
from lmcore.detox.recipes import TrainConfig
from lmcore.detox.training import train
from lmcore.training.config import change
import tiny_chains
torch.distributed.init_process_group("gloo")
rows = tiny_chains.make_rows(9)
out = {}
for name, model, changes in json.loads(sys.argv[2]):
    config = change(TrainConfig(), changes)
    result = train(config, rows, f"{sys.argv[1]}/{name}", valid=rows[:5], model=model)
    out[name] = [result.best_value, [line["loss"] for line in result.history]]
print(json.dumps(out))
"""


def test_two_processes_train_as_one(folders: dict[str, Path], tmp_path: Path) -> None:
    """Also with sharded weights, where both generate and contrast as often."""
    base = {**SMALL, "batch_size": 4, "loop.steps": 4, "contrastive.anchor_tokens": 3}
    arms = [
        (sharding, str(folders["still"]), {**base, "device.sharding": sharding})
        for sharding in ("none", "full")
    ]
    found = [json.loads(o) for o in workers.run(TOGETHER, 2, tmp_path, json.dumps(arms))]
    assert found[0] == found[1]
    alone = change(TrainConfig(), base)
    result = train(alone, ROWS, tmp_path / "alone", valid=ROWS[:5], model=folders["still"])
    for name, (value, losses) in found[0].items():
        assert value == pytest.approx(result.best_value, abs=1e-5)
        assert losses == pytest.approx([line["loss"] for line in result.history], abs=1e-5)
        one, two = best_weights(tmp_path / "alone"), best_weights(tmp_path / name)
        assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-3


# What is refused.


def test_a_model_is_not_overwritten(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(small(), ROWS, out, model=folders["t5"])
    for model in (out, out / "best"):
        with pytest.raises(ValueError, match="the output is an input too"):
            train(small(), ROWS, out, model=model, resume=False)
    assert (out / "best" / "config.json").is_file()


def test_bad_rows_and_settings(folders: dict[str, Path], tmp_path: Path) -> None:
    model, out = folders["gpt2"], tmp_path / "run"
    with pytest.raises(ValueError, match="rows must not be empty"):
        train(small(), [], out, model=model)
    with pytest.raises(ValueError, match="rows: row 1: output: missing"):
        train(small(), [ROWS[0], {}], out, model=model)
    with pytest.raises(ValueError, match="valid: row 0: expected a chain to begin"):
        train(small(), ROWS, out, valid=[{"output": "a"}], model=model)
    with pytest.raises(ValueError, match="rows: all of 9 chains are longer than max_chain_tokens"):
        train(small(max_chain_tokens=9), ROWS, out, model=model)
    with pytest.raises(ValueError, match=r"rows: row 0: has \d+ tokens, and max_chain_tokens is 9"):
        train(small(max_chain_tokens=9, long_chains="refuse"), ROWS, out, model=model)
    long = [{**row, "output": row["output"].replace("# Text: ", "# Text: " + "sea " * 150),
             "cl_template": None} for row in ROWS]  # fmt: skip
    with pytest.raises(ValueError, match="max_chain_tokens must be less: a row has"):
        train(small(max_chain_tokens=900), long, out, model=model)
    wide = {"contrastive.anchor_tokens": 150, "contrastive.max_continuation_tokens": 150}
    with pytest.raises(ValueError, match="max_template_tokens must be less: a template and its"):
        train(small(**wide), ROWS, out, model=model)
    with pytest.raises(ValueError, match="batch_size must be at least"):
        small(batch_size=0)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrastive.weight": -1.0}, "contrastive.weight must be at least 0"),
        ({"contrastive.pooling": "max"}, "contrastive.pooling must be corrected or released"),
        ({"contrastive.refresh_every_steps": 0}, "refresh_every_steps must be at least 1"),
        ({"contrastive.anchor_tokens": 9}, "anchor_tokens must be at most max_continuation_tokens"),
        ({"contrastive.top_p": 0.0}, "contrastive.top_p must be above 0"),
        ({"loop.metric": "f1"}, "loop.metric must be loss"),
        ({"loop.metric_mode": "max"}, "loop.metric must be loss, and loop.metric_mode min"),
        ({"grammar": "other"}, "grammar must be paper or student"),
        ({"scratch.heads": 3}, "hidden_size must be a multiple of the 3 heads: got 128"),
        ({"warmup_share": 0.1, "schedule.warmup_steps": 3}, "must not both be given"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
