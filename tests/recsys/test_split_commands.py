"""Filters and splits of the commands `lmcore recsys ...`: said, remembered and refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from lmcore.cli import app
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.filters import filter_interactions
from lmcore.recsys.folder import load_run
from lmcore.recsys.loading import load_model
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.rules import SplitRule
from lmcore.recsys.splits import leave_last, split_by_time

SMALL = [
    "--threads", "1", "--device", "cpu", "--set", "hidden_size=8", "--set", "max_length=6",
    "--set", "batch_size=8", "--set", "negatives=5", "--set", "eval_every=1", "--epochs", "1",
]  # fmt: skip
LEAST = ["--core", "5"]
LAST = [*LEAST, "--split-by", "leave-last", "--last", "2"]
TIME = [*LEAST, "--split-by", "time", "--valid-from", "3000", "--test-quantile", "0.9"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["recsys", *[str(a) for a in arguments]], prog_name="lmcore")


def check_failed(result: Result, text: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("lmcore: ") or "Error: " in last
    assert text in last, result.stderr


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who begin at other times, one who is seldom here, and an item new in the end."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "data.inter"
    lines = ["user_id:token\titem_id:token\ttimestamp:float\n"]
    for user in range(40):
        start = int(generator.integers(0, 4000))
        items = generator.choice(20, 10, replace=False)
        lines += [f"u{user}\ti{i}\t{start + 100 * k}\n" for k, i in enumerate(items)]
    lines += ["rare\ti0\t3\n", "u0\tnew\t99999\n"]
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module", params=["last", "time"])
def trained(
    request: pytest.FixtureRequest, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("runs") / "out"
    options = LAST if request.param == "last" else TIME
    result = run("train", "plain", "--data", file, "--out", out, *SMALL, *options)
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    kept = "kept 40 of 41 users, 20 of 21 items, 400 of 402 interactions (users of at least 5, item"
    assert lines[1].startswith(kept)
    if request.param == "last":
        assert lines[2].startswith(
            "by leave-last, last 2, cold_items keep: 240 to train on, 40 users with 80 validation "
        )
        assert re.match(r"leave-last: \d\d\.\d % of the training interactions lie after", lines[3])
    else:
        assert re.match(
            r"by time, valid_from 3000, test_from \d+, cold_items drop: \d+ to train on, ", lines[2]
        )
        assert lines[3] == "time: no training interaction lies after the first test item"
    return request.param, out


def test_a_run_remembers_its_filter_and_split(trained: tuple[str, Path], file: Path) -> None:
    kind, out = trained
    data = json.loads((out / "recipe.json").read_text())["data"]
    assert data["filter"] == {"min_user": 5, "min_item": 5}
    rows, _ = filter_interactions(read_interactions(file), core=5)
    expected = leave_last(rows, 2)
    if kind == "time":
        expected = split_by_time(rows, valid_from=3000, test_quantile=0.9)
    assert data["split"] == expected.rule.to_dict()
    found = run("evaluate", out, "--data", file, "--json", "--no-baselines")
    assert found.exit_code == 0, found.stderr
    metrics = json.loads(found.stdout)["metrics"]
    assert metrics == pytest.approx(evaluate(load_model(out), expected).metrics, abs=1e-6)
    again = load_run(out)
    assert again.rule == expected.rule
    np.testing.assert_array_equal(again.interactions.items, rows.items)
    # The same in words is no other split, and another one is refused.
    same = LAST[2:] if kind == "last" else TIME[2:]
    assert run("evaluate", out, "--data", file, *same).exit_code == 0
    for other in (
        ["--split-by", "leave-one-out"],
        ["--split-by", "leave-last", "--last", "3"],
        ["--split-by", "time", "--valid-from", "3001", "--test-quantile", "0.9"],
    ):
        failed = run("evaluate", out, "--data", file, *other)
        check_failed(failed, "the run was trained on another split, by ")
    recommended = run("recommend", out, "u0", "--top", 3)
    assert len(json.loads(recommended.stdout)["items"]) == 3
    check_failed(run("recommend", out, "rare"), "user 'rare' is not in the id map")


def test_a_run_goes_on_with_its_own_split_alone(trained: tuple[str, Path], file: Path) -> None:
    kind, out = trained
    own, other = (LAST, TIME) if kind == "last" else (TIME, LAST)
    arguments = ("train", "plain", "--data", file, "--out", out, *SMALL, "--quiet")
    assert run(*arguments, *own).exit_code == 0
    check_failed(run(*arguments, *other), "holds another run: data.")
    check_failed(run(*arguments, *own[2:]), "holds another run: data.")
    check_failed(run(*arguments, *LEAST), "holds another run: data.split.by is ")


def test_leave_one_out_leaves_no_trace(file: Path, tmp_path: Path) -> None:
    """Runs from before there were other splits, and those of today, are the same."""
    arguments = ("train", "plain", "--data", file, "--out", tmp_path, *SMALL)
    result = run(*arguments)
    assert "\nleave-one-out: " in result.stderr
    assert "\n1 held-out item new to training\n" in result.stderr
    before = (tmp_path / "recipe.json").read_bytes()
    data = json.loads(before)["data"]
    assert not {"filter", "split"} & set(data)
    assert run(*arguments, "--split-by", "leave-one-out", "--quiet").exit_code == 0
    assert (tmp_path / "recipe.json").read_bytes() == before
    assert load_run(tmp_path).rule == SplitRule()
    # Also one that these data do not have: its end would be before its beginning.
    for options in ([], ["--test-quantile", "0.1"]):
        failed = run("evaluate", tmp_path, "--data", file, "--split-by", "time", *options)
        text = "the run was trained on another split, by leave-one-out, cold_items keep"
        check_failed(failed, text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--core", "0"], "--core"),
        (["--core", "400"], "no interaction is left where each user has at least 400"),
        (["--min-item", "400"], "no interaction is left where each user has at least 1 and"),
        (["--split-by", "random"], "split must be by one of leave-one-out, leave-last, time"),
        (["--split-by", "leave-last"], "last must be given"),
        (["--last", "2"], "last is not for a split by leave-one-out"),
        (["--split-by", "time", "--valid-from", "0"], "valid_from 0 leaves no training item"),
        (["--split-by", "time", "--valid-quantile", "1"], "valid_quantile must be "),
        (["--split-by", "time", "--valid-quantile", "1.5"], "--valid-quantile"),
        (
            ["--split-by", "time", "--valid-from", "9", "--test-from", "8"],
            "valid_from must not be after test_from: got 9 and 8",
        ),
        (["--split-by", "time", "--test-from", "soon"], "test_from must be a number or a date"),
        (["--split-by", "time", "--test-from", "2020-01-01"], "test_from must be a number, as"),
        (["--cold-items", "last"], "cold_items must be "),
    ],
)
def test_bad_options(file: Path, tmp_path: Path, options: list[str], text: str) -> None:
    out = tmp_path / "out"
    check_failed(run("train", "plain", "--data", file, "--out", out, *SMALL, *options), text)
    assert not out.exists()


def test_a_run_without_validation_says_so(file: Path, tmp_path: Path) -> None:
    options = ["--split-by", "leave-last", "--last", "9", *SMALL]
    arguments = ("train", "plain", "--data", file, "--out", tmp_path / "run", *options)
    result = run(*arguments)
    assert result.exit_code == 0
    text = "no user has a validation item: `best` is the last model, and its worth is not known\n"
    assert result.stderr.endswith(text)
    assert json.loads(result.stdout)["NDCG@10"] is None
    assert text not in run(*arguments, "--quiet").stderr
    valid = ("evaluate", tmp_path / "run", "--data", file, "--split", "valid")
    check_failed(run(*valid), "no user has a validation item: that takes 19 interactions")


def test_times_are_needed(tmp_path: Path) -> None:
    data = tmp_path / "pairs.txt"
    data.write_text("".join(f"{user} {item}\n" for user in range(1, 9) for item in range(1, 6)))
    arguments = ("train", "plain", "--data", data, "--out", tmp_path / "out", *SMALL)
    check_failed(run(*arguments, "--split-by", "time"), "a split by time needs times: the inter")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filter", 3), ("filter", {}), ("filter", {"min_user": True}), ("filter", {"min_user": 0}),
        ("filter", {"min_user": 2**70}), ("split", 3), ("split", {"by": "x"}), ("split", {"a": 1}),
        ("split", {"by": "leave-last", "last": -1}), ("split", {"by": "time", "valid_from": []}),
    ],
    ids=str,
)  # fmt: skip
def test_broken_recipes(
    trained: tuple[str, Path], file: Path, tmp_path: Path, name: str, value: object
) -> None:
    shutil.copytree(trained[1], tmp_path / "run", symlinks=True)
    path = tmp_path / "run/recipe.json"
    recipe = json.loads(path.read_text())
    recipe["data"][name] = value
    path.write_text(json.dumps(recipe))
    result = run("evaluate", tmp_path / "run", "--data", file, "--json")
    check_failed(result, f"{path}: not the recipe of a run: data.{name}")
