"""Teachers of many families: equal losses, vocabularies by records, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

import workers
from lmcore.compression import (
    DistillationConfig,
    HiddenLoss,
    Lineage,
    Teacher,
    compose,
    distil_batch,
    find_kept,
    find_teacher,
    prune_folder,
    prune_vocabulary,
    trace,
)
from lmcore.compression.loading import load_model
from lmcore.compression.model_folders import is_pruned
from lmcore.compression.output_heads import check_head
from lmcore.compression.record import copy_record, read_record, write_record
from lmcore.compression.teacher import find_kept_ids
from tiny_families import CONFIGS, make_plan, save_model
from tiny_openba import SIZES
from tiny_vocabularies import count_lines, read_lines
from tiny_vocabularies import save_model as save_with_tokenizer

LEFT = {"encoder_layers": 2, "decoder_layers": 2, "heads": 2, "ffn": 7, "vocabulary": 30}
NAMES = [name for name in CONFIGS if name != "bert"] + ["openba tied"]


@pytest.fixture(autouse=True, scope="module")
def tied_openba() -> Any:
    """The family's table with an OpenBA whose output layer is its embedding."""
    fields = {**SIZES, "tie_word_embeddings": True, "add_lm_head_bias": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, "openba tied", {"model_type": "openba", **fields})
        yield


def make_inputs(model: Any, rows: int = 3) -> tuple[dict[str, Tensor], Tensor]:
    """Ids with padding on the right, and labels, some of them ignored."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 30, (rows, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:, 6:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    length = 9
    if model.config.is_encoder_decoder:
        length = 7
        inputs["decoder_input_ids"] = torch.randint(3, 30, (rows, 7), generator=generator)
    labels = torch.randint(3, 30, (rows, length), generator=generator)
    labels[2, 4:] = -100
    if not model.config.is_encoder_decoder:
        labels[mask == 0] = -100
    return inputs, labels


def define(
    student: Any, whole: Any, inputs: Any, labels: Tensor, kept: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Losses by the logits of both models."""
    taught = {n: kept[x] if n.endswith("input_ids") else x for n, x in inputs.items()}
    logits = student(**inputs, use_cache=False).logits
    with torch.no_grad():
        goal = whole(**taught, use_cache=False).logits[..., kept]
    losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    soft, hard = ((z / temperature).log_softmax(-1) for z in (logits, goal))
    each = kl_div(soft, hard, reduction="none", log_target=True).sum(-1) * temperature**2
    return losses.view(labels.shape), torch.where(labels == -100, 0, each)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_the_models_own_logits(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    save_model(name, folder)
    left = {**LEFT, "hidden": 12} if name in ("gpt2", "t5") else LEFT
    plan = make_plan(folder, left, seed=1)
    prune_folder(folder, tmp_path / "new", plan)
    whole, student = load_model(folder), load_model(tmp_path / "new")
    inputs, labels = make_inputs(student)
    kept = torch.tensor(find_kept(plan).vocabulary)
    config = DistillationConfig(temperature=2.0, weight=0.25)
    teacher = Teacher.load(folder, tmp_path / "new")
    check_head(student)
    found = distil_batch(student, teacher, inputs, labels, config)
    found.rows.sum().backward()
    gradients = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    losses, divergences = define(student, whole, inputs, labels, kept, 2.0)
    torch.testing.assert_close(found.cross_entropy, losses, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(found.divergence, divergences, rtol=2e-5, atol=2e-5)
    total = 0.75 * losses + 0.25 * divergences
    torch.testing.assert_close(found.rows, total.sum(1), rtol=2e-5, atol=2e-5)
    total.sum().backward()
    expected = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    assert [*gradients] == [*expected]
    for key, gradient in gradients.items():
        bound = 1e-4 * float(expected[key].abs().max()) + 1e-7
        torch.testing.assert_close(gradient, expected[key], rtol=0, atol=bound)
    # Afterwards it is the model that it was.
    assert student(**inputs).logits.shape[-1] == len(kept)


def test_a_teacher_learns_nothing_and_drops_nothing(tmp_path: Path) -> None:
    save_model("t5", tmp_path / "old")
    teacher = Teacher.load(tmp_path / "old", tmp_path / "old")
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    inputs, labels = make_inputs(teacher.model)
    student = load_model(tmp_path / "old")
    losses = distil_batch(student, teacher, inputs, labels, DistillationConfig(weight=1.0))
    assert float(losses.divergence.detach().max()) < 1e-5


def check_rows(folder: Path, old: Path, name: str, ids: Any, hidden: Any) -> None:
    """The embedding has the rows and channels of the older one."""
    new, before = (load_file(path / "model.safetensors")[name] for path in (folder, old))
    assert torch.equal(new, before[torch.as_tensor(ids)][:, torch.as_tensor(hidden)])


def test_records_are_followed_over_stages_and_folders(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("old", "one", "two", "three")]
    save_model("t5", folders[0])
    plan = make_plan(folders[0], {"decoder_layers": 3, "hidden": 12, "vocabulary": 25}, stages=2)
    prune_folder(folders[0], folders[1], plan, stage=1)
    prune_folder(folders[1], folders[2], plan, stage=2)
    more = make_plan(folders[2], {"decoder_layers": 2, "hidden": 8, "vocabulary": 20}, seed=5)
    prune_folder(folders[2], folders[3], more)
    kept, last = find_kept(compose(plan)), find_kept(more)
    found = trace(folders[3], folders[0])
    assert found is not None
    assert found.hidden == tuple(kept.hidden[channel] for channel in last.hidden)
    assert found.decoder_layers == tuple(kept.decoder_layers[n] for n in last.decoder_layers)
    check_rows(folders[3], folders[0], "shared.weight", found.vocabulary, found.hidden)
    assert np.array_equal(find_kept_ids(folders[0], folders[3]), found.vocabulary)  # type: ignore[arg-type]
    assert find_teacher(folders[3]) == (folders[0], "")
    # A stage of a plan says all of the original, when the folder between is gone.
    shutil.rmtree(folders[1])
    second = trace(folders[2], folders[0])
    assert second is not None
    assert second.vocabulary is not None
    assert tuple(second.vocabulary) == kept.vocabulary
    found, reason = find_teacher(folders[2])  # type: ignore[assignment]
    assert found is None
    assert reason == f"its record names {folders[1]}, where no model is"


def test_a_trained_model_keeps_its_record(tmp_path: Path) -> None:
    old, new, best = (tmp_path / name for name in ("old", "new", "run/models/step-3"))
    save_model("llama", old)
    prune_folder(old, new, make_plan(old, LEFT))
    load_model(new).save_pretrained(best)
    copy_record(new, best)
    assert find_teacher(best) == (old, "")
    # By a link that lies elsewhere than what it names.
    link = tmp_path / "run" / "best"
    link.symlink_to("models/step-3", target_is_directory=True)
    assert find_teacher(link) == (old, "")
    prune_folder(best, tmp_path / "last", make_plan(best, {"vocabulary": 20}, seed=9))
    assert find_teacher(tmp_path / "last") == (old, "")
    ids = find_kept_ids(old, tmp_path / "last")
    assert ids is not None
    first, then = (read_record(path).vocabulary_ids for path in (new, tmp_path / "last"))
    assert np.array_equal(ids, first[then])  # type: ignore[index]


def test_another_model_in_the_place_is_no_teacher(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_model("llama", old)
    prune_folder(old, new, make_plan(old, LEFT))
    assert find_teacher(new) == (old, "")
    shutil.rmtree(old)
    save_model("gpt2", old)
    assert find_teacher(new) == (None, f"its record names {old}, where another model is now")
    assert find_teacher(old) == (None, "it has no pruning.json")
    with pytest.raises(ValueError, match=f"{old}: a teacher of another vocabulary: no record of"):
        Teacher.load(old, new)


def test_a_model_that_was_trained_on_is_no_teacher_of_itself(tmp_path: Path) -> None:
    """Shapes and settings are the same, weights are not; who names it may have it."""
    old, new, last = tmp_path / "old", tmp_path / "new", tmp_path / "last"
    save_model("llama", old)
    plan = make_plan(old, LEFT)
    prune_folder(old, new, plan)
    prune_folder(new, last, make_plan(new, {"vocabulary": 20}, seed=9))
    assert is_pruned(old, new, plan)
    kept = find_kept_ids(old, last)
    weights = load_file(old / "model.safetensors")
    trained = {name: weight + 1e-3 for name, weight in weights.items()}
    save_file(trained, old / "model.safetensors", {"format": "pt"})
    for folder, where in ((new, "its record"), (last, f"the record in {new}")):
        assert find_teacher(folder) == (None, f"{where} names {old}, whose weights are others now")
    assert not is_pruned(old, new, plan)
    with pytest.raises(FileExistsError, match="holds a model that was made otherwise"):
        prune_folder(old, new, plan)
    assert np.array_equal(find_kept_ids(old, last), kept)  # type: ignore[arg-type]
    # A record from before weights had a digest says nothing of them.
    record = read_record(new)
    assert record.source_weights is not None
    write_record(new, replace(record, source_weights=None))
    assert find_teacher(new) == (old, "")
    assert is_pruned(old, new, plan)


def test_pruned_vocabularies_and_tokenizers(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    save_with_tokenizer("t5", old)
    prune_vocabulary(old, new, count_lines(old, read_lines()), 250, multiple=8)
    assert find_teacher(new) == (old, "")
    teacher, student = Teacher.load(old, new), load_model(new)
    kept = read_record(new).vocabulary_ids
    assert kept is not None
    inputs, labels = make_inputs(student)
    losses = distil_batch(student, teacher, inputs, labels, DistillationConfig())
    real = torch.from_numpy(kept.clip(0))
    expected = define(student, load_model(old), inputs, labels, real, 1.0)
    if (kept >= 0).all():
        torch.testing.assert_close(losses.divergence, expected[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.cross_entropy, expected[0], rtol=1e-4, atol=1e-5)
    # Records speak of ids; that they are of these tokens the tokenizers say.
    file = new / "tokenizer.json"
    before = file.read_text()
    content = json.loads(before)
    vocabulary = content["model"]["vocab"]
    vocabulary[100], vocabulary[101] = vocabulary[101], vocabulary[100]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"2 of \d+ tokens of .* are not those that its records"):
        Teacher.load(old, new)
    file.write_text(before)
    # Without a record tokenizers decide.
    (new / "pruning.json").unlink()
    with pytest.raises(ValueError, match="tokens have another id there, or none"):
        Teacher.load(old, new)
    shutil.rmtree(new)
    shutil.copytree(old, new)
    assert find_kept_ids(old, new) is None
    student.config.vocab_size = load_model(old).config.vocab_size + 3
    student.config.save_pretrained(new)
    ids = find_kept_ids(old, new)
    assert ids is not None
    assert ids[-4:].tolist() == [len(ids) - 4, -1, -1, -1]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (new / name).unlink()
    with pytest.raises(ValueError, match=f"{new} has no tokenizer"):
        find_kept_ids(old, new)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_model("llama", old)
    prune_folder(old, new, make_plan(old, LEFT))
    config = transformers.AutoConfig.from_pretrained(new)
    config.vocab_size = 31
    config.save_pretrained(new)
    with pytest.raises(ValueError, match=r"by the records of .* 3\d of its 41 .* model has 31"):
        Teacher.load(old, new)
    (new / "pruning.json").write_text("{")
    for call in (lambda: Teacher.load(old, new), lambda: find_teacher(new)):
        with pytest.raises(ValueError, match=r"pruning\.json: not a record of pruning"):
            call()
    with pytest.raises(ValueError, match="no such folder of a model"):
        Teacher.load(tmp_path / "nowhere", old)


def test_models_that_change_their_logits_are_refused() -> None:
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}  # fmt: skip
    capped = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**sizes))
    with pytest.raises(ValueError, match="Gemma2ForCausalLM changes its logits behind"):
        Teacher(capped)
    bart = transformers.BartConfig(
        vocab_size=20, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8,
        decoder_ffn_dim=8, encoder_attention_heads=2, decoder_attention_heads=2, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="BartForConditionalGeneration changes its logits behind"):
        Teacher(transformers.BartForConditionalGeneration(bart))


@pytest.mark.parametrize("name", ["openba", "llama"])
def test_states_of_layers_that_belong_together(name: str, tmp_path: Path) -> None:
    save_model(name, tmp_path)
    model, teacher = load_model(tmp_path), Teacher.load(tmp_path, tmp_path)
    hidden = HiddenLoss.make(model.config, teacher.model.config, Lineage())
    inputs, labels = make_inputs(model)
    config = DistillationConfig(hidden_weight=2.0)

    def measure(given: Any = inputs) -> Any:
        return distil_batch(model, teacher, given, labels, config, hidden=hidden)

    assert float(measure().distance.detach().abs().max()) < 1e-9
    with torch.no_grad():
        for parameter in hidden.parameters():
            parameter.mul_(0.5)
    found = measure()
    # Half of each state lacks: a quarter of its square, for each label.
    torch.testing.assert_close(found.distance, 0.25 * (labels != -100).sum(1).float())
    plain = distil_batch(model, teacher, inputs, labels, DistillationConfig()).rows
    torch.testing.assert_close(found.rows, plain + 2 * found.distance)
    found.rows.sum().backward()
    assert all(parameter.grad is not None for parameter in hidden.parameters())
    ids = inputs["input_ids"].clone()
    ids[1, 8] = 7
    torch.testing.assert_close(measure({**inputs, "input_ids": ids}).distance, found.distance)
    with pytest.raises(ValueError, match="hidden must be given"):
        distil_batch(model, teacher, inputs, labels, config)


SHARDED = """
import sys
import torch
from torch import nn
from lmcore.compression import DistillationConfig, Teacher, distil_batch
from lmcore.compression.loading import load_model
from lmcore.compression.model_folders import is_pruned
from lmcore.openba.models import find_blocks
from lmcore.training.config import DeviceConfig
from lmcore.training.processes import start_processes

folder, sharding = sys.argv[1:3]
config = DeviceConfig(device="cpu", sharding=sharding)
with start_processes('cpu') as processes:
    model, teacher = load_model(folder), Teacher.load(folder, folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    processes.shard(model, find_blocks(model), config)
    ids = torch.arange(3, 15).view(2, 6) + processes.rank
    inputs = {"input_ids": ids, "decoder_input_ids": ids.flip(1)}
    losses = distil_batch(model, teacher, inputs, ids, DistillationConfig())
    losses.rows.sum().backward()
    total = 0.0
    for parameter in model.parameters():
        grad = parameter.grad
        grad = grad.full_tensor() if hasattr(grad, "full_tensor") else processes.sum(grad)
        total += float(grad.double().square().sum())
    print(repr([float(losses.rows.sum()), total]))
"""


@pytest.mark.parametrize("name", ["openba", "openba tied"])
def test_sharded_weights_are_whole_where_they_are_used(name: str, tmp_path: Path) -> None:
    save_model(name, tmp_path)
    whole, shards = (
        [json.loads(text) for text in workers.run(SHARDED, 2, tmp_path, sharding)]
        for sharding in ("none", "full")
    )
    np.testing.assert_allclose(shards, whole, rtol=1e-5)
