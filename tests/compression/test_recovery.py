"""Recovery of pruned models: OpenBA's own steps, D-UL2, teachers, going on, and other models."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import warm
from lmcore.compression.proportions import INITIAL, update_proportions
from lmcore.compression.recovered_models import RecoveredModel, find_model_folder
from lmcore.compression.recovery import RecoveryResult, recover
from lmcore.compression.recovery_run import RecoveryRun
from lmcore.compression.teacher import Teacher
from lmcore.compression.teaching import choose_teacher, load_teacher
from lmcore.openba import pack_files
from lmcore.openba.data import TrainData
from lmcore.openba.objective import measure_losses
from lmcore.openba.recipes import DENOISERS
from lmcore.openba.training import train
from lmcore.training.config import change
from tiny_recovery import TARGETS, TEXTS, prune, save, save_openba, settings
from tiny_runs import LENGTH, make_texts, small

VALID = make_texts(3, seed=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenBA, `large`, and what is pruned from it, `small`."""
    place: Path = tmp_path_factory.mktemp("recovery")
    save_openba(place / "large")
    prune(place / "large", place / "small", hidden=range(12), cut_decoder=[])
    return place


@pytest.fixture(scope="module")
def whole(folder: Path) -> RecoveryResult:
    """A run that nothing stopped, into `whole`, by the rule whose proportions move."""
    config = settings(proportions_rule="shipped")
    given: Any = {"model": folder / "small", "valid": VALID}
    return recover(config, make_texts(), folder / "whole", **given)


def make_run(config: Any, model: Path, **given: Any) -> RecoveryRun:
    data = TrainData(config, make_texts(), VALID)
    return RecoveryRun(config, data, RecoveredModel(model), **given)


def best_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "best" / "model.safetensors")


def are_equal(one: Path, two: Path) -> bool:
    first, second = best_weights(one), best_weights(two)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


# Steps.


def test_ul2_without_a_teacher_is_the_training_of_openba(folder: Path, tmp_path: Path) -> None:
    config = settings(objective="ul2", teacher="none")
    own = recover(config, make_texts(), tmp_path / "own", model=folder / "large", valid=VALID)
    other = train(
        small(stage=None), make_texts(), tmp_path / "other", model=folder / "large", valid=VALID
    )
    assert without_times(own.history) == without_times(other.history)
    assert are_equal(tmp_path / "own", tmp_path / "other")
    assert own.targets == own.proportions == {}


def test_recovery_lowers_the_loss(folder: Path, tmp_path: Path) -> None:
    for objective in ("ul2", "d_ul2", "o_ul2"):
        config = settings(objective=objective, **{"loop.steps": 8})
        out = tmp_path / objective
        result = recover(config, make_texts(), out, model=folder / "small", valid=VALID)
        assert result.objective == objective
        assert result.best_value is not None
        assert result.best_value < result.start_losses["loss"] - 0.2


def test_losses_before_the_first_step_are_those_of_the_pruned_model(folder: Path) -> None:
    run = make_run(settings(objective="ul2"), folder / "small")
    run.step(1)
    model = RecoveredModel(folder / "small").model
    assert run.sentinels is not None
    found = measure_losses(model, VALID, denoisers=run.denoisers, ids=run.sentinels.ids)
    assert run.start_losses == pytest.approx(found, abs=1e-6)


# D-UL2.


@pytest.mark.parametrize("rule", ["paper", "shipped"])
def test_proportions_follow_the_losses_of_the_same_texts(folder: Path, rule: str) -> None:
    config = settings(targets=TARGETS, proportions_rule=rule)
    run = make_run(config, folder / "small")
    expected = np.array(INITIAL)
    for step in range(1, 7):
        before = expected
        values = run.step(step)
        shares = [float(values[f"share_of_{name}"]) for name in DENOISERS]
        assert shares == before.tolist()
        assert [one.weight for one in run.samples.denoisers] == run.proportions.tolist()  # type: ignore[union-attr]
        if step % 2 == 0:
            assert run.sentinels is not None
            found = measure_losses(
                run.model.eval(), VALID, denoisers=run.denoisers, ids=run.sentinels.ids
            )
            losses = [found[f"loss_{name}"] for name in DENOISERS]
            expected = update_proportions(before, losses, TARGETS, rule=rule)  # type: ignore[arg-type]
        np.testing.assert_allclose(run.proportions, expected, rtol=0, atol=1e-6)
        expected = run.proportions  # type: ignore[assignment]
    # A low target is far away: what has it comes more and more often.
    assert run.proportions is not None
    assert run.proportions[0] > 2 * INITIAL[0]


def test_samples_are_drawn_with_the_proportions(folder: Path) -> None:
    one_hot = tuple(float(place == 3) for place in range(7))
    config = settings(targets=TARGETS, initial_proportions=one_hot)
    run = make_run(config, folder / "small")
    for step in (1, 2, 3):  # the paper's rule never brings back what is not drawn
        values = run.step(step)
        assert {n for n in values if n.startswith("loss_")} == {"loss_X3"}


def test_targets_are_the_losses_of_the_model_before_pruning(folder: Path, tmp_path: Path) -> None:
    config = settings(**{"loop.steps": 2})
    model = RecoveredModel(folder / "large").model
    run = make_run(settings(objective="ul2"), folder / "large")
    assert run.sentinels is not None
    found = measure_losses(model, VALID, denoisers=run.denoisers, ids=run.sentinels.ids)
    for name, more in (("taught", {}), ("alone", {"teacher": "none"})):
        given: Any = {"model": folder / "small", "valid": VALID}
        result = recover(change(config, more), make_texts(), tmp_path / name, **given)
        assert result.targets == pytest.approx(
            {name: found[f"loss_{name}"] for name in DENOISERS}, abs=1e-5
        )
        assert ("loss_distillation" in result.history[0]) == (name == "taught")


# Going on.


@pytest.mark.parametrize("more", [{}, {"distillation.hidden_weight": 0.5}], ids=["", "hidden"])
def test_a_stopped_run_ends_with_the_same_weights(
    folder: Path, whole: RecoveryResult, tmp_path: Path, more: dict[str, Any]
) -> None:
    given: Any = {"model": folder / "small", "valid": VALID}
    config = settings(proportions_rule="shipped", **more)
    if more:
        whole = recover(config, make_texts(), tmp_path / "whole", **given)
    assert whole.proportions != dict(zip(DENOISERS, INITIAL, strict=True))
    # Before the first state, or behind the last step; a kill is right behind a change of
    # proportions.
    for stopped in (3,) if more else (1, 5):
        out = tmp_path / str(stopped)
        with pytest.MonkeyPatch.context() as patch:
            step = RecoveryRun.step

            def dying(run: Any, number: int, step: Any = step, stopped: int = stopped) -> Any:
                values = step(run, number)
                if number == stopped:
                    raise RuntimeError("stopped")
                return values

            patch.setattr(RecoveryRun, "step", dying)
            with pytest.raises(RuntimeError, match="stopped"):
                recover(config, make_texts(), out, **given)
        again = recover(config, make_texts(), out, **given)
        assert again.resumed_after == stopped - 1
        assert without_times(again.history) == without_times(whole.history)
        assert (again.proportions, again.targets) == (whole.proportions, whole.targets)
        assert again.start_losses == whole.start_losses
        assert are_equal(whole.folder, out)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from lmcore.compression.recovery import recover
from lmcore.compression.recovery_run import RecoveryRun
from tiny_recovery import settings
from tiny_runs import make_texts
step = RecoveryRun.step
def dying(run, number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(run, number)
RecoveryRun.step = dying
config = settings(proportions_rule="shipped")
recover(config, make_texts(), sys.argv[2], model=sys.argv[1], valid=make_texts(3, seed=1))
"""


def test_kill_nine(folder: Path, whole: RecoveryResult, tmp_path: Path) -> None:
    given: Any = {"model": folder / "small", "valid": VALID}
    config = settings(proportions_rule="shipped")
    out = tmp_path / "killed"
    process = warm.start(KILLED, folder / "small", out, stdout=None, stderr=None)
    assert process.wait() == -signal.SIGKILL
    again = recover(config, make_texts(), out, **given)
    assert (again.resumed_after, again.proportions) == (2, whole.proportions)
    assert are_equal(whole.folder, out)


def test_a_run_that_is_done_goes_on_with_its_proportions(
    folder: Path, whole: RecoveryResult, tmp_path: Path
) -> None:
    """A longer run is one that was long from the start: what was measured once stays."""
    given: Any = {"model": folder / "small", "valid": VALID}
    longer = settings(proportions_rule="shipped")
    recover(change(longer, {"loop.steps": 4}), make_texts(), tmp_path / "half", **given)
    again = recover(longer, make_texts(), tmp_path / "half", **given)
    assert (again.resumed_after, again.proportions) == (4, whole.proportions)
    assert are_equal(whole.folder, tmp_path / "half")


# Teachers.


def test_the_teacher_is_no_part_of_the_student(folder: Path, tmp_path: Path) -> None:
    config = settings()
    teacher = load_teacher(config, folder / "large", folder / "small", "cpu")
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    run = make_run(config, folder / "small", teacher=teacher)
    values = run.step(1)
    assert float(values["loss_distillation"]) > 0
    alone = make_run(settings(teacher="none", targets=TARGETS), folder / "small")
    assert run.state_dict()["model"].keys() == alone.state_dict()["model"].keys()
    after = teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(value.requires_grad for value in teacher.model.parameters())
    run.save_model(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == (
        load_file(folder / "small" / "model.safetensors").keys()
    )


def test_who_is_its_own_teacher_has_nothing_to_learn(folder: Path) -> None:
    config = settings(objective="ul2", **{"distillation.weight": 1.0, "optimizer.clip_norm": None})
    large = RecoveredModel(folder / "large")
    large.model.eval()
    teacher = Teacher(RecoveredModel(folder / "large").model)
    run = RecoveryRun(config, TrainData(config, make_texts(), VALID), large, teacher=teacher)
    batch = run.batches(1)[0]
    run.model.eval()
    losses = run.compute(batch)
    assert float(losses.trained.detach().abs().max()) < 1e-4
    assert float(losses.shown.detach().min()) > 1
    losses.trained.sum().backward()
    assert max(float(p.grad.abs().max()) for p in run.model.parameters()) < 1e-5


def test_a_distilled_step_is_the_sum_of_its_parts(folder: Path) -> None:
    """Cross entropy and divergence by their definitions, with all logits in memory."""
    config = settings(objective="ul2", **{"distillation.weight": 0.3})
    teacher = load_teacher(config, folder / "large", folder / "small", "cpu")
    run = make_run(config, folder / "small", teacher=teacher)
    run.model.eval()
    large = RecoveredModel(folder / "large").model
    batch = run.batches(1)[1]
    with torch.no_grad():
        losses = run.compute(batch)
        mask = torch.from_numpy(batch.masks()[0])
        inputs = {"input_ids": torch.from_numpy(batch.encoder), "attention_mask": mask,
                  "decoder_input_ids": torch.from_numpy(batch.decoder)}  # fmt: skip
        own, other = (model(**inputs).logits.log_softmax(-1) for model in (run.model, large))
    counted = torch.from_numpy(batch.labels) >= 0
    divergence = ((other.exp() * (other - own)).sum(-1) * counted).sum(1)
    torch.testing.assert_close(losses.more["loss_distillation"], divergence, rtol=1e-3, atol=1e-4)
    mixed = 0.7 * losses.shown + 0.3 * divergence
    torch.testing.assert_close(losses.trained, mixed, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.shown, run.sum_losses(batch).detach(), rtol=1e-5, atol=1e-4)


def test_a_teacher_knows_more_tokens(folder: Path, tmp_path: Path) -> None:
    """What was cut of the vocabulary is found by the record; the texts have the new ids."""
    size = json.loads((folder / "large" / "config.json").read_text())["vocab_size"]
    gone = range(400, 500)
    kept = [number for number in range(size) if number not in gone]
    prune(folder / "large", tmp_path / "small", vocabulary=kept)
    (tmp_path / "a.txt").write_text(TEXTS)
    given: Any = {"model": tmp_path / "small", "valid": tmp_path / "a.txt"}
    result = recover(settings(), tmp_path / "a.txt", tmp_path / "run", **given)
    assert result.history[0]["loss_distillation"] < 1e-3  # nothing but the vocabulary is cut
    assert result.targets == pytest.approx(
        {name: result.start_losses[f"loss_{name}"] for name in DENOISERS}, abs=1e-4
    )


def test_who_is_taught_by_whom_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "large", tmp_path / "large")
    prune(tmp_path / "large", tmp_path / "small", hidden=range(12))
    source = tmp_path / "large"
    expected = f"teacher: {source}, from which {tmp_path / 'small'} was pruned"
    given: Any = {"model": tmp_path / "small", "valid": VALID, "progress": True}
    config = settings(objective="ul2", **{"loop.steps": 1})
    recover(config, make_texts(), tmp_path / "1", **given)
    assert capsys.readouterr().err.splitlines()[0] == expected

    def tell(model: Path, **more: Any) -> str:
        return choose_teacher(settings(**more), find_model_folder(model))[1]

    assert tell(tmp_path / "small") == expected
    # What was recovered tells it as well, by a link too, and can be pruned further.
    assert tell(tmp_path / "1").startswith(f"teacher: {source}, from which ")
    assert tell(tmp_path / "1" / "best").startswith(f"teacher: {source}, from which ")
    prune(tmp_path / "1" / "best", tmp_path / "smaller", hidden=range(8))
    assert tell(tmp_path / "smaller").startswith(f"teacher: {source}, from which ")
    assert tell(tmp_path / "small", teacher=str(source)) == f"teacher: {source}"
    assert tell(tmp_path / "small", teacher="none") == "no teacher: none is wanted"
    no_weight = {"distillation.weight": 0.0}
    assert tell(tmp_path / "small", **no_weight) == ("no teacher: distillation has no weight")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert "where another model is now" in tell(tmp_path / "small")
    shutil.rmtree(source)
    assert "where no model is" in tell(tmp_path / "small")
    assert tell(folder / "large").endswith("it has no pruning.json")


# Other models.


def test_sentinels_in_either_order_are_one_objective(tmp_path: Path) -> None:
    """A tokenizer that counts upward, with a model whose rows are the other way round."""
    losses = []
    for rising in (False, True):
        place = save("t5", tmp_path / str(rising), rising=rising)
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = RecoveredModel(place)
        first, last = (tokenizer.convert_tokens_to_ids(f"<extra_id_{n}>") for n in (0, 11))
        assert (first < last) == rising
        if rising:
            with torch.no_grad():
                rows = model.model.get_input_embeddings().weight
                rows[first : last + 1] = rows[first : last + 1].flip(0).clone()
        texts = np.arange(20 * LENGTH).reshape(20, LENGTH) % 380 + 5
        config = settings(objective="ul2")
        run = RecoveryRun(config, TrainData(config, texts, texts[:3]), model)
        batch = run._turn(run.batches(1)[0])
        found = [
            token
            for token in tokenizer.convert_ids_to_tokens(batch.encoder[0].tolist())
            if token.startswith("<extra_id_")
        ]
        assert found == [f"<extra_id_{number}>" for number in range(len(found))]
        assert (batch.decoder[:, 0] == 0).all()
        losses.append([float(run.step(step)["loss"]) for step in (1, 2, 3)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("kind", ["t5", "mt5", "bart"])
def test_any_encoder_decoder(kind: str, tmp_path: Path) -> None:
    """Its losses are those that transformers gives for the same rows, and it opens there."""
    place = save(kind, tmp_path / kind)
    (tmp_path / "a.txt").write_text(TEXTS)
    config = settings(targets=TARGETS, **{"loop.steps": 3})
    given: Any = {"model": place, "valid": tmp_path / "a.txt"}
    result = recover(config, tmp_path / "a.txt", tmp_path / "run", **given)
    assert result.objective == "d_ul2"
    assert result.best_value is not None
    assert result.best_value < result.start_losses["loss"]
    _, found = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "run" / "best", output_loading_info=True
    )
    assert not any(found.values())
    assert len(AutoTokenizer.from_pretrained(tmp_path / "run" / "best")) == 412
    texts = np.arange(20 * LENGTH).reshape(20, LENGTH) % 380 + 5
    run = RecoveryRun(config, TrainData(config, texts, texts), RecoveredModel(place))
    batch = run.batches(1)[0]
    run.model.eval()
    with torch.no_grad():
        own = run.sum_losses(batch)
    for row in range(len(batch.tasks)):
        source = torch.from_numpy(batch.encoder[row, : batch.encoder_lengths[row]])
        target = torch.from_numpy(batch.labels[row, : batch.decoder_lengths[row]])
        given = {"input_ids": source[None], "labels": target[None]}
        with torch.no_grad():
            expected = run.model(**given).loss * len(target)
        assert float(own[row]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_decoders(kind: str, tmp_path: Path) -> None:
    place = save(kind, tmp_path / kind)
    (tmp_path / "a.txt").write_text(TEXTS)
    given: Any = {"model": place, "valid": tmp_path / "a.txt"}
    result = recover(settings(), [tmp_path / "a.txt"], tmp_path / "run", **given)
    assert result.objective == "causal"
    assert result.best_value is not None
    assert result.best_value < result.start_losses["loss_causal"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "best")
    config = settings()
    texts = np.arange(20 * LENGTH).reshape(20, LENGTH) % 380 + 5
    run = RecoveryRun(config, TrainData(config, texts, texts), RecoveredModel(tmp_path / "run"))
    ids = torch.from_numpy(texts)
    with torch.no_grad():
        expected = float(model(input_ids=ids, labels=ids).loss)
    assert run.validate()["loss"] == pytest.approx(expected, rel=1e-5)
    # A step is the mean over all its labels, each text once in a pass.
    seen = np.concatenate([batch.decoder for step in range(1, 6) for batch in run.batches(step)])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, texts[:, :-1].tolist() * 3))


def test_a_pruned_decoder_learns_from_the_one_before(tmp_path: Path) -> None:
    save("llama", tmp_path / "large")
    prune(tmp_path / "large", tmp_path / "small", hidden=range(12))
    (tmp_path / "a.txt").write_text(TEXTS)
    given: Any = {"model": tmp_path / "small", "valid": tmp_path / "a.txt"}
    config = settings(**{"distillation.weight": 1.0, "optimizer.lr": 0.002})
    result = recover(config, tmp_path / "a.txt", tmp_path / "run", **given)
    first, last = result.history[0], result.history[-1]
    assert first["loss_distillation"] > last["loss_distillation"] > 0


# Texts.


def test_o_ul2_takes_all_of_a_text_or_its_part(folder: Path) -> None:
    run = make_run(settings(objective="o_ul2"), folder / "small")
    half, mix = run.denoisers
    assert (half.name, half.weight, half.max_length) == ("S_50", 0.8, None)
    assert (mix.weight, mix.max_length) == (0.2, round(LENGTH * 1700 / 2048))
    tasks = np.concatenate([batch.tasks for step in range(1, 60) for batch in run.batches(step)])
    assert 0.15 < tasks.mean() < 0.25
    shipped = make_run(settings(objective="o_ul2", as_shipped=True), folder / "small")
    assert all((batch.tasks == 0).all() for batch in shipped.batches(1))
    lengths = {int(n) for batch in shipped.batches(1) for n in batch.encoder_lengths}
    assert lengths == {LENGTH // 2 + 3}


def test_files_of_texts_are_packed_once(folder: Path, tmp_path: Path) -> None:
    config = settings(objective="ul2", teacher="none")
    file, out = tmp_path / "a.txt", tmp_path / "run"
    file.write_text(TEXTS)
    given: Any = {"model": folder / "small"}
    result = recover(config, file, out, **given)
    [packed] = (out / "packed").glob("*.bin")
    before = packed.stat()
    assert recover(config, file, out, **given).resumed_after == 5
    assert packed.stat() == before
    source = RecoveredModel(folder / "small")
    pack_files([file], source.tokenizer, tmp_path / "b", length=LENGTH)
    other = recover(config, tmp_path / "b", tmp_path / "other", **given)
    assert without_times(other.history) == without_times(result.history)
    # One in the place of the other: the texts are the same.
    assert recover(config, tmp_path / "b", out, **given).resumed_after == 5
    file.write_text(TEXTS + "Ada met Bo.\n" * 40)
    with pytest.raises(FileExistsError, match="holds another run: data"):
        recover(config, file, out, **given)


# What is refused.


def refuse(text: str, config: Any, data: Any, out: Path, **given: Any) -> None:
    with pytest.raises((ValueError, IndexError, FileExistsError), match=text):
        recover(config, data, out, **given)
    assert not (out / "states").exists()


def test_what_does_not_go_together(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = folder / "small"
    texts = make_texts()
    size = len(RecoveredModel(small).tokenizer)
    beyond = np.where(np.arange(texts.size).reshape(texts.shape) == 70, size, texts)
    refuse("d_ul2 needs validation texts", settings(), texts, out, model=small)
    refuse(
        "d_ul2 needs the losses of the model before pruning",
        settings(), texts, out, model=folder / "large", valid=VALID,
    )  # fmt: skip
    refuse(
        f"expected ids below {size}, the tokens of the tokenizer: got {size}",
        settings(objective="ul2"), beyond, out, model=small,
    )  # fmt: skip
    refuse(
        "objective must be ul2, d_ul2 or o_ul2 for an encoder-decoder: got causal",
        settings(objective="causal"), texts, out, model=small,
    )  # fmt: skip
    refuse(
        "loop.metric must be loss or loss_R3 or",
        settings(targets=TARGETS, **{"loop.metric": "loss_causal"}),
        texts, out, model=small, valid=VALID,
    )  # fmt: skip
    refuse("must be named: got none", settings(), texts, out)
    refuse("nowhere: no such folder of a model", settings(), texts, out, model="nowhere")
    refuse(
        "nowhere: no such folder of a model",
        settings(), texts, out, model=small, valid=VALID, teacher="nowhere",
    )  # fmt: skip
    refuse(
        "expected 40 tokens for a group, got", settings(), texts, out, model=small,
        valid=write(tmp_path / "short.txt", "Ada met Bo.\n"),
    )  # fmt: skip
    refuse(
        r"texts must be \[texts, 40\]: got \[20, 39\]",
        settings(), texts[:, :39], out, model=small, valid=VALID,
    )  # fmt: skip


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_other_models(folder: Path, tmp_path: Path) -> None:
    texts = make_texts() % 380
    out = tmp_path / "run"
    decoder = save("gpt2", tmp_path / "gpt2")
    refuse(
        "objective must be causal for a decoder: got d_ul2",
        settings(objective="d_ul2"), texts, out, model=decoder,
    )  # fmt: skip
    refuse(
        "text_tokens must be less: a row has 79 tokens, and the model has 64 positions",
        settings(text_tokens=80), np.ones((3, 80), int), out, model=decoder,
    )  # fmt: skip
    refuse(
        "a teacher of another vocabulary", settings(), make_texts(), out,
        model=folder / "small", valid=VALID, teacher=save("t5", tmp_path / "t5"),
    )  # fmt: skip
    refuse(
        "BartForConditionalGeneration changes its logits behind the output layer", settings(),
        texts, out, model=save("bart", tmp_path / "bart"), valid=texts, teacher=tmp_path / "t5",
    )  # fmt: skip
    refuse(
        "the tokenizer must have the tokens <extra_id_0>, .*: it has 0 of them",
        settings(), texts, out, model=save("t5", tmp_path / "none", sentinels=0), valid=texts,
    )  # fmt: skip
    assert not out.exists()
    bert = tmp_path / "bert"
    bert.mkdir()
    write(bert / "config.json", json.dumps({"model_type": "bert"}))
    refuse("an encoder alone has no objective", settings(), texts, out, model=bert)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"initial_proportions": [0.5] * 7}, "initial_proportions must sum to 1: got 3.5"),
        ({"initial_proportions": [-0.1, 1.1, 0, 0, 0, 0, 0]}, "initial_proportions must be at"),
        ({"initial_proportions": [0.5, 0.5]}, "initial_proportions must be"),
        ({"targets": [1.0]}, "targets must be"),
        ({"proportions_rule": "best"}, "proportions_rule must be paper or shipped: got 'best'"),
        ({"loop.metric_mode": "max"}, "loop.metric_mode must be min"),
        ({"distillation.weight": 1.5}, "distillation.weight must be at least 0 and at most 1"),
        ({"speed": 1}, "'speed' is no setting of RecoveryConfig"),
    ],
)
def test_settings_that_are_none(changes: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        settings(**changes)


def test_a_folder_of_another_recipe(folder: Path, tmp_path: Path) -> None:
    given: Any = {"model": folder / "small", "valid": VALID}
    recover(settings(), make_texts(), tmp_path, **given)
    for changes, text in (
        ({"teacher": "none"}, "data.teacher is"),
        ({"objective": "ul2"}, "config.objective"),
        ({"update_every_steps": 3}, "config.update_every_steps is 2 there and 3 here"),
        ({"distillation.weight": 0.1}, "config.distillation.weight is 0.5 there"),
    ):
        with pytest.raises(FileExistsError, match=f"holds another run: {text}"):
            recover(settings(**changes), make_texts(), tmp_path, **given)


def test_a_loss_that_is_not_finite_names_its_step(folder: Path, tmp_path: Path) -> None:
    step = RecoveryRun.step

    def breaking(run: RecoveryRun, number: int) -> Any:
        if number == 3:
            with torch.no_grad():
                run.model.decoder.block[0].mlp.fc_out.weight[0, 0] = float("nan")
        return step(run, number)

    given: Any = {"model": folder / "small", "valid": VALID}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecoveryRun, "step", breaking)
        with pytest.raises(FloatingPointError, match="not finite"):
            recover(settings(), make_texts(), tmp_path, **given)
    # Nothing is lost: it goes on from the step before.
    assert recover(settings(), make_texts(), tmp_path, **given).resumed_after == 2
