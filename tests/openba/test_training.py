"""Training of OpenBA: its loss, going on after a kill, validation, and what is refused."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import warm
from lmcore.openba import IndexedDataset, IndexedWriter, OpenBAForConditionalGeneration
from lmcore.openba.models import load_model
from lmcore.openba.objective import measure_losses, sum_losses
from lmcore.openba.recipes import DENOISERS
from lmcore.openba.training import OpenBARun, train
from lmcore.ops.denoising import denoise_batch
from lmcore.training.config import change
from lmcore.training.seeding import seed_torch
from tiny_runs import LENGTH, SMALL, make_texts, make_tokenizer, small

GIVEN: dict[str, Any] = {"tokenizer": make_tokenizer(), "valid": make_texts(3, seed=1)}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def best_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "best" / "model.safetensors")


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def define_loss(run: OpenBARun, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean over the labels of a step, sample by sample as transformers computes it."""
    sums = torch.zeros(7)
    counts = torch.zeros(7)
    for batch in run.batches(step):
        for row in range(len(batch.tasks)):
            source = torch.from_numpy(batch.encoder[row, : batch.encoder_lengths[row]])
            target = torch.from_numpy(batch.labels[row, : batch.decoder_lengths[row]])
            mean = run.model(source[None], labels=target[None]).loss
            sums[batch.tasks[row]] += mean.detach() * len(target)
            counts[batch.tasks[row]] += len(target)
    parts = {f"loss_{DENOISERS[i]}": sums[i] / counts[i] for i in range(7) if counts[i]}
    return sums.sum() / counts.sum(), parts


# A step.


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_that_of_transformers(grouping: bool, tied: bool) -> None:
    """Whatever the micro-batches are; and so are the weights after the step."""
    ends = []
    for size in (1, 5, 12):
        config = small(**{"shape.dropout": 0.0, "micro_batch_size": size}, grouping=grouping)
        config = change(config, {"tied": tied})
        run = OpenBARun(config, make_texts(), **GIVEN)
        with torch.no_grad():
            expected, parts = define_loss(run, 1)
        values = run.step(1)
        assert float(values["loss"]) == pytest.approx(float(expected), abs=1e-6)
        for name, value in parts.items():
            assert float(values[name]) == pytest.approx(float(value), abs=1e-5)
        assert {n for n in values if n.startswith("loss_")} == set(parts)
        batches = run.batches(1)
        used = sum(int(b.encoder_lengths.sum() + b.decoder_lengths.sum()) for b in batches)
        assert int(values["tokens"]) == used
        if not grouping:
            assert {b.encoder.shape[1] for b in batches} == {LENGTH + 2}
            assert {b.decoder.shape[1] for b in batches} == {run.lengths[1] + 1}
        run.step(2)
        ends.append([p.detach() for p in run.model.parameters()])
        shared = run.model.lm_head.weight is run.model.encoder.embed_tokens.weight
        assert shared == tied
    for other in ends[1:]:
        # Adam divides by the gradient: what is about zero may turn.
        assert max((a - b).abs().max().item() for a, b in zip(ends[0], other, strict=True)) < 1e-3


def test_grouped_and_padded_steps_are_one_step() -> None:
    """The same samples; without dropout the gradients are the same up to rounding."""
    found = []
    for grouping in (True, False):
        run = OpenBARun(small(**{"shape.dropout": 0.0}, grouping=grouping), make_texts(), **GIVEN)
        losses = [float(run.step(step)["loss"]) for step in (1, 2, 3)]
        found.append(losses)
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_recomputed_blocks_give_the_same_weights() -> None:
    ends = []
    for recompute in (False, True):
        run = OpenBARun(small(**{"device.recompute": recompute}), make_texts(), **GIVEN)
        for step in (1, 2):
            run.step(step)
        ends.append([p.detach() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(precision: str) -> None:
    whole = OpenBARun(small(), make_texts(), **GIVEN)
    half = OpenBARun(small(**{"device.precision": precision}), make_texts(), **GIVEN)
    for step in (1, 2, 3):
        expected, values = whole.step(step), half.step(step)
        assert float(values["loss"]) == pytest.approx(float(expected["loss"]), abs=0.05)
    assert half.validate()["loss"] == pytest.approx(whole.validate()["loss"], abs=0.05)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_first_weights_are_megatrons() -> None:
    changes = {"shape.hidden_size": 64, "shape.ffn_hidden_size": 128, "shape.decoder_layers": 8}
    model = OpenBARun(small(**changes), make_texts(), **GIVEN).model
    weights = model.state_dict()
    assert float(weights["encoder.embed_tokens.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(weights["lm_head.weight"], weights["encoder.embed_tokens.weight"])
    for name, expected in (
        ("decoder.block.0.self_attn.qkv", 0.02), ("decoder.block.0.mlp.fc_in", 0.02),
        ("decoder.block.3.mlp.fc_out", 0.02 / 4), ("decoder.block.3.inter_attn.o", 0.02 / 4),
        ("encoder.block.0.self_attn.o", 0.02 / math.sqrt(2)),
    ):  # fmt: skip
        assert float(weights[f"{name}.weight"].std()) == pytest.approx(expected, rel=0.08), name


def test_denoisers_and_prefixes_are_chosen() -> None:
    run = OpenBARun(small(denoisers=("S", "R3"), prefixes=False), make_texts(), **GIVEN)
    values = run.step(1)
    assert {n for n in values if n.startswith("loss_")} == {"loss_R3", "loss_S"}
    prefixes = {*make_tokenizer().prefix_ids.values()}
    assert not prefixes & {*np.concatenate([b.encoder.ravel() for b in run.batches(1)]).tolist()}
    assert set(run.validate()) == {"loss", *(f"loss_{name}" for name in DENOISERS)}


# Validation.


def test_validation_measures_each_text_under_each_denoiser() -> None:
    run = OpenBARun(small(validation_texts=2), make_texts(), **GIVEN)
    for step in (1, 2, 3):
        run.step(step)
    metrics = run.validate()
    run.model.eval()
    texts = GIVEN["valid"][:2]
    for task, name in enumerate(DENOISERS):
        total = count = 0.0
        for row in range(2):
            batch = denoise_batch(
                texts[row : row + 1], [row], seed=0, denoisers=run.denoisers, ids=run.ids,
                tasks=[task],
            )  # fmt: skip
            assert (
                int(batch.encoder[0, 0])
                == {"R": 0, "S": 1, "X": 2}[name[0]] + (make_tokenizer().prefix_ids["<R>"])
            )
            with torch.no_grad():
                total += float(sum_losses(run.model, batch))
            count += int(batch.decoder_lengths[0])
        assert metrics[f"loss_{name}"] == pytest.approx(total / count, abs=1e-5)
    assert metrics["loss"] == pytest.approx(sum(metrics[f"loss_{n}"] for n in DENOISERS) / 7)
    for size in (1, 100):
        again = measure_losses(
            run.model, texts, denoisers=run.denoisers, ids=run.ids, batch_size=size
        )
        assert again == pytest.approx(metrics, abs=1e-5)
    with torch.no_grad():
        next(run.model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError, match="is not finite; a smaller lr may help"):
        run.validate()


def test_the_best_model_is_what_validation_saw(tmp_path: Path) -> None:
    config = small(**{"loop.steps": 12, "loop.validate_every_steps": 4, "loop.metric": "loss_S"})
    result = train(config, make_texts(), tmp_path, **GIVEN)
    values = [line["metrics"]["loss_S"] for line in result.history if "metrics" in line]
    assert result.best_value == min(values)
    assert values[-1] < values[0]
    assert (tmp_path / "best").resolve().name == f"step-{result.best_step}"
    model = OpenBAForConditionalGeneration.from_pretrained(tmp_path / "best").eval()
    run = OpenBARun(config, make_texts(), **GIVEN)
    found = measure_losses(model, GIVEN["valid"], denoisers=run.denoisers, ids=run.ids)
    assert found["loss_S"] == pytest.approx(result.best_value, abs=1e-6)
    # The released names: one matrix, written twice.
    names = load_file(tmp_path / "best" / "model.safetensors")
    assert torch.equal(names["shared_embedding.weight"], names["lm_head.weight"])
    assert not model.config.tie_word_embeddings
    # It goes on where the first one ended, with the tokenizer of its folder.
    more = train(small(), make_texts(), tmp_path / "more", model=tmp_path)
    assert more.history[0]["loss"] < result.history[0]["loss"] - 0.3


def test_without_validation_texts_the_last_model_is_kept(tmp_path: Path) -> None:
    result = train(small(), make_texts(), tmp_path, tokenizer=make_tokenizer())
    assert (result.best_step, result.best_value, result.steps_per_epoch) == (5, None, 2)
    assert (tmp_path / "best").resolve().name == "step-5"


# A run.


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = train(small(), make_texts(), tmp_path / "whole", **GIVEN)
    assert (whole.steps, whole.resumed_after) == (5, 0)
    for killed in (2, 5):
        out = tmp_path / str(killed)
        with pytest.MonkeyPatch.context() as patch:
            step = OpenBARun.step

            def dying(run: OpenBARun, number: int, step: Any = step, killed: int = killed) -> Any:
                if number == killed:
                    raise RuntimeError("killed")
                return step(run, number)

            patch.setattr(OpenBARun, "step", dying)
            with pytest.raises(RuntimeError, match="killed"):
                train(small(), make_texts(), out, **GIVEN)
        again = train(small(), make_texts(), out, **GIVEN)
        assert again.resumed_after == killed - 1
        assert without_times(again.history) == without_times(whole.history)
        one, two = best_weights(tmp_path / "whole"), best_weights(out)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from lmcore.openba.training import OpenBARun, train
from tiny_runs import make_texts, make_tokenizer, small
step = OpenBARun.step
def dying(run, number):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(run, number)
OpenBARun.step = dying
train(small(), make_texts(), sys.argv[1], tokenizer=make_tokenizer(), valid=make_texts(3, seed=1))
"""


def test_kill_nine(tmp_path: Path) -> None:
    whole = train(small(), make_texts(), tmp_path / "whole", **GIVEN)
    out = tmp_path / "killed"
    assert warm.start(KILLED, out, stdout=None, stderr=None).wait() == -signal.SIGKILL
    again = train(small(), make_texts(), out, **GIVEN)
    assert (again.resumed_after, again.best_value) == (3, whole.best_value)
    assert again.history[3]["loss"] == whole.history[3]["loss"]
    one, two = best_weights(tmp_path / "whole"), best_weights(out)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    step = OpenBARun.step

    def breaking(run: OpenBARun, number: int) -> Any:
        if number == 3:
            with torch.no_grad():
                run.model.decoder.block[0].mlp.fc_out.weight[0, 0] = float("nan")
        return step(run, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenBARun, "step", breaking)
        with pytest.raises(FloatingPointError, match="of step 3 is not finite"):
            train(small(), make_texts(), tmp_path, **GIVEN)
    # Nothing is lost: it goes on from the step before.
    assert train(small(), make_texts(), tmp_path, **GIVEN).resumed_after == 2


# What is refused.


def test_another_run_is_refused(tmp_path: Path) -> None:
    train(small(), make_texts(), tmp_path, **GIVEN)
    longer = small(**{"loop.steps": 6, "device.recompute": True})
    assert train(longer, make_texts(), tmp_path, **GIVEN).resumed_after == 5
    other = make_texts().copy()
    other[3, 3] += 1
    for changed, given in (
        ({"data": make_texts(19)}, "data.texts is 20 there and 19 here"),
        ({"data": other}, "data.fingerprint"),
        ({"valid": make_texts(3, seed=2)}, "data.fingerprint"),
        ({"valid": None}, "data.valid_texts is 3 there and 0 here"),
        ({"config": change(longer, {"grouping": False})}, "config.grouping is true there"),
        ({"config": change(longer, {"shape.heads": 1})}, "config.shape.heads is 2 there"),
    ):
        call: Any = {"config": longer, "data": make_texts(), "out": tmp_path, **GIVEN, **changed}
        with pytest.raises(FileExistsError, match=f"holds another run: {given}"):
            train(**call)


def test_bad_texts_and_models(tmp_path: Path) -> None:
    out = tmp_path / "run"
    size = len(make_tokenizer())
    for text, error, given in (
        (r"texts must be \[texts, 40\]: got \[20, 39\]", ValueError, make_texts()[:, :39]),
        (r"texts must be \[texts, 40\]: got \[0, 40\]", ValueError, make_texts()[:0]),
        ("texts must be of whole numbers: got float64", TypeError, make_texts().astype(float)),
        (
            rf"texts: expected ids below {size}, .*: got {size} at position 39 of text 19",
            IndexError, np.where(np.arange(800).reshape(20, 40) == 799, size, make_texts()),
        ),
        ("got -1 at position 0 of text 0", IndexError, np.full((2, 40), -1)),
        ("none.idx: No such file|No such file or directory", OSError, tmp_path / "none"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):  # type: ignore[call-overload]
            train(small(), given, out, tokenizer=make_tokenizer())
    for name, items in (
        ("short", [([5] * 40, ()), ([5] * 39, ())]),
        ("target", [([5] * 40, ()), ([5] * 40, [6])]),
        ("empty", []),
    ):
        with IndexedWriter(tmp_path / name, vocabulary_size=size) as writer:
            for source, target in items:
                writer.add(source, target)
    for name, text in (
        ("short", "short.idx: expected texts of 40 tokens, .*: got 39 in item 1"),
        ("target", "target.idx: expected texts alone, got a target in item 1"),
        ("empty", "empty.idx: it holds no texts"),
    ):
        for data in (tmp_path / name, IndexedDataset(tmp_path / name)):
            with pytest.raises(ValueError, match=text):
                train(small(), data, out, tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="a tokenizer must be given where no model is named"):
        train(small(), make_texts(), out)
    with pytest.raises(ValueError, match="none: no such folder of a model"):
        train(small(), make_texts(), out, model=tmp_path / "none", tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="decoder_length must be at least 28 for texts of 40"):
        train(small(decoder_length=20), make_texts(), out, tokenizer=make_tokenizer())
    assert not out.exists()


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    train(small(**{"loop.steps": 1}), make_texts(), tmp_path / "run", tokenizer=make_tokenizer())
    model, size = tmp_path / "run" / "best", len(make_tokenizer())
    more = make_tokenizer().__class__.from_pretrained(model)
    more.add_tokens([f"more{n}" for n in range(200)])
    text = f"the tokenizer has {size + 200} tokens, and the model has {-(-size // 128) * 128} embed"
    with pytest.raises(ValueError, match=text):
        train(small(), make_texts(), tmp_path / "more", model=model, tokenizer=more)
    loaded = load_model(model)
    with torch.no_grad():
        loaded.lm_head.weight[3, 3] += 1
    loaded.save_pretrained(tmp_path / "apart")
    given: Any = {"model": tmp_path / "apart", "tokenizer": make_tokenizer()}
    with pytest.raises(ValueError, match="tied must be false: the model's embedding and its outpu"):
        train(small(), make_texts(), tmp_path / "more", **given)
    apart = small(tied=False, **{"loop.steps": 1})
    train(apart, make_texts(), tmp_path / "more", **given)
    weights = best_weights(tmp_path / "more")
    assert not torch.equal(weights["shared_embedding.weight"], weights["lm_head.weight"])


def test_texts_are_not_overwritten(tmp_path: Path) -> None:
    train(small(**{"loop.steps": 1}), make_texts(), tmp_path, tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="the output is an input too"):
        train(small(), make_texts(), tmp_path, model=tmp_path / "best", resume=False)


def test_a_packed_file_gives_the_weights_of_its_rows(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "texts", vocabulary_size=len(make_tokenizer())) as writer:
        for row in make_texts():
            writer.add(row)
    train(small(), make_texts(), tmp_path / "rows", **GIVEN)
    train(small(), tmp_path / "texts", tmp_path / "file", **GIVEN)
    one, two = best_weights(tmp_path / "rows"), best_weights(tmp_path / "file")
    assert all(torch.equal(one[name], two[name]) for name in one)
    recipe = json.loads((tmp_path / "file" / "recipe.json").read_text())
    assert recipe["data"]["path"] == str(tmp_path / "texts")
    assert recipe["data"]["tokens"] == 800
    assert recipe["config"]["shape"]["hidden_size"] == SMALL["shape.hidden_size"]


def test_micro_batches_have_their_own_dropout() -> None:
    """Draws of whoever computed before do not matter."""
    losses = []
    for extra in (0, 5):
        run = OpenBARun(small(), make_texts(), **GIVEN)
        seed_torch(0)
        torch.rand(extra)
        losses.append(float(run.step(1)["loss"]))
    assert losses[0] == losses[1]
