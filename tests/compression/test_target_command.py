"""`lmcore compression plan --target ...`: candidates, their losses and times, and refusals."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.compression import latency_models
from lmcore.compression.candidate_losses import measure_loss, score_candidates
from lmcore.compression.choosing import Sizes
from lmcore.compression.families import find_family
from lmcore.compression.importance import Calibration
from lmcore.compression.latency_models import open_stopwatch, predict_times, search_times
from lmcore.compression.model_folders import prune_folder
from lmcore.compression.plan import find_kept, prune_shape
from lmcore.compression.plan_files import read_plan
from lmcore.compression.planning import start_plan
from lmcore.compression.recipes import OPENBA_V1
from lmcore.compression.search import search
from lmcore.compression.searched_stages import add_candidate_stages, add_searched_stages
from lmcore.compression.targets import Conditions, Target
from lmcore.cost import Shape, count_parameters, read_shape
from tiny_generation import PROMPTS, save_pair

TEXT = "\n".join(text for text in PROMPTS if text) + "\n"
HALF = Target(kind="params", value=0.8, is_share=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("targets") / "openba")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "text.txt"
    file.write_text(TEXT * 2)
    return file


def plan(model: Path, out: object, *arguments: object) -> tuple[int, str, str]:
    return run_here("compression", "plan", model, out, "--quiet", *arguments)


def test_candidates_are_listed_and_the_best_is_planned(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "plan"
    arguments = ["--target", "params=80%", "--candidates", 3]
    code, output, errors = plan(model, out, *arguments)
    assert code == 0, errors
    lines = output.splitlines()
    assert lines[0].split()[:3] == ["encoder", "decoder", "hidden"]
    assert [line.split()[0] for line in lines[1:]] == ["best", "2", "3"]
    made = read_plan(out)
    [stage] = made.stages
    assert (stage.method, stage.seed) == ("random", 0)
    shape, whole = prune_shape(made), count_parameters(read_shape(model)).distinct
    left = count_parameters(shape).distinct
    assert left <= 0.8 * whole
    assert f"stage 1: {left:,} parameters of {whole:,}" in errors
    code, output, errors = plan(model, tmp_path / "other", *arguments, "--json")
    assert code == 0, errors
    rows = json.loads(output)
    assert len(rows) == 3
    assert rows[0]["parameters"] == left
    assert (rows[0]["hidden"], rows[0]["loss"]) == (shape.hidden_size, None)
    assert (tmp_path / "other").read_bytes() == out.read_bytes()


def test_rounds_are_stages_with_a_line_that_says_why(tmp_path: Path, model: Path) -> None:
    code, _, errors = plan(
        model, tmp_path / "plan", "--target", "params=35%", "--divisor", "hidden=1", "--name", "a"
    )
    assert code == 0, errors
    stages = read_plan(tmp_path / "plan").stages
    assert len(stages) >= 2
    assert [stage.name for stage in stages][:2] == ["a 1", "a 2"]
    assert "more than half of the parameters would go at once" in errors
    assert f"stage {len(stages)}: " in errors
    code, _, errors = plan(model, tmp_path / "one", "--target", "params=45%", "--rounds", 1)
    assert code == 0, errors
    assert len(read_plan(tmp_path / "one").stages) == 1
    assert "would go at once" not in errors


def test_a_plan_goes_on_and_given_sizes_stay(tmp_path: Path, model: Path) -> None:
    out, shape = tmp_path / "plan", read_shape(model)
    assert plan(model, out, "--ffn", shape.inner_size - 3)[0] == 0
    code, _, errors = plan(
        model, out, "--after", out, "--target", "params=75%", "--hidden", shape.hidden_size
    )
    assert code == 0, errors
    made = read_plan(out)
    assert len(made.stages) == 2
    assert prune_shape(made).hidden_size == shape.hidden_size
    before, after = (count_parameters(prune_shape(made, n)).distinct for n in (1, 2))
    assert after <= 0.75 * before


def test_scores_choose_what_the_best_sizes_keep(tmp_path: Path, model: Path, text: Path) -> None:
    """Importance is scored once, and another target takes it from the file."""
    scores = tmp_path / "scores"
    arguments = ["--choose", "taylor", "--scores", scores]
    read = ["--text", text, "--tokens", 200]
    code, _, errors = plan(model, tmp_path / "a", "--target", "params=80%", *arguments, *read)
    assert code == 0, errors
    assert f"written to {scores}" in errors
    code, _, errors = plan(model, tmp_path / "b", "--target", "params=70%", *arguments)
    assert code == 0, errors
    assert f"read from {scores}" in errors
    code, _, errors = plan(model, tmp_path / "c", "--target", "params=80%", *arguments)
    assert code == 0, errors
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()
    assert read_plan(tmp_path / "a").stages[0].method == "taylor"


def test_losses_are_those_of_the_pruned_folders(tmp_path: Path, model: Path, text: Path) -> None:
    start, valid = start_plan(model), Calibration(text=text, tokens=300)
    found = search(start, HALF, candidates=3)
    scored = score_candidates(model, start, found, valid, seed=3)
    losses = [one.loss for one in scored]
    assert losses == sorted(losses, key=lambda loss: loss or 0.0)
    assert {one.shape for one in scored} == {one.shape for one in found}
    prune_folder(model, tmp_path / "cut", add_candidate_stages(start, scored[0], seed=3))
    assert measure_loss(tmp_path / "cut", valid) == losses[0]
    assert losses[0] != score_candidates(model, start, scored[:1], valid, seed=4)[0].loss
    # How many rows are read together makes no difference but for rounding.
    other = measure_loss(tmp_path / "cut", replace(valid, batch_size=1))
    assert math.isclose(other, losses[0] or 0.0, rel_tol=1e-5)


def test_losses_are_kept_and_a_killed_search_goes_on(
    tmp_path: Path, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, valid = start_plan(model), Calibration(text=text, tokens=300)
    found, file = search(start, HALF, candidates=3), tmp_path / "losses"

    class KilledError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 3
        if done == 1:
            raise KilledError

    with pytest.raises(KilledError):
        score_candidates(model, start, found, valid, file=file, progress=stop)
    assert len(json.loads(file.read_text())["losses"]) == 1
    cuts: list[Any] = []

    def count(*arguments: Any) -> Any:
        cuts.append(arguments)
        return prune_folder(*arguments)

    monkeypatch.setattr("lmcore.compression.candidate_losses.prune_folder", count)
    scored = score_candidates(model, start, found, valid, file=file)
    assert len(cuts) == 2
    assert score_candidates(model, start, found, valid, file=file, name="other") == scored
    assert len(cuts) == 2
    # Another seed, text or number of tokens has other losses.
    score_candidates(model, start, found[:1], valid, file=file, seed=1)
    score_candidates(model, start, found[:1], replace(valid, tokens=200), file=file)
    assert len(cuts) == 4
    monkeypatch.undo()
    assert score_candidates(model, start, found, valid) == scored


def test_the_best_is_the_one_of_the_least_loss(tmp_path: Path, model: Path, text: Path) -> None:
    arguments = ["--target", "params=80%", "--candidates", 3, "--valid", text]
    arguments += ["--valid-tokens", 300, "--losses", tmp_path / "losses", "--json"]
    code, output, errors = plan(model, tmp_path / "plan", *arguments)
    assert code == 0, errors
    rows = json.loads(output)
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses)
    made = read_plan(tmp_path / "plan")
    assert prune_shape(made).hidden_size == rows[0]["hidden"]
    prune_folder(model, tmp_path / "cut", made)
    loss = measure_loss(tmp_path / "cut", Calibration(text=text, tokens=300))
    assert math.isclose(loss, losses[0], rel_tol=1e-6)


def test_files_that_hold_no_losses(tmp_path: Path, model: Path, text: Path) -> None:
    file, before = tmp_path / "losses", b""
    arguments = ["--target", "params=80%", "--valid", text, "--losses", file]
    start = '{"version": 1, "losses": {"'
    for content in ("", "[]", "{}", '{"version": 1}', '{"version": 2, "losses": {}}',
                    '{"version": true, "losses": {}}',
                    start + 'a": 1.0}}', start + '0" : "b"}}', start + "0" * 64 + '": NaN}}',
                    "[" * 200_000):  # fmt: skip
        file.write_text(content)
        before = file.read_bytes()
        check_line(plan(model, tmp_path / "plan", *arguments), str(file))
        assert file.read_bytes() == before
    assert not (tmp_path / "plan").exists()
    file.unlink()
    check_line(plan(model, file, *arguments), "the output is an input too")
    assert not file.exists()


def test_validation_texts_that_cannot_be_used(tmp_path: Path, model: Path) -> None:
    for name, content, expected in (
        ("empty", "", "the file holds no texts"),
        ("blank", "\n\n", "the file holds no texts"),
        ("rows.jsonl", '{"other": 1}\n', "expected a text under 'text'"),
    ):
        file = tmp_path / name
        file.write_text(content)
        result = plan(model, tmp_path / "plan", "--target", "params=80%", "--valid", file)
        check_line(result, expected)
    result = plan(model, tmp_path / "plan", "--target", "params=80%", "--valid", tmp_path / "none")
    check_line(result, "none")
    mute = tmp_path / "mute"
    shutil.copytree(model, mute)
    for name in ("tokenizer.json", "spiece.model"):
        (mute / name).unlink(missing_ok=True)
    file.write_text(TEXT)
    result = plan(mute, tmp_path / "plan", "--target", "params=80%", "--valid", file)
    check_line(result, f"a candidate of {mute}: ", "expected spiece.model or tokenizer.json")
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--target", "params="], "--target: params must be a number such as 3.4e9"),
        (["--target", "params=nan"], "--target: params must be a number"),
        (["--target", "params=inf"], "--target: params must be a number"),
        (["--target", "params=0"], "--target: params must be above 0"),
        (["--target", "params=-1"], "--target: params must be a number"),
        (["--target", "params=1e400"], "--target: params must be a number"),
        (["--target", f"params={'9' * 5000}"], "--target: params must be a number"),
        (["--target", "params=99999999999999999999"], "--target: params must be above 0 and at"),
        (["--target", ""], "--target: a target must be one of"),
        (["--target", "flops=3"], "--target: a target must be one of"),
        (["--target", "memory_mb=3G"], "--target: memory_mb must be a number such as 20.5"),
        (["--target", "params=1", "--target", "params=2"], "--target: expected one target, got 2"),
        (["--target", "params=1e12"], "the model is under the target already"),
        (["--target", "params=3"], "no sizes come down to 3 parameters; the nearest has"),
        (["--target", "params=90%", "--divisor", "ffn=0"], "the divisor of ffn must be from 1"),
        (["--target", "params=90%", "--divisor", "ffn"], "--divisor must be NAME=N"),
        (["--target", "params=90%", "--divisor", "ffn=-1"], "--divisor must be NAME=N"),
        (["--target", "params=90%", "--divisor", "a=1"], "a divisor must be of one of"),
        (["--target", "params=90%", "--divisor", "ffn=1", "--divisor", "ffn=2"], "names ffn twice"),
        (["--target", "params=90%", "--least", "heads=999"], "the least size of heads must be"),
        (["--target", "params=90%", "--least", "heads=1e9"], "--least must be NAME=N"),
        (["--target", "params=90%", "--hidden", "99999"], "hidden must be from 1 to"),
        (["--target", "params=90%", "--dtype", "float8"], "dtype must be one of"),
        (["--target", "params=90%", "--losses", "x"], "--losses is for --valid"),
        (["--target", "params=90%", "--valid-tokens", "3"], "--valid-tokens is for --valid"),
        (["--target", "params=90%", "--choose", "block_influence"], "block_influence scores"),
        (["--ffn", "3", "--candidates", "3"], "--candidates is for --target"),
        (["--ffn", "3", "--rounds", "2"], "--rounds is for --target"),
        (["--ffn", "3", "--json"], "--json is for --target"),
        (["--ffn", "3", "--divisor", "ffn=2"], "--divisor is for --target"),
        (["--ffn", "3", "--device", "cpu"], "--device is for --target"),
        (["--target", "params=90%", "--device", "cpu"], "--device is for ms_per_token and"),
        (["--target", "ms_per_token=3", "--device", "vulkan"], "device"),
    ],
)
def test_what_is_refused(tmp_path: Path, model: Path, arguments: list[str], expected: str) -> None:
    check_line(plan(model, tmp_path / "plan", *arguments), expected)
    assert not (tmp_path / "plan").exists()


def test_a_configuration_alone_has_no_losses(tmp_path: Path, model: Path, text: Path) -> None:
    result = plan(
        model / "config.json", tmp_path / "plan", "--target", "params=80%", "--valid", text
    )
    check_line(result, "--valid needs the folder of the model")
    code, _, errors = plan(model / "config.json", tmp_path / "plan", "--target", "params=80%")
    assert code == 0, errors


def test_times_between_what_was_measured_are_predicted() -> None:
    """A time that follows the model's three terms is told exactly, from four shapes."""
    seen: list[Shape] = []

    def time(shape: Shape) -> float:
        seen.append(shape)
        counted = count_parameters(shape)
        layers = counted.decoder_attention + counted.decoder_cross_attention
        return (
            2
            + 0.5 * shape.decoder_layers
            + 3e-9 * (layers + counted.decoder_feed_forward + counted.embedding)
        )

    predict = predict_times(time, OPENBA_V1, find_family("openba"))
    assert len(seen) == 4
    for shape in (*seen, replace(OPENBA_V1, decoder_layers=30, inner_size=8192)):
        assert math.isclose(float(predict(shape)), time(shape), rel_tol=1e-6)


def test_noise_never_makes_a_larger_model_faster() -> None:
    times = iter([5.0, 7.0, 9.0, 30.0])  # the wrong way round
    predict = predict_times(lambda shape: next(times), OPENBA_V1, find_family("openba"))
    half = replace(OPENBA_V1, decoder_layers=18, inner_size=5504)
    assert 0 < float(predict(half)) <= float(predict(OPENBA_V1))


def _fake_times(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """A clock by which small models are slower than what is predicted of them."""

    def time(watch: Any, shape: Shape) -> float:
        watch.place = {"device": "a clock", "dtype": "float32", "threads": 1}
        slow = factor if shape.inner_size % 8 or shape.hidden_size % 8 else 1.0
        return slow * count_parameters(shape).distinct / 1e6

    monkeypatch.setattr(latency_models.Stopwatch, "_time", time)


def test_candidates_are_measured_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    """What is slower than predicted is left out, and the search goes on below."""
    start = start_plan(model)
    whole = count_parameters(start.shape).distinct / 1e6
    for factor in (1.0, 1.2):
        _fake_times(monkeypatch, factor)
        watch = open_stopwatch(model, start)
        target = Target(kind="ms_per_token", value=0.8 * whole)
        found = search_times(model, start, target, watch=watch, candidates=5)
        assert found
        assert all(one.ms_per_token == watch.times[one.shape] <= 0.8 * whole for one in found)
        assert watch.describe().startswith("times: measured on a clock, float32, 1 threads")
    made = add_searched_stages(start, target, model=model)
    assert count_parameters(prune_shape(made)).distinct < count_parameters(start.shape).distinct
    with pytest.raises(ValueError, match="expected a model or its configuration"):
        add_searched_stages(start, target)
    with pytest.raises(ValueError, match="the model is under the target already"):
        search_times(model, start, Target(kind="ms_per_token", value=2 * whole))
    code, output, errors = plan(model, tmp_path / "plan", "--target", "ms_per_token=80%")
    assert code == 0, errors
    assert "ms/token" in output
    assert "times: measured on a clock" in errors


def test_random_models_are_timed_here(tmp_path: Path, model: Path) -> None:
    start = start_plan(model)
    told = Conditions(prompt_tokens=4, new_tokens=2, repeats=1, device="cpu")
    watch = open_stopwatch(model, start, told)
    small = prune_shape(add_searched_stages(start, HALF, fixed=Sizes(vocabulary=range(40))))
    assert watch.measure(start.shape) >= 0
    assert watch.measure(small) >= 0
    assert watch.place["dtype"] == "float32"
    assert {*watch.times} == {start.shape, small}
    assert "4 + 2 tokens, medians of 1" in watch.describe()
    assert find_kept(start).vocabulary


def test_an_encoder_alone_generates_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 4}')
    result = plan(tmp_path, tmp_path / "plan", "--target", "ms_per_token=1")
    check_line(result, "an encoder alone generates no tokens")
