"""A path: stages that follow from each other, whatever stops them."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, GPT2Config, GPT2LMHeadModel

from lmcore.compression import path_run
from lmcore.compression.choosing import Sizes
from lmcore.compression.composition import split_stages
from lmcore.compression.counts import Counts, write_counts
from lmcore.compression.importance import Calibration, score_model
from lmcore.compression.path import (
    PathConfig,
    PathStage,
    SizesCut,
    TargetCut,
    VocabularyCut,
)
from lmcore.compression.path_cuts import settle_stages
from lmcore.compression.path_files import dump_path
from lmcore.compression.path_losses import validate_model
from lmcore.compression.path_run import run_path
from lmcore.compression.plan import Plan, Stage, find_kept, prune_shape
from lmcore.compression.plan_files import read_plan
from lmcore.compression.planning import add_chosen_stage, start_plan
from lmcore.compression.pruning import prune_state
from lmcore.compression.recipes import OPENBA_V1
from lmcore.compression.record import read_record
from lmcore.compression.recovered_models import load_training_tokenizer
from lmcore.cost import count_parameters, read_shape
from lmcore.openba import IndexedDataset, pack_files
from lmcore.openba.recipes import DENOISERS
from lmcore.training.models import make_tokenizer, save_model
from tiny_families import read_model
from tiny_path import make_path, make_training, save_inputs


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return save_inputs(tmp_path_factory.mktemp("path"))


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Any]) -> Path:
    """The folder of a path that nothing stopped, beside the model."""
    out = Path(inputs["model"]).parent / "whole"
    run_path(make_path(inputs), out)
    return out


def list_files(folder: Path) -> dict[str, bytes]:
    """All that a path leaves, but for the states and logs of runs, which have times in them."""
    name = str(folder).encode()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(name, b"OUT")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "states" not in path.parts and path.name != "log.jsonl"
    }


def sizes_path(inputs: dict[str, Any], *cuts: Any, **more: Any) -> PathConfig:
    stages = [PathStage(name=f"s{n}", cut=cut, **more) for n, cut in enumerate(cuts, 1)]
    return PathConfig(**inputs, stages=tuple(stages))


# What it makes.


def test_each_stage_starts_from_the_one_before(inputs: dict[str, Any], whole: Path) -> None:
    original = Path(inputs["model"])
    before = original
    for number, name in enumerate(("1-layers", "2-widths"), 1):
        plan = read_plan(whole / name / "plan.json")
        cut, weights = read_model(whole / name / "pruned")
        _, old = read_model(before)
        expected = prune_state(old, split_stages(plan)[number - 1])
        assert all(torch.equal(expected[key], value) for key, value in weights.items())
        before = whole / name / "recovered" / "best"
        _, trained = read_model(before)
        assert not all(torch.equal(trained[key], value) for key, value in weights.items())
        assert cut["decoder_layers"] == (3, 2)[number - 1]
    kept = find_kept(read_plan(whole / "plan.json"))
    assert len(kept.decoder_layers) == 2
    assert {*kept.decoder_layers} < {0, 2, 3}
    last = AutoModelForSeq2SeqLM.from_pretrained(whole / "model")
    assert last.config.vocab_size == 640
    ids = read_record(whole / "model").vocabulary_ids
    assert ids is not None
    table = read_model(before)[1]["shared_embedding.weight"]
    assert torch.equal(last.get_input_embeddings().weight, table[torch.from_numpy(ids)])
    assert kept.vocabulary == tuple(ids.tolist())


def test_what_the_report_says(inputs: dict[str, Any], whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    assert report["model"] == "3-tokens/pruned"
    stages = report["stages"]
    assert [stage["steps"] for stage in stages] == [4, 4, 0]
    assert [stage["tokens"] for stage in stages] == [4 * 4 * 32, 4 * 4 * 32, 0]
    assert [stage["objective"] for stage in stages] == ["d_ul2", "ul2", "ul2"]
    for stage, before in zip(stages[1:], stages[:-1], strict=True):
        assert stage["parameters_before"] == before["parameters"]
        assert stage["loss_before"] == pytest.approx(before["loss"], abs=1e-12)
    for stage in stages:
        assert count_parameters(read_shape(whole / stage["folder"])).distinct == stage["parameters"]
    # Losses are those that training would measure.
    config = make_training(objective="ul2")
    packed = [*(whole / "packed").glob("*.idx")]
    assert len(packed) == 3  # texts of two kinds, and those of validation once more in new ids
    prefix = json.loads((whole / "2-widths/recovered/recipe.json").read_text())["data"]["valid"]
    cut = validate_model(whole / "2-widths" / "pruned", config, prefix)
    assert cut.losses["loss"] == stages[1]["loss_cut"]
    assert stages[2]["loss"] is None


def test_it_comes_back_to_the_losses_of_the_original(inputs: dict[str, Any], whole: Path) -> None:
    recipe = json.loads((whole / "1-layers/recovered/recipe.json").read_text())
    prefix = recipe["data"]["valid"]
    found = validate_model(inputs["model"], make_training(), prefix).losses
    assert recipe["config"]["targets"] == [found[f"loss_{name}"] for name in DENOISERS]


def test_the_model_that_is_cut_is_asked(inputs: dict[str, Any], whole: Path) -> None:
    """Scores are those of the recovered model, in the numbers of the original."""
    model = whole / "1-layers" / "recovered" / "best"
    calibration = Calibration(text=inputs["data"], tokens=256)
    scores = score_model(model, "taylor", calibration).scores
    own, _ = add_chosen_stage(start_plan(model), Sizes(decoder_layers=2, hidden=24, ffn=20),
                              scores=scores, method="taylor")  # fmt: skip
    stage = read_plan(whole / "2-widths" / "plan.json").stages[-1]
    layers = (0, 2, 3)
    assert stage.hidden == own.stages[0].hidden
    assert stage.decoder_layers == tuple(layers[n] for n in own.stages[0].decoder_layers or ())
    assert stage.decoder_ffn == {
        layers[n]: units for n, units in (own.stages[0].decoder_ffn or {}).items()
    }
    assert stage.method == "taylor"


def test_going_on_with_all_done_changes_nothing(inputs: dict[str, Any], whole: Path) -> None:
    before = list_files(whole)
    lines: list[str] = []
    again = run_path(make_path(inputs), whole, tell=lines.append)
    assert list_files(whole) == before
    assert again.model == whole / "3-tokens" / "pruned"
    assert [line.split()[:2] for line in lines] == [
        ["1/3", "layers:"], ["1/3", "layers:"], ["2/3", "widths:"], ["2/3", "widths:"],
        ["3/3", "tokens:"], ["3/3", "tokens:"],
    ]  # fmt: skip


def test_stopped_between_any_two_steps(
    inputs: dict[str, Any], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One path is stopped right before a step or after it, in each stage, and ends as another."""
    out = whole.parent / "stopped"
    # What a step is given says of which stage it is.
    points = [
        ("write_plan", "1-layers", True), ("validate_model", "1-layers", False),
        ("recover", "1-layers", True), ("prune_folder", "2-widths", True),
        ("recover", "2-widths", False), ("prune_vocabulary", "3-tokens", False),
        ("write_plan", "3-tokens", False), ("point_to", "model", False),
    ]  # fmt: skip
    for name, place, after in points:
        step: Callable[..., Any] = getattr(path_run, name)

        def stop(
            *arguments: Any, step: Any = step, place: str = place, after: bool = after, **more: Any
        ) -> Any:
            is_it = any(place in str(one) for one in arguments if isinstance(one, str | Path))
            if is_it and not after:
                raise KeyboardInterrupt
            done = step(*arguments, **more)
            if is_it:
                raise KeyboardInterrupt
            return done

        with monkeypatch.context() as patch:
            patch.setattr(path_run, name, stop)
            with pytest.raises(KeyboardInterrupt):
                run_path(make_path(inputs), out)
    run_path(make_path(inputs), out)
    assert list_files(out) == list_files(whole)


@pytest.mark.parametrize(
    ("name", "gone"),
    [("1-layers/plan.json", ("1-layers/pruned", "1-layers/losses.json", "1-layers/recovered")),
     ("1-layers/losses.json", ("1-layers/recovered",)),
     ("1-layers/pruned/model.safetensors", ("1-layers/recovered",)),
     ("1-layers/digests.json", ()),
     ("3-tokens/counts", ("3-tokens/pruned",)),
     ("3-tokens/losses.json", ()),
     ("3-tokens/pruned/model.safetensors", ()),
     ("3-tokens/pruned/tokenizer.json", ()),
     ("packed", ("1-layers/recovered",))],
)  # fmt: skip
def test_what_has_changed_since_is_refused(
    inputs: dict[str, Any], whole: Path, name: str, gone: tuple[str, ...]
) -> None:
    """What a step left is what the next one trusts: one digit or bit of it is another."""
    out = whole.parent / "changed"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole, out, symlinks=True)
    for one in gone:
        path = out / one
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    file = sorted(out.glob("packed/*.bin"))[0] if name == "packed" else out / name
    content = bytearray(file.read_bytes())
    digits = [at for at, byte in enumerate(content) if byte in b"0123456789"]
    at = digits[-1] if file.suffix == ".json" else len(content) - 9
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}: has changed since it was written"):
        run_path(make_path(inputs), out)
    shutil.rmtree(out)


# What is refused.


def refuse(path: PathConfig, out: Path, text: str, **options: Any) -> None:
    """Nothing is written, not even the folder."""
    there = out.exists()
    with pytest.raises((IndexError, ValueError, OSError), match=text):
        run_path(path, out, **options)
    assert out.exists() == there


def test_a_stage_that_does_not_follow(inputs: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def try_cuts(text: str, *cuts: Any) -> None:
        refuse(sizes_path(inputs, *cuts), out, text)

    first = Stage(decoder_layers=(0, 2, 3))
    try_cuts(
        r"^stage 2 \(s2\): decoder_layers keeps 1, which an earlier stage has cut",
        first,
        Stage(decoder_layers=(0, 1, 3)),
    )
    try_cuts(r"^stage 2 \(s2\): .*from 1 to 3 layers: got 4", first, SizesCut(decoder_layers=4))
    try_cuts(r"^stage 1 \(s1\): hidden has no 99: the original has 32", Stage(hidden=(0, 99)))
    try_cuts(r"^stage 2 \(s2\): ffn: .*from 1 to 20: got 21",
             SizesCut(ffn=20, choose="magnitude"), SizesCut(ffn=21))  # fmt: skip
    try_cuts(r"^stage 1 \(s1\): every layer must keep as many ffn",
             Stage(decoder_ffn={n: range(5 + n) for n in range(4)}))  # fmt: skip
    try_cuts(r"^stage 2 \(s2\): it cuts a model whose vocabulary was counted: .* 128: got 600",
             VocabularyCut(keep=600), SizesCut(ffn=20))  # fmt: skip
    try_cuts(r"^stage 1 \(s1\): keep must be at most the \d+ there are: got 9999",
             VocabularyCut(keep=9999))  # fmt: skip
    try_cuts(r"^stage 1 \(s1\): no sizes come down to 5 parameters; the nearest has",
             TargetCut(goal="params=5"))  # fmt: skip
    try_cuts(r"^stage 1 \(s1\): the model is under the target already",
             TargetCut(goal="memory_mb=9999"))  # fmt: skip


def test_weights_that_are_not_finite_are_refused_before_a_cut(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    large, out = tmp_path / "large", tmp_path / "out"
    shutil.copytree(inputs["model"], large)
    weights = load_file(large / "model.safetensors")
    name = next(name for name in weights if name.endswith("layernorm.weight") or "norm" in name)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, large / "model.safetensors", {"format": "pt"})
    path = make_path({**inputs, "model": str(large)})
    with pytest.raises((ValueError, FloatingPointError), match=rf"{name} is not finite"):
        run_path(path, out)
    assert not [*out.glob("*/pruned"), *out.glob("*/plan.json")]


def test_a_path_that_cannot_be_walked(inputs: dict[str, Any], tmp_path: Path) -> None:
    out, cut = tmp_path / "out", SizesCut(ffn=20)
    large = Path(inputs["model"])
    bare = {"model": inputs["model"]}
    train = {"recover": make_training()}
    refuse(PathConfig(stages=(PathStage(name="a", cut=cut),)), out, "expected a model to begin")
    refuse(sizes_path({"model": str(tmp_path)}, cut), out, "config.json")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    refuse(sizes_path({"model": str(tmp_path)}, cut), out, "holds neither model.safetensors")
    refuse(sizes_path(bare, cut), large, "lies in the folder of the model")
    refuse(sizes_path(bare, cut), large / "out", "lies in the folder of the model")
    refuse(sizes_path(bare, cut, **train), out, "^the stage s1 trains: expected data")
    refuse(sizes_path(bare, VocabularyCut(keep=640)), out, "^the stage s1 counts tokens: expected")
    refuse(sizes_path({**inputs, "data": "nowhere.txt"}, cut, **train), out, "nowhere.txt")
    refuse(sizes_path(inputs, SizesCut(ffn=20, choose="taylor"), data=(str(large),)), out, "direct")
    refuse(sizes_path(bare, SizesCut(ffn=20, choose="taylor")), out, "taylor needs a text")
    refuse(sizes_path({**bare, "data": inputs["data"]}, cut, **train), out, "s1: .*validation")
    slow = {"recover": make_training(**{"schedule.warmup_steps": 4})}
    refuse(sizes_path(inputs, cut, **slow), out, "^the stage s1: warmup_steps must be below")
    other = {"recover": make_training(objective="causal")}
    refuse(sizes_path(inputs, cut, **other), out, "^the stage s1: .*causal")
    ids = np.zeros((8, 32), np.int64)
    stages = (
        PathStage(name="a", cut=VocabularyCut(keep=640)), PathStage(name="b", **train),
    )  # fmt: skip
    refuse(PathConfig(model=inputs["model"], stages=stages), out, "^the stage b trains on ids, and",
           data=ids, valid=ids)  # fmt: skip


def test_too_few_tokens_are_said_first(inputs: dict[str, Any], tmp_path: Path) -> None:
    out, counts = tmp_path / "out", tmp_path / "counts"
    rows = read_shape(inputs["model"]).vocabulary_size
    write_counts(counts, Counts(groups={"en": np.ones(900, int), "zh": np.zeros(900, int)}))

    def try_cuts(text: str, *cuts: Any, **more: Any) -> None:
        with pytest.raises(ValueError, match=text):
            run_path(sizes_path(inputs, *cuts), out, **more)
        # Nothing is cut, so that the next path, which is another, is not held against this one.
        assert not [*out.glob("*/plan.json")]

    few = r"^the stage s2: keep must be at least \d+: so many are"
    try_cuts(few, SizesCut(ffn=20), VocabularyCut(keep=128))
    ids = np.arange(64).reshape(2, 32)
    try_cuts(few, SizesCut(ffn=20), VocabularyCut(keep=64), data=ids, valid=ids)
    # Behind another cut of the vocabulary, where special tokens and bytes are still to stay.
    try_cuts(few, VocabularyCut(keep=640), VocabularyCut(keep=64))
    try_cuts(few, SizesCut(vocabulary=range(rows)), VocabularyCut(keep=64))
    named = {"counts": str(counts)}
    try_cuts(r"^the stage s2: keep must be at least \d+ for what keep_per asks of 'en'",
             SizesCut(ffn=20), VocabularyCut(keep=800, keep_per={"en": 890}, **named))  # fmt: skip
    other = VocabularyCut(keep=640, keep_per={"fr": 7}, **named)
    try_cuts("^the stage s2: keep_per names the group 'fr': there are en, zh$",
             VocabularyCut(keep=640), other)  # fmt: skip
    assert run_path(sizes_path(inputs, SizesCut(ffn=20)), out).stages[0].parameters


def test_a_path_that_is_there_stays_where_it_is_refused(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sizes_path(inputs, SizesCut(ffn=20), VocabularyCut(keep=640))
    run_path(path, tmp_path)

    def fail(*given: Any) -> None:
        raise ValueError("no more")

    monkeypatch.setattr(path_run, "choose_vocabulary", fail)
    before = list_files(tmp_path)
    with pytest.raises(ValueError, match=r"^the stage s2: no more"):
        run_path(path, tmp_path)
    assert list_files(tmp_path) == before


def test_another_path_and_starting_anew(inputs: dict[str, Any], tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "train.txt"
    one, two = (sizes_path(inputs, SizesCut(ffn=ffn)) for ffn in (20, 24))
    run_path(one, out)
    refuse(two, out, r"out: holds another run: config.stages.1-s1.sizes.ffn is 20 there and 24")
    data.write_text("Ada")
    refuse(replace(one, data=(str(data),)), out, "config.data is ")
    assert read_shape(out / "model").inner_size == 20
    (out / "other.txt").write_text("mine")
    (out / "9-mine").mkdir()
    run_path(two, out, resume=False)
    assert read_shape(out / "model").inner_size == 24
    assert (out / "other.txt").exists()
    assert (out / "9-mine").exists()
    inside = out / "1-s1" / "pruned"
    refuse(sizes_path({"model": str(inside)}, SizesCut(ffn=7)), out, "the output is an input too")


# Targets and vocabularies.


def test_files_of_others_are_kept(inputs: dict[str, Any], tmp_path: Path) -> None:
    """Under the names that a path writes, in a folder that is none of a path."""
    path = make_path(inputs)
    for name in ("plan.json", "report.json", "model/config.json", "1-layers/counts", "packed/a"):
        out = tmp_path / name.replace("/", "-")
        file = out / name
        file.parent.mkdir(parents=True)
        file.write_text("mine")
        for resume in (True, False):
            refuse(path, out, "is there already, and not of a path", resume=resume)
        # With a file that is called as a path's record is, which may be what is walked itself.
        (out / "path.json").write_text(json.dumps(dump_path(path)))
        for resume in (True, False):
            refuse(path, out, "path.json: not a recipe", resume=resume)
        assert file.read_text() == "mine"
        assert json.loads((out / "path.json").read_text()) == dump_path(path)


def test_a_target_is_sizes(inputs: dict[str, Any], tmp_path: Path) -> None:
    path = sizes_path(inputs, TargetCut(goal="params=70%", seed=3), SizesCut(ffn=16))
    settled = settle_stages(path, start_plan(inputs["model"]))
    [first, second] = settled.stages
    assert isinstance(first.cut, SizesCut)
    assert (first.cut.seed, second) == (3, path.stages[1])
    result = run_path(path, tmp_path / "out")
    before, after = result.stages[0].parameters_before, result.stages[0].parameters
    assert 0.6 * before < after <= 0.7 * before


def test_a_far_target_has_several_stages() -> None:
    plan = Plan(model_type="openba", shape=OPENBA_V1)
    path = sizes_path({}, TargetCut(goal="params=3.9e9"), recover=make_training())
    settled = settle_stages(path, plan)
    assert [stage.name for stage in settled.stages] == ["s1-1", "s1-2"]
    assert all(stage.recover == make_training() for stage in settled.stages)
    for stage in settled.stages:
        assert isinstance(stage.cut, SizesCut)
        sizes = {name: getattr(stage.cut, name) for name in ("decoder_layers", "hidden", "ffn")}
        plan, _ = add_chosen_stage(plan, Sizes(**sizes))
    assert prune_shape(plan).hidden_size < 4096


def test_indices_behind_scores_are_left_to_the_model(inputs: dict[str, Any]) -> None:
    """What a model will choose is not guessed: a stage that names indices of it may be right."""
    scored, named = SizesCut(ffn=20, choose="magnitude"), Stage(
        decoder_ffn={n: range(10) for n in range(4)}, encoder_ffn={n: range(10) for n in range(2)}
    )  # fmt: skip
    plan = start_plan(inputs["model"])
    settle_stages(sizes_path(inputs, scored, named), plan)
    with pytest.raises(ValueError, match="is not known before the stages before it are cut"):
        settle_stages(sizes_path(inputs, scored, named, TargetCut(goal="params=50%")), plan)
    # Layers are another matter: scores of widths do not tell them.
    with pytest.raises(ValueError, match=r"stage 3 \(s3\): decoder_layers"):
        settle_stages(
            sizes_path(inputs, scored, SizesCut(decoder_layers=3), Stage(decoder_layers=(1, 2))),
            plan,
        )


def test_cutting_and_training_behind_the_vocabulary(inputs: dict[str, Any], tmp_path: Path) -> None:
    """Texts are cut by the new tokenizer, and the plan keeps to the numbers of the original."""
    path = sizes_path(
        inputs, VocabularyCut(keep=640), SizesCut(ffn=20, hidden=24),
        recover=make_training(objective="o_ul2"), teacher="none",
    )  # fmt: skip
    result = run_path(path, tmp_path / "out")
    assert result.stages[0].loss_cut is not None
    assert result.stages[1].loss_before == pytest.approx(result.stages[0].loss, abs=1e-12)
    plan = read_plan(tmp_path / "out" / "plan.json")
    assert len(find_kept(plan).vocabulary) == 640
    assert max(find_kept(plan).vocabulary) > 640
    assert read_shape(result.model).vocabulary_size == 640


def test_open_token_files_are_those_of_their_names(inputs: dict[str, Any], tmp_path: Path) -> None:
    training = make_training(objective="ul2")
    path = sizes_path(inputs, SizesCut(ffn=20), recover=training)
    tokenizer = load_training_tokenizer(Path(inputs["model"]))
    pack_files([inputs["data"]], tokenizer, tmp_path / "ids", length=training.text_tokens)
    states = []
    for name, data in (("a", tmp_path / "ids"), ("b", IndexedDataset(tmp_path / "ids"))):
        run_path(path, tmp_path / name, data=data)
        states.append(read_model(tmp_path / name / "model")[1])
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


def test_a_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=4, n_head=2, n_inner=32, vocab_size=300, n_positions=32,
                        bos_token_id=None, eos_token_id=None)  # fmt: skip
    save_model(GPT2LMHeadModel(config), make_tokenizer(["Ada"], 300), tmp_path / "large")
    texts = np.random.default_rng(0).integers(0, 260, (12, 16))
    recover = make_training(objective="causal", text_tokens=16)
    stages = (
        PathStage(name="a", cut=SizesCut(decoder_layers=3), recover=recover, teacher="none"),
        PathStage(name="b", cut=SizesCut(ffn=24, choose="magnitude"), recover=recover,
                  teacher="previous"),
        PathStage(name="c", recover=recover, teacher="none"),
    )  # fmt: skip
    path, lines = PathConfig(model=str(tmp_path / "large"), stages=stages), list[str]()
    result = run_path(path, tmp_path / "out", data=texts[:8], valid=texts[8:], tell=lines.append)
    assert [stage.objective for stage in result.stages] == ["causal"] * 3
    losses = [f"{loss:.4f}" for loss in (result.stages[2].loss_before, result.stages[2].loss)]
    assert lines[-1] == f"3/3 c: 4 steps, loss {' -> '.join(losses)}"  # nothing is cut
    assert lines[-2].count(" -> ") == 2
    assert read_shape(result.model).inner_size == 24
    refuse(path, tmp_path / "out", "config.data is", data=texts[:6], valid=texts[8:])


def test_short_texts_are_known_before_a_cut(inputs: dict[str, Any], tmp_path: Path) -> None:
    """And where nothing is cut yet, a path that was mended takes the folder over."""
    out, short = tmp_path / "out", tmp_path / "short.txt"
    short.write_text("Ada.\n")
    cuts = (SizesCut(ffn=20), SizesCut(ffn=16))
    path = sizes_path({**inputs, "valid": str(short)}, *cuts, recover=make_training())
    out.mkdir()
    refuse(path, out, "short.txt: expected 32 tokens for a group")
    assert not [*out.glob("*/pruned")]
    few = replace(path, stages=(PathStage(name="few", cut=VocabularyCut(keep=1)),))
    refuse(few, out, "the stage few: ")
    mended = sizes_path(inputs, *cuts, recover=make_training())
    assert [stage.name for stage in run_path(mended, out).stages] == ["s1", "s2"]
    assert not [*out.glob("*-few")]
    assert len([*(out / "packed").glob("*.bin")]) == 2
    refuse(few, out, "holds another run")
