"""`benches/arms_recsys.py`: what was killed goes on, and what stands there is not made again."""

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lmcore.reproduce.recsys.ablation import StepRun

ROOT = Path(__file__).parents[2]
ARMS = "plain,reversal,consistency"


class KilledError(Exception):
    pass


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benches"))
    threads = torch.get_num_threads()
    import arms_recsys  # type: ignore[import-not-found,unused-ignore]

    yield arms_recsys
    torch.set_num_threads(threads)
    for name in ("arms_recsys", "arms_table"):
        sys.modules.pop(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(40)[: rng.integers(4, 10)] + 1 for _ in range(40)]
    lines = [f"{user} {item}\n" for user, items in enumerate(rows, 1) for item in items]
    path = tmp_path / "pairs.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def call(arms: ModuleType, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    settings = ("hidden_size=8", "batch_size=16", "max_length=6", "negatives=20")
    given = [part for setting in settings for part in ("--set", setting)]
    given += ["--set", "optimizer.lr=0.01", "--eval-every", "3", "--name", "tiny", "--seeds", "0"]
    given += ["--losses", "bce", "--warm-epochs", "4", "--epochs", "16"]
    monkeypatch.setattr(sys, "argv", ["arms_recsys.py", *given, *more])
    arms.main()


def name_arm(run: StepRun) -> str:
    config = run.run.config
    if config.ema_decay is None:
        return "warm-up"
    return ("consistency" if config.alpha else "reversal") if config.mining else "plain"


def read(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # The memory's tables are as large as they were read, or as they grew.
    changing = ("seconds", "memory_bytes")
    return [{name: line[name] for name in line if name not in changing} for line in lines]


def test_a_killed_call_goes_on_and_comes_to_the_same(
    arms: ModuleType, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(out: str, *, arms_wanted: str = ARMS) -> None:
        call(
            arms, monkeypatch, str(file), "--arms", arms_wanted,
            "--out", str(tmp_path / out), "--states", str(tmp_path / f"states of {out}"),
        )  # fmt: skip

    steps: list[int] = []
    kill_at: set[tuple[str, int]] = set()
    step_once = StepRun.step

    def step(self: StepRun, number: int) -> None:
        if (found := (name_arm(self), number)) in kill_at:
            kill_at.remove(found)
            raise KilledError
        steps.append(number)
        step_once(self, number)

    monkeypatch.setattr(StepRun, "step", step)
    train("whole")
    whole = read(tmp_path / "whole")
    assert [line["arm"] for line in whole] == ["plain", "ema", "reversal", "consistency"]
    made = len(steps)
    epoch = made // (4 + 3 * 12)
    assert made == epoch * 40
    train("whole")
    assert len(steps) == made
    assert read(tmp_path / "whole") == whole

    # In the warm-up and in every arm, after a validation and after the last but one.
    steps.clear()
    warm, own = 4 * epoch, 12 * epoch
    kill_at |= {("warm-up", 1), ("warm-up", 3 * epoch + 1)}
    kill_at |= {(arm, warm + 6 * epoch) for arm in ARMS.split(",")}
    kill_at |= {(arm, warm + own - 1) for arm in ("reversal", "consistency")}
    while True:
        try:
            train("killed")
        except KilledError:
            continue
        break
    assert not kill_at
    assert read(tmp_path / "killed") == whole
    assert made < len(steps) < made + 7 * 3 * epoch  # three epochs lie between two validations

    # What ends between its last validation and its lines needs no step more.
    make_line = arms.make_line

    def fail(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr(arms, "make_line", fail)
    with pytest.raises(KilledError):
        train("ended", arms_wanted="plain")
    monkeypatch.setattr(arms, "make_line", make_line)
    steps.clear()
    train("ended", arms_wanted="plain")
    assert not steps
    assert read(tmp_path / "ended") == whole[:2]
    assert len(list((tmp_path / "states of ended").iterdir())) == 1  # the warm-up

    # A later arm goes on from the warm-up that stands there, and that of other settings does not.
    steps.clear()
    train("killed", arms_wanted="representation")
    assert len(steps) == 12 * epoch
    assert read(tmp_path / "killed")[-1]["arm"] == "representation"


def test_lines_say_for_whom_and_what_is_mined(
    arms: ModuleType,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ("--out", str(tmp_path / "out"), "--states", str(tmp_path / "states"))
    call(arms, monkeypatch, str(file), "--arms", "plain,reversal", *out)
    plain, average, reversal = read(tmp_path / "out")
    for line in (plain, average, reversal):
        own = {int(at): value for at, value in line["curve"].items() if at != "4"}
        assert line["best_epoch"] == max(own, key=lambda at: own[at])  # 4 is nobody's own
        assert line["valid"]["NDCG@10"] == max(own.values())
        for key in ("by_popularity", "by_history"):
            parts = zip(line[key]["targets"], line[key]["NDCG@10"], strict=True)
            whole = sum(number * (value or 0) for number, value in parts) / 40
            assert whole == pytest.approx(line["full"]["NDCG@10"])
    assert plain["curve"]["4"] == average["curve"]["4"] == reversal["curve"]["4"]
    assert plain["curve"] != average["curve"]
    assert "mined" not in plain
    mined = reversal["mined"]
    assert mined["pairs"] == sum(band["pairs"] for band in mined["bands"]) > 0
    capsys.readouterr()
    call(arms, monkeypatch, *out, "--table")
    text = capsys.readouterr().out
    assert text.count("| bce | reversal |") == 6
    assert f"| {mined['pairs']:,} |" in text
    gain = 100 * (reversal["full"]["NDCG@10"] - plain["full"]["NDCG@10"])
    assert f"| bce | reversal | {gain:+.2f} (" in text
    drawn = 100 * (reversal["sampled"]["NDCG@10"] - average["sampled"]["NDCG@10"])
    assert re.search(
        rf"\| bce \| reversal \| .* \| {re.escape(f'{drawn:+.2f}')} \(. of 1\) \|\n", text
    )


def test_published_figures_stand_beside(arms: ModuleType) -> None:
    lines = arms.read_lines(ROOT / "benches/results/arms_seqdistill.jsonl")
    assert "published" not in arms.format_tables(lines, "seqdistill")
    assert "| published | eSASRec |  |  |  |  |  | 9.28 | 5.23 |" in arms.format_tables(
        lines, "beauty"
    )


def test_an_arm_is_its_recipe(arms: ModuleType) -> None:
    plan = arms.Plan(
        seed=3, loss="bce", arm="reversal, m = 15", warm_epochs=2, epochs=5,
        settings={"hidden_size": 8},
    )  # fmt: skip
    arm, warm = plan.make_config(), plan.make_config(is_warm=True)
    assert (arm.threshold, arm.start, arm.mining, arm.hidden_size) == (15, 0, True, 8)
    assert (warm.mining, warm.ema_decay, warm.loop.seed, warm.epochs) == (False, None, 3, 5)


def test_every_arm_of_every_loss_can_be_trained(arms: ModuleType) -> None:
    """Losses differ from the first step on, arms only after the warm-up."""
    for name, loss in arms.LOSSES.items():
        assert 0 < loss.warm_epochs < loss.epochs
        assert loss.arms[0] == "plain"
        for arm in loss.arms:
            plan = arms.Plan(
                seed=0, loss=name, arm=arm, warm_epochs=1, epochs=2, settings={}
            )  # fmt: skip
            config, warm = plan.make_config(), plan.make_config(is_warm=True)
            assert config.loss == warm.loss
            assert config.negatives == warm.negatives
            assert config.ema_decay is not None
            assert (arm != "plain") == config.mining
    assert {loss.changes.get("loss", "bce") for loss in arms.LOSSES.values()} == {
        "bce", "gbce", "sampled_softmax", "cross_entropy",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["beauty", "sports"])
def test_the_document_shows_the_lines(arms: ModuleType, name: str) -> None:
    """`python benches/arms_recsys.py --name beauty --write` makes the tables."""
    lines = arms.read_lines(ROOT / f"benches/results/arms_{name}.jsonl")
    text = arms.DOCUMENT.read_text(encoding="utf-8")
    assert arms.fill_in(text, name, arms.describe(lines, name)) == text


@pytest.mark.parametrize(
    ("document", "name"),
    [("README.md", "beauty"), ("docs/claims.md", "beauty"), ("docs/claims.md", "sports")],
)
def test_the_row_on_real_data_says_what_the_lines_say(
    arms: ModuleType, document: str, name: str
) -> None:
    find_gains = sys.modules["arms_table"].find_gains
    lines = arms.read_lines(ROOT / f"benches/results/arms_{name}.jsonl")
    text = (ROOT / document).read_text("utf-8")
    (row,) = re.findall(rf"^\| UFNRec on {name.title()}.*$", text, re.M)
    ways = ("full", "sampled")
    gains = [find_gains(lines, "bce", "consistency", "ema", way) for way in ways]
    assert [len(some) for some in gains] == [3, 3]
    spreads = [(statistics.fmean(some), statistics.stdev(some)) for some in gains]
    assert re.findall(r"[-+]\d\.\d+ ± \d\.\d+", row) == [f"{m:+.2f} ± {s:.2f}" for m, s in spreads]


def test_what_is_planned_and_not_there_is_named(arms: ModuleType) -> None:
    assert arms.describe([], "beauty").count("with seeds 0, 1, 2 (plain; ema") == len(arms.LOSSES)
    planned = [(seed, "bce", arm) for seed in (0, 1) for arm in ("plain", "ema", "reversal")]
    planned.append((0, "gbce", "plain"))
    lines = [{"seed": 0, "arm": "plain"}, {"seed": 0, "arm": "reversal"}]
    assert arms.format_missing(lines, planned) == (
        "Not run yet: `bce` with seeds 0, 1 (ema), `bce` with seeds 1 (plain; reversal), "
        "`gbce` with seeds 0 (plain)."
    )
    assert arms.format_missing(lines, planned[:1]) == ""


def test_a_document_has_one_place_for_the_tables(arms: ModuleType) -> None:
    marks = "<!-- table:arms_a -->\nold\n<!-- /table:arms_a -->\n"
    filled = arms.fill_in(f"x\n{marks}y\n", "a", "new")
    assert filled == "x\n<!-- table:arms_a -->\n\nnew\n\n<!-- /table:arms_a -->\ny\n"
    for text in ("", marks + marks):
        with pytest.raises(ValueError, match=f"got {text.count('old')}$"):
            arms.fill_in(text, "a", "new")
