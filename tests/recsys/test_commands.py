"""The commands `lmcore recsys ...`: what they print, where, and with which exit code."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from lmcore.cli import app
from lmcore.recsys.baselines import make_baseline
from lmcore.recsys.data import leave_one_out
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.loading import load_model
from lmcore.recsys.metrics import DEFAULT_METRICS
from lmcore.recsys.reading import read_interactions
from lmcore.training.folder import RunFolder

SMALL = [
    "--threads", "1", "--device", "cpu", "--set", "hidden_size=8", "--set", "max_length=6",
    "--set", "batch_size=8", "--set", "negatives=5", "--set", "eval_every=1", "--set", "start=3",
    "--set", "loop.save_every_seconds=0",
]  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["recsys", *[str(a) for a in arguments]], prog_name="lmcore")


def check_failed(result: Result, text: str) -> None:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"(?:skipped .*\n)*lmcore: [^\n]+\n", result.stderr), result.stderr
    assert text in result.stderr


@pytest.fixture(scope="module", autouse=True)
def _threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids with gaps, and one user with two items."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pairs.txt"
    lines = [
        f"{10 * user} {3 * item + 5}\n"
        for user in range(1, 41)
        for item in generator.choice(30, 2 if user == 7 else 8, replace=False)
    ]
    path.write_text("".join(lines))
    return path


def copy_model(run: Path, folder: Path) -> None:
    """The best model without its digests, as `save_pretrained` leaves one."""
    shutil.copytree(run / "best", folder)
    (folder / "manifest.json").unlink()


@pytest.fixture(scope="module")
def trained(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    result = run("train", "consistency", "--data", file, "--out", out, "--epochs", 2, *SMALL)
    assert result.exit_code == 0, result.stderr
    return out


def test_train_says_what_it_read_and_did(file: Path, tmp_path: Path) -> None:
    arguments = ("train", "plain", "--data", file, "--out", tmp_path, "--epochs", 2, *SMALL)
    result = run(*arguments)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["out"], summary["epochs"]) == (str(tmp_path), 2)
    lines = result.stderr.splitlines()
    assert lines[0].startswith("40 users, 30 items, 314 interactions")
    assert lines[1] == "1 user with fewer than 3 items: for training only"
    assert re.match(r"step \d/\d+  loss \d\.\d+  NDCG@10 0\.\d+  best at step \d", lines[2])
    again = run(*arguments, "--quiet")
    assert (again.exit_code, again.stderr) == (0, "")
    assert json.loads(again.stdout) == summary


def test_options_change_the_recipe(file: Path, tmp_path: Path) -> None:
    options = ["--backbone", "gru4rec", "--seed", 5, "--set", "optimizer.lr=.01", "--quiet"]
    result = run(
        "train", "reversal", "--data", file, "--out", tmp_path, "--epochs", 1, *SMALL, *options
    )
    assert result.exit_code == 0, result.stderr
    config = json.loads((tmp_path / "recipe.json").read_text())["config"]
    assert (config["backbone"], config["loop"]["seed"]) == ("gru4rec", 5)
    assert config["optimizer"]["lr"] == 0.01
    assert (config["threshold"], config["start"], config["hidden_size"]) == (5, 3, 8)
    assert load_model(tmp_path).config.model_type == "gru4rec"


def test_recipe() -> None:
    shown = json.loads(run("recipe", "consistency", "--set", "alpha=0.5").stdout)
    assert (shown["alpha"], shown["threshold"]) == (0.5, 5)


def test_recipe_needs_no_torch() -> None:
    code = "import sys, atexit\natexit.register(lambda: print('torch' in sys.modules))\n"
    code += "sys.argv = ['lmcore', 'recsys', 'recipe', 'patient', '--set', 'epochs=3']\n"
    code += "from lmcore.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    *shown, imported = done.stdout.splitlines()
    assert json.loads("\n".join(shown))["epochs"] == 3
    assert (imported, done.stderr) == ("False", "")


def test_train_says_that_mining_never_started(file: Path, tmp_path: Path) -> None:
    def train(recipe: str, out: str, *options: object) -> list[str]:
        arguments = ("--data", file, "--out", tmp_path / out, "--epochs", 2, *SMALL, *options)
        result = run("train", recipe, *arguments)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["epochs"] == 2
        return result.stderr.splitlines()

    late = ("--set", "start=1000")
    said = "mining never started: it starts with step 1000; 10 steps are done"
    assert train("reversal", "steps", *late)[-1] == said
    # So does the same command when all is trained already.
    assert train("reversal", "steps", *late)[-1] == said
    rule = "in epoch 9 or later, after one whose loss fell by little; 2 epochs are done"
    lines = train("consistency", "epochs", "--set", "start=epoch_loss")
    assert lines[-1] == f"mining never started: it starts {rule}"
    teacher = ("--set", "ema_decay=0.9", *late)
    lines = train("plain", "teacher", *teacher)
    assert lines[-1].startswith("the moving average never started: it starts with step 1000; ")
    assert train("reversal", "quiet", *late, "--quiet") == []
    for recipe, out in (("reversal", "started"), ("plain", "plain")):
        assert not any("never started" in line for line in train(recipe, out))


def test_evaluate_says_that_there_is_no_model_yet(
    trained: Path, file: Path, tmp_path: Path
) -> None:
    """A run that was ended before its first validation."""
    run_folder = tmp_path / "run"
    shutil.copytree(trained, run_folder, symlinks=True)
    (run_folder / "best").unlink()
    text = "a run without a model yet: the first comes with its first validation"
    check_failed(run("evaluate", run_folder, "--data", file), text)
    check_failed(run("recommend", run_folder, 10), text)


@pytest.mark.parametrize("protocol", ["full", "sampled"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluate(trained: Path, file: Path, protocol: str, split: str) -> None:
    options = ["--protocol", protocol, "--split", split]
    result = run("evaluate", trained, "--data", file, *options, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert list(found) == ["protocol", "split", "users", "ties", "metrics", "baselines"]
    assert (found["protocol"], found["split"], found["users"]) == (protocol, split, 39)
    assert list(found["metrics"]) == ["HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR"]
    data = leave_one_out(read_interactions(file))
    expected = evaluate(load_model(trained), data, split=split, protocol=protocol)
    others = found.pop("baselines")
    assert found == expected.to_dict()
    for name in ("popularity", "item-knn"):
        one = evaluate(make_baseline(name, data), data, split=split, protocol=protocol)
        assert others[name] == {"ties": one.ties, "metrics": one.metrics}
    table = run("evaluate", trained, "--data", file, *options).stdout.splitlines()
    assert table[0].startswith(f"{split}, {protocol}: 39 users, ")
    assert table[1].split() == ["model", "popularity", "item-knn"]
    columns = [found, *others.values()]
    for line, name in zip(table[2:], found["metrics"], strict=True):
        assert line.split() == [name, *(f"{column['metrics'][name]:.4f}" for column in columns)]
    alone = run("evaluate", trained, "--data", file, *options, "--no-baselines")
    assert f"NDCG@10 {found['metrics']['NDCG@10']:.4f}\n" in alone.stdout
    alone = run("evaluate", trained, "--data", file, *options, "--no-baselines", "--json")
    assert json.loads(alone.stdout) == found


def test_evaluate_asks_for_metrics(trained: Path, file: Path) -> None:
    names = ["Coverage@3", "NDCG@20", "MRR", "Popularity@3", "Recall@30"]
    options = [text for name in names for text in ("--metric", name)]
    result = run("evaluate", trained, "--data", file, *options, "--json")
    found = json.loads(result.stdout)
    assert list(found["metrics"]) == names
    assert all(list(one["metrics"]) == names for one in found["baselines"].values())
    assert found["metrics"]["Recall@30"] == 1
    data = leave_one_out(read_interactions(file))
    assert found["metrics"] == evaluate(load_model(trained), data, metrics=names).metrics


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NDCG@31", "K of NDCG@31 must be at most the 30 items there are"),
        ("HR@31", "K of HR@31 must be at most the 30 items there are"),
        ("HR@0", "K of HR@0 must be from 1 to 2147483647"),
        ("HR@-1", "K of HR@-1 must be from 1"),
        ("HR@4294967296", "must be from 1 to 2147483647"),
        ("HR@" + "9" * 400, "there is no metric 'HR@999"),
        ("HR@nan", "there is no metric 'HR@nan': the nearest is HR@10"),
        ("HR", "HR needs a K from 1 on, such as HR@10: got 'HR'"),
        ("ndgc@20", "there is no metric 'ndgc@20': the nearest is NDCG@20"),
        ("", "there is no metric ''"),
        ("\x1b[1m@5", "there is no metric '\\x1b[1m@5'"),
    ],
)
def test_evaluate_refuses_metrics(trained: Path, file: Path, name: str, text: str) -> None:
    check_failed(run("evaluate", trained, "--data", file, "--json", "--metric", name), text)


def test_lists_need_the_whole_catalogue(trained: Path, file: Path) -> None:
    options = ("--metric", "Coverage@5", "--protocol", "sampled")
    result = run("evaluate", trained, "--data", file, "--json", *options)
    check_failed(result, "Coverage@5 needs the protocol full")


def test_the_best_step_by_any_metric(file: Path, tmp_path: Path) -> None:
    train = ("train", "plain", "--data", file, "--out", tmp_path / "out", *SMALL, "--quiet")
    result = run(*train, "--epochs", 2, "--set", "loop.metric=MAP@20")
    assert result.exit_code == 0, result.stderr
    assert list(json.loads(result.stdout)) == ["out", "epochs", "best_epoch", "MAP@20"]
    lines = (tmp_path / "out/log.jsonl").read_text().splitlines()
    validated = [m for m in (json.loads(line).get("metrics") for line in lines) if m]
    assert [list(m) for m in validated] == [[*DEFAULT_METRICS, "MAP@20"]] * 2
    best = max(m["MAP@20"] for m in validated)
    assert json.loads(result.stdout)["MAP@20"] == best
    out = ("--out", tmp_path / "other")
    for name, text in (
        ("ndcg@20", "loop.metric must be a metric: there is no metric 'ndcg@20': the nearest is"),
        ("NDCG@31", "K of NDCG@31 must be at most the 30 items there are"),
        ("Popularity@5", "loop.metric must be one of HR@K, Recall@K"),
        ("MRR@0", "K of MRR@0 must be from 1"),
    ):
        check_failed(run(*train, *out, "--set", f"loop.metric={name}"), text)
    lowest = ("--set", "loop.metric=MRR@5", "--set", "loop.metric_mode=min")
    check_failed(run(*train, *out, *lowest), "loop.metric_mode must be max")
    assert not (tmp_path / "other").exists()


def test_evaluate_takes_the_ids_of_the_model(trained: Path, file: Path, tmp_path: Path) -> None:
    """A file with a part of the users has other items; the saved map keeps the ids."""
    part = tmp_path / "part.txt"
    part.write_text("".join(file.read_text().splitlines(keepends=True)[:16]))
    result = run("evaluate", trained, "--data", part, "--json")
    assert json.loads(result.stdout)["users"] == 2
    part.write_text("1 5\n1 8\n1 7\n")
    check_failed(run("evaluate", trained, "--data", part, "--json"), "part.txt")


def test_evaluate_foreign_weights(trained: Path, file: Path, tmp_path: Path) -> None:
    """Their item ids are rows of the table, also where the data leave gaps."""
    weights, rows = tmp_path / "sasrec.pth", tmp_path / "rows.txt"
    torch.save(load_model(trained).state_dict(), weights)
    pairs = [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
    rows.write_text("".join(f"{user} {(item - 5) // 3 + 1}\n" for user, item in pairs))
    one = run("evaluate", weights, "--data", rows, "--json")
    other = run("evaluate", trained, "--data", file, "--json")
    assert json.loads(one.stdout) == json.loads(other.stdout)
    rows.write_text("1 2\n1 30\n1 4\n")
    kept = [json.loads(run("recommend", weights, 1, "--data", rows, "-k", 30).stdout)]
    assert {item["item"] for item in kept[0]["items"]} == set(range(1, 31)) - {2, 4, 30}
    check_failed(run("evaluate", weights, "--data", file), "item is not in the id map")
    check_failed(
        run("evaluate", weights, "--data", rows, "--heads", 3), "multiple of the attention"
    )


def test_options_that_would_do_nothing_are_refused(trained: Path, file: Path) -> None:
    evaluating = "evaluate", trained, "--data", file
    check_failed(run(*evaluating, "--seed", 0), "--protocol full draws none")
    check_failed(run(*evaluating, "--heads", 1), "--heads")
    check_failed(run("recommend", trained, 10, "--heads", 1), "--heads")
    drawn = [
        json.loads(run(*evaluating, "--protocol", "sampled", "--json", *seed).stdout)
        for seed in ((), ("--seed", 0), ("--seed", 1))
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_recommend(trained: Path, file: Path) -> None:
    result = run("recommend", trained, 10, 400, "--top", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["user"] for row in rows] == [10, 400]
    pairs = [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
    for row in rows:
        items = [item["item"] for item in row["items"]]
        assert len(items) == 3
        assert all((item - 5) % 3 == 0 and (row["user"], item) not in pairs for item in items)
        scores = [item["score"] for item in row["items"]]
        assert scores == sorted(scores, reverse=True)
    everyone = run("recommend", trained, "all", "--data", file, "-k", 3).stdout.splitlines()
    assert len(everyone) == 40
    # Sums of a batch of 40 are rounded differently from those of 2: equal but for last digits.
    first = {item["item"]: item["score"] for item in json.loads(everyone[0])["items"]}
    assert first == pytest.approx({i["item"]: i["score"] for i in rows[0]["items"]}, abs=1e-5)


def test_failures(trained: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train = ("--data", file, "--out", out, *SMALL)
    check_failed(run("train", "best", *train), "RECIPE must be one of plain, representation")
    check_failed(run("train", "plain", *train, "--set", "speed=1"), "'speed' is no setting")
    check_failed(run("train", "plain", *train, "--set", "epochs"), "expected NAME=VALUE")
    check_failed(run("train", "plain", *train, "--backbone", "bert"), "backbone must be sasrec")
    check_failed(run("train", "plain", *train, "--device", "fast", "--quiet"), "device must be")
    check_failed(run("train", "plain", *train, "--set", "loop.metric=AUC"), "loop.metric must be")
    assert not out.exists()
    # What failed before its first state was saved does not bar the folder.
    late = ("--set", "loop.save_every_seconds=60", "--set", "optimizer.lr=1e30", "--quiet")
    check_failed(run("train", "plain", *train, *late), "is not finite; a smaller lr may help")
    assert run("train", "plain", *train, "--epochs", 1, "--quiet").exit_code == 0
    out = tmp_path / "other"
    huge = (
        "--data",
        file,
        "--out",
        out,
        *SMALL,
        "--set",
        "negatives=1048576",
        "--set",
        "batch_size=1048576",
        "--quiet",
    )
    check_failed(run("train", "plain", *huge), "out of memory: ")
    nothing = ("--data", tmp_path / "none.txt", "--out", out)
    check_failed(run("train", "plain", *nothing), "none.txt: No such file")
    bad = tmp_path / "bad.txt"
    bad.write_text("1 2\n1 x\n")
    check_failed(run("train", "plain", "--data", bad, "--out", out), "bad.txt")
    changed = ("--data", file, "--out", trained, "--epochs", 2, *SMALL, "--set", "optimizer.lr=0.5")
    check_failed(run("train", "consistency", *changed, "--quiet"), "config.optimizer.lr is 0.001")
    check_failed(run("evaluate", tmp_path, "--data", file), "without config.json")
    check_failed(run("recommend", trained, 11), "11")
    check_failed(run("recommend", tmp_path, 10), "holds no recipe.json that names the data")
    wrong = ("evaluate", trained, "--data", file, "--json")
    check_failed(run(*wrong, "--protocol", "half"), "protocol must be one of")
    check_failed(run(*wrong, "--split", "train"), "split must be one of")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "a"}, {"dropout": None}, {"dropout": 7.0}, {"item_count": -9},
        {"num_attention_heads": 3}, {"dtype": "float99"}, {"dtype": 3}, {"dtype": {"": "x"}},
        {"attn_implementation": True}, {"attn_implementation": "x\n"}, {"hidden_size": 2**63},
        {"num_hidden_layers": 10**9}, {"item_count": 10**12}, {"id2label": 3}, {"num_labels": "x"},
        {"num_labels": 10**9}, {"num_labels": 1e9},
    ],
    ids=str,
)  # fmt: skip
def test_broken_configurations(
    trained: Path, file: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    copy_model(trained, tmp_path / "run")
    path = tmp_path / "run/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for command in ("evaluate", "recommend"):
        arguments = [10] if command == "recommend" else []
        result = run(command, tmp_path / "run", *arguments, "--data", file)
        check_failed(result, f"{path}: not the configuration of a model: ")


@pytest.mark.parametrize("content", [b"", b"junk" * 50, 4, 100, -1])
def test_broken_weights(trained: Path, file: Path, tmp_path: Path, content: bytes | int) -> None:
    """Junk, or the first bytes of a file."""
    copy_model(trained, tmp_path / "run")
    path = tmp_path / "run/model.safetensors"
    path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    result = run("evaluate", tmp_path / "run", "--data", file, "--json")
    check_failed(result, f"{path}: not the weights of a model: ")


@pytest.mark.parametrize("change", [{"item_count": 40}, {"num_hidden_layers": 5}], ids=str)
def test_weights_of_another_configuration(
    trained: Path, file: Path, tmp_path: Path, change: dict[str, int]
) -> None:
    copy_model(trained, tmp_path / "run")
    path = tmp_path / "run/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    result = run("evaluate", tmp_path / "run", "--data", file, "--json")
    check_failed(result, "is missing, or has another shape than config.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"data": 1}', '{"data": {"path": 3}}', "\xff"])
def test_broken_recipe_file(trained: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run/recipe.json"
    path.write_bytes(text.encode("latin-1"))
    check_failed(run("recommend", tmp_path / "run", 10), f"{path}: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_runs_go_on(file: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["recsys", "train", "consistency", "--data", str(file), *SMALL, "--quiet"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('lmcore', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--epochs", "100000", "--out", str(broken)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    states = RunFolder(broken)
    while not states.states or states.states[-1] < 15:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    another = run(*arguments[1:], "--out", broken)
    check_failed(another, f"{broken}: another process is training into it")
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (process.returncode, output, errors) == (130, "", "lmcore: interrupted\n")
    # Of 40 users and rows of 8 an epoch is five steps.
    epochs = states.states[-1] // 5 + 2
    for out in (broken, whole):
        options = ["--epochs", str(epochs), "--out", str(out)]
        assert CliRunner().invoke(app, [*arguments, *options]).exit_code == 0
    weights = [(out / "best/model.safetensors").read_bytes() for out in (whole, broken)]
    assert weights[0] == weights[1]
    assert not [path for path in broken.iterdir() if path.name.startswith(".")]


def test_columns_are_remembered(tmp_path: Path) -> None:
    """A run reads its data again as it did; other data say which columns they have."""
    data, folder = tmp_path / "log.csv", tmp_path / "run"
    rows = [(f"u{u}", f"i{(u + t) % 7}") for u in range(8) for t in range(5)]
    data.write_text("who,what\n" + "".join(f"{user},{item}\n" for user, item in rows))
    columns = ["--user", "who", "--item", "what"]
    result = run("train", "plain", "--data", data, "--out", folder, *columns, *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "no times: the order of the rows was trusted" in result.stderr
    for arguments in (["evaluate", folder, "--data", data, "--json"], ["recommend", folder, "u3"]):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
    other = tmp_path / "other.csv"
    other.write_text(data.read_text())
    check_failed(run("evaluate", folder, "--data", other), "no column has a usual name of users")
    check_failed(
        run("train", "plain", "--data", data, "--out", tmp_path / "b", "--user", "absent"),
        "there is no column 'absent': the header has 'who', 'what'",
    )
