"""The commands `lmcore compression plan`, `recipe`, `cost` and `prune`."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from commands import check_line, run, run_here
from lmcore.compression.composition import compose
from lmcore.compression.model_folders import prune_folder
from lmcore.compression.plan import Stage, prune_shape
from lmcore.compression.plan_files import dump_plan, read_plan, write_plan
from lmcore.compression.pruning import prune_state
from lmcore.compression.recipes import openba_v2
from lmcore.compression.record import Record, read_record, write_record
from tiny_families import T5, make_plan, read_model, run_model, save_model, save_run
from tiny_generation import save_pair


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model("openba", tmp_path_factory.mktemp("commands") / "openba")
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "configuration_openba.OpenBAConfig"}}
    (folder / "config.json").write_text(json.dumps({**config, **code}))
    (folder / "spiece.model").write_bytes(b"pieces")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "other.txt").write_text("not of the model")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    code, output, errors = run_here("compression", "recipe", "openba_v2", "--seed", 7)
    assert (code, errors) == (0, "")
    file = tmp_path_factory.mktemp("recipes") / "plan.json"
    file.write_text(output)
    return file


# The paper's plan.


def test_the_recipe_is_the_paper_s_plan(recipe: Path) -> None:
    plan = read_plan(recipe)
    assert plan == openba_v2(7)
    assert plan.stages[3] != openba_v2(8).stages[3]
    layers = [prune_shape(plan, n).decoder_layers for n in range(1, 7)]
    assert layers == [30, 27, 24, 24, 24, 24]
    composed = compose(plan).stages[0]
    cut = {7, 11, 18, 20, 22, 30, 4, 16, 27, 10, 24, 33}
    assert {*range(36)} - {*(composed.decoder_layers or ())} == cut
    assert {*range(12)} - {*(composed.encoder_layers or ())} == {4, 8, 6, 10}
    assert composed.vocabulary is not None
    assert len(composed.vocabulary) == 100_000
    assert {*range(250100, 250203)} <= {*composed.vocabulary}
    assert prune_shape(openba_v2(0, range(120_192))).vocabulary_size == 120_192
    assert openba_v2(0, range(120_192)).stages[-1].vocabulary == tuple(range(120_192))


def cost(*arguments: object) -> Any:
    code, output, errors = run_here("compression", "cost", *arguments, "--json")
    assert (code, errors) == (0, "")
    return json.loads(output)


def test_the_authors_table(recipe: Path) -> None:
    rows = cost(recipe)
    assert [row["parameters"]["distinct"] for row in rows] == [
        14_567_703_040, 12_310_714_880, 10_963_032_576, 10_053_726_720, 3_808_598_400,
        3_808_598_400, 3_423_833_760,
    ]  # fmt: skip
    assert [row["agrees"] for row in rows] == [True, True, True, False, True, True, True]
    assert rows[0]["cache_bytes"] == {"source_token": 737_280, "target_token": 737_280}
    assert rows[-1]["cache_bytes"]["target_token"] == 24 * 2 * 2560 * 2
    assert round(rows[-1]["published_reduction"], 3) == 0.773
    assert round(rows[-1]["reduction"], 3) == 0.765
    code, output, errors = run_here("compression", "cost", recipe)
    assert (code, errors) == (0, "")
    for row in rows:
        for number in (row["parameters"]["distinct"], row["bytes"], row["flops"]["target_token"]):
            assert f" {number:,}" in output
        assert f" {row['memory_bytes']['total'] / 1e9:,.2f}\n" in output
    assert "\n* 3: 9.9B is published, and does not follow from the published sizes, " in output
    assert "77.3% fewer parameters as published (1 - 3.4B / 15B), 77.2% of 15B and 76.5% of " in (
        output
    )


def test_cost_options(recipe: Path) -> None:
    first = cost(recipe)[-1]
    assert cost(recipe, "--devices", 8)[-1]["memory_bytes"]["devices"] == 8
    longer = cost(recipe, "--target-tokens", 900)[-1]
    assert longer["flops"]["cached_token"] > first["flops"]["cached_token"]
    assert (
        cost(recipe, "--recompute")[-1]["memory_bytes"]["activations"]
        < (first["memory_bytes"]["activations"])
    )


@pytest.mark.alone
def test_cost_takes_less_than_a_second(recipe: Path) -> None:
    taken = []
    for _ in range(3):  # the machine may do other things at the same time
        start = time.perf_counter()
        assert run("compression", "cost", recipe)[0] == 0
        taken.append(time.perf_counter() - start)
    assert min(taken) < 1.0


def test_planning_imports_no_torch(tmp_path: Path, recipe: Path, model: Path) -> None:
    plan = ["plan", str(model), str(tmp_path / "plan.json"), "--ffn", "20"]
    code = (
        "import contextlib, io, sys; from lmcore.cli import main\n"
        f"for arguments in (['cost', {str(recipe)!r}], {plan!r}):\n"
        "    sys.argv[1:] = ['compression', *arguments]\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): "
        "main()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = done.stdout.split()
    assert (tmp_path / "plan.json").exists()
    assert {"torch", "transformers", "tokenizers", "safetensors"} & {*modules} == set()


def test_names_of_stages_are_escaped(tmp_path: Path, recipe: Path) -> None:
    content = json.loads(recipe.read_text())
    content["stages"][2]["name"] = "\x1b[2J\n"
    (tmp_path / "plan.json").write_text(json.dumps(content))
    output = run_here("compression", "cost", tmp_path / "plan.json")[1]
    assert "\x1b" not in output
    assert "\n\\x1b[2J\\n " in output


# Plans of sizes.


def test_plans_of_sizes(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "plan.json"
    sizes = ["--decoder-layers", 3, "--hidden", 20, "--heads", 3, "--ffn", 11, "--name", "first"]
    result = run_here("compression", "plan", model, out, *sizes, "--seed", 5)
    assert result[:2] == (0, "")
    plan = read_plan(out)
    shape = prune_shape(plan)
    assert (shape.decoder_layers, shape.hidden_size, shape.heads, shape.inner_size) == (
        3,
        20,
        3,
        11,
    )
    (stage,) = plan.stages
    assert (stage.name, stage.method, stage.seed, stage.encoder_layers) == (
        "first", "random", 5, None,
    )  # fmt: skip
    assert result[2].startswith("stage 1: ")
    again = tmp_path / "again.json"
    assert run_here("compression", "plan", model, again, *sizes, "--seed", 5)[0] == 0
    assert again.read_bytes() == out.read_bytes()
    more = ["--encoder-layers", 2, "--layers", "adjacent", "--after", out]
    assert run_here("compression", "plan", model, again, *more)[0] == 0
    assert read_plan(again).stages[0] == stage
    assert prune_shape(read_plan(again)).encoder_layers == 2


def test_what_a_pruned_t5_cannot_do(tmp_path: Path) -> None:
    """A decoder that is deeper than the encoder has no cache in transformers, and it is said."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **T5, "num_layers": 4}))
    out = tmp_path / "plan.json"
    result = run_here("compression", "plan", tmp_path, out, "--encoder-layers", 2)
    assert result[0] == 0
    assert "4 layers behind 2 need use_cache=False" in result[2]
    both = ["--encoder-layers", 2, "--decoder-layers", 2]
    assert "use_cache" not in run_here("compression", "plan", tmp_path, out, *both)[2]


def test_plans_that_are_refused(tmp_path: Path, model: Path, recipe: Path) -> None:
    out = tmp_path / "plan.json"

    def plan(*options: object) -> tuple[int, str, str]:
        return run_here("compression", "plan", model, out, *options)

    check_line(plan(), "expected a size to leave, one of encoder-layers")
    check_line(plan("--hidden", 33), "hidden: expected to keep from 1 to 32: got 33")
    check_line(plan("--encoder-layers", 1), "encoder_layers: the first and the last layer stay")
    check_line(
        plan("--ffn", 3, "--choose", "luck"), "choose must be one of random, magnitude, ", "'luck'"
    )
    check_line(plan("--ffn", 3, "--after", recipe), "for a model whose encoder_layers is 12: ")
    check_line(plan("--ffn", 3, "--after", tmp_path / "none"), "No such file")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    hidden = run_here("compression", "plan", tmp_path, out, "--hidden", 700)
    check_line(hidden, "got hidden 700 and 12 heads; the nearest is hidden ")
    assert not out.exists()


# Pruned folders.


def prune(*arguments: object) -> tuple[int, str, str]:
    return run_here("compression", "prune", *arguments)


@pytest.fixture
def plan_file(tmp_path: Path, model: Path) -> Path:
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "hidden": 20, "heads": 3, "ffn": 13}
    write_plan(tmp_path / "plan.json", make_plan(model, sizes, stages=2))
    return tmp_path / "plan.json"


def test_a_pruned_folder_opens(tmp_path: Path, model: Path, plan_file: Path) -> None:
    out, plan = tmp_path / "out", read_plan(plan_file)
    code, output, errors = prune(model, out, "--plan", plan_file)
    assert (code, output) == (0, "")
    _, state = read_model(model)
    expected = prune_state(state, plan)
    found = load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert f"{sum(x.numel() for x in found.values()):,} of " in errors
    small = AutoModelForSeq2SeqLM.from_pretrained(out).eval()
    assert torch.isfinite(run_model(small)).all()
    assert sorted(path.name for path in out.iterdir()) == sorted([
        "config.json", "generation_config.json", "model.safetensors", "pruning.json",
        "spiece.model", "tokenizer_config.json",
    ])  # fmt: skip
    assert (out / "spiece.model").read_bytes() == b"pieces"
    assert "auto_map" not in json.loads((out / "config.json").read_text())
    record = read_record(out)
    assert (record.plan, record.stage, record.vocabulary_ids) == (plan, None, None)


def test_a_folder_of_torch_files(tmp_path: Path, model: Path, plan_file: Path) -> None:
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(model, copy)
    _, state = read_model(model)
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    assert prune(copy, out, "--plan", plan_file)[0] == 0
    expected, found = prune_state(state, read_plan(plan_file)), load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_stage_by_stage_and_in_shards(tmp_path: Path, model: Path, plan_file: Path) -> None:
    first, second, once = tmp_path / "first", tmp_path / "second", tmp_path / "once"
    assert prune(model, first, "--plan", plan_file, "--stage", 1)[0] == 0
    assert prune(first, second, "--plan", plan_file, "--stage", 2)[0] == 0
    assert prune(model, once, "--plan", plan_file)[0] == 0
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert (second / name).read_bytes() == (once / name).read_bytes()
    assert read_record(second).stage == 2
    wrong = prune(model, tmp_path / "wrong", "--plan", plan_file, "--stage", 2)
    check_line(wrong, "the plan is for a model whose ")
    assert not (tmp_path / "wrong").exists()
    check_line(prune(model, tmp_path / "wrong", "--plan", plan_file, "--stage", 3), "stage must")


def test_a_cut_vocabulary(tmp_path: Path) -> None:
    """The most frequent tokens are planned, and the tokenizer loses what the embedding loses."""
    large, counts = save_pair(tmp_path / "large"), tmp_path / "counts.txt"
    tokenizer, text = AutoTokenizer.from_pretrained(large), "Ada met Otto in Kelp"
    ids = tokenizer(text).input_ids
    counts.write_text("".join(f"{number} 5\n" for number in ids))
    options = ["--vocabulary", 420, "--counts", counts, "--ffn", 20]
    assert run_here("compression", "plan", large, tmp_path / "plan.json", *options)[0] == 0
    plan = read_plan(tmp_path / "plan.json")
    kept = plan.stages[0].vocabulary or ()
    assert len(kept) == 420
    assert {*ids} < {*kept}
    code, _, errors = prune(large, tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert (code, "tokenizer" in errors) == (0, False)
    found = read_record(tmp_path / "out" / "pruning.json").vocabulary_ids
    assert found is not None
    assert tuple(found.tolist()) == kept
    small = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [kept[number] for number in small(text).input_ids] == ids
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    assert model.config.vocab_size == 420
    for settings in (model.config, model.generation_config):
        assert kept[settings.eos_token_id] == tokenizer.eos_token_id
        assert kept[settings.decoder_start_token_id] == tokenizer.pad_token_id
    assert torch.isfinite(run_model(model)).all()
    check_line(
        run_here("compression", "plan", large, tmp_path / "p.json", "--vocabulary", 420),
        "--vocabulary and --counts belong together",
    )
    cut = replace(plan, stages=[Stage(vocabulary=range(5, len(kept)))])
    write_plan(tmp_path / "plan.json", cut)
    check_line(prune(large, tmp_path / "no", "--plan", tmp_path / "plan.json"), "which goes")
    ends = [0, 1, 2, *range(20, len(kept))]
    write_plan(tmp_path / "plan.json", replace(plan, stages=[Stage(vocabulary=ends)]))
    check_line(
        prune(large, tmp_path / "no", "--plan", tmp_path / "plan.json"),
        "tokens that the tokenizer needs",
    )
    assert not (tmp_path / "no").exists()


def test_a_vocabulary_without_a_tokenizer(tmp_path: Path, model: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    for name in ("spiece.model", "tokenizer_config.json"):
        (copy / name).unlink()
    plan = make_plan(copy, {"vocabulary": 30})
    write_plan(tmp_path / "plan.json", plan)
    code, _, errors = prune(copy, tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert code == 0
    assert "there is no tokenizer" in errors
    small = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    assert torch.isfinite(run_model(small)).all()


def test_a_run_stands_for_its_best_model(tmp_path: Path, model: Path) -> None:
    run, sizes = tmp_path / "run", ["--ffn", 9, "--choose", "magnitude"]
    best = save_run(run, model)
    made = []
    for name, source in (("run", run), ("best", run / "best")):
        file, out = tmp_path / f"{name}.plan", tmp_path / f"{name}.small"
        found = run_here("compression", "plan", source, file, *sizes, "--quiet")
        assert found[0] == 0, found
        assert prune(source, out, "--plan", file)[0] == 0
        assert read_record(out).source_folder == "../run/models/step-3"
        made.append([path.read_bytes() for path in (file, out / "model.safetensors")])
    assert made[0] == made[1]
    weights = next(best.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = f"{weights.name}: has changed since it was written"
    check_line(run_here("compression", "plan", run, tmp_path / "new", *sizes), changed)
    check_line(prune(run, tmp_path / "new", "--plan", tmp_path / "run.plan"), changed)


def test_folders_that_are_there(tmp_path: Path, model: Path, plan_file: Path) -> None:
    out = tmp_path / "out"
    assert prune(model, out, "--plan", plan_file)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    check_line(prune(model, out, "--plan", plan_file), f"{out}")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    other = tmp_path / "other.json"
    write_plan(other, make_plan(model, {"ffn": 9}))
    check_line(prune(model, out, "--plan", other), "holds a model that was made otherwise: name")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    check_line(prune(model, model, "--plan", plan_file), "the output is an input too")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    check_line(prune(model, tmp_path / "full", "--plan", plan_file), "holds 'thesis.txt': name")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("calls", [1, 3])
def test_a_run_that_ends_early_goes_on(
    tmp_path: Path, model: Path, plan_file: Path, calls: int
) -> None:
    plan, left = read_plan(plan_file), [calls]

    def stop(done: int, total: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    options = {"max_shard_bytes": 20_000}
    whole = prune_folder(model, tmp_path / "whole", plan, **options)
    assert len(whole.weights.files) > 3
    with pytest.raises(KeyboardInterrupt):
        prune_folder(model, tmp_path / "out", plan, progress=stop, **options)
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert "model.safetensors.index.json" not in names
    other = tmp_path / "other.json"
    write_plan(other, make_plan(model, {"ffn": 9}))
    check_line(prune(model, tmp_path / "out", "--plan", other), "made otherwise")
    again = prune_folder(model, tmp_path / "out", plan, **options)
    assert again.weights.files == whole.weights.files
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "out")
    )
    assert first == second


def test_one_line_for_what_cannot_be_used(tmp_path: Path, model: Path, plan_file: Path) -> None:
    out = tmp_path / "out"
    check_line(prune(tmp_path / "none", out, "--plan", plan_file), "No such file or directory")
    check_line(prune(model, out, "--plan", tmp_path / "none"), "No such file or directory")
    check_line(prune(model, out, "--plan", model / "config.json"), "config.json: not a plan: ")
    check_line(prune(model, out, "--plan", "/dev/zero"), "not a plan: expected a file")
    empty = json.loads(plan_file.read_text())
    (tmp_path / "empty.json").write_text(json.dumps({**empty, "stages": []}))
    check_line(prune(model, out, "--plan", tmp_path / "empty.json"), "the plan has no stages")
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-5])
    check_line(prune(copy, out, "--plan", plan_file), "model.safetensors: ")
    (copy / "config.json").write_text("[]")
    check_line(prune(copy, out, "--plan", plan_file), "config.json: not a configuration: expected")
    assert not out.exists()


# Records.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "format must be lmcore-pruning"),
        ({"source": 3}, "source must be a digest"),
        ({"more": 3}, "got 'more', too"),
        ({"stage": 2}, "stage must be one of 1: got 2"),
        ({"stage": True}, "stage must be a whole number"),
        ({"about": []}, "about must be an object"),
        ({"vocabulary": {"old_ids": [1.0]}}, "old_ids must be whole numbers"),
        ({"vocabulary": {"old_ids": [-2]}}, "old_ids must be from -1"),
        ({"vocabulary": {"old_ids": [2**80]}}, "old_ids must be from -1"),
        ({"vocabulary": []}, "vocabulary must hold old_ids"),
        ({"plan": {"format": "lmcore-plan"}}, "version must be 1"),
    ],
)
def test_records_that_are_refused(tmp_path: Path, model: Path, change: Any, message: str) -> None:
    plan = make_plan(model, {"ffn": 9})
    write_record(tmp_path, Record(source="ab", plan=plan, stage=1, about={"why": [1]}))
    assert read_record(tmp_path).about == {"why": [1]}
    content = json.loads((tmp_path / "pruning.json").read_text())
    assert content["plan"] == dump_plan(plan)
    (tmp_path / "pruning.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=r"^[^\n]{1,500}$") as caught:
        read_record(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'pruning.json'}: not a record of pruning: ")
    assert message in str(caught.value)
