"""Stages: each from a model of the one before, as far as a model says what made it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lmcore.openba.recipes import TrainConfig
from lmcore.openba.stages import STAGES, check_stage, read_stage
from lmcore.openba.training import train
from tiny_runs import LENGTH, make_pairs, make_texts, make_tokenizer, small

HALVES: dict[str, Any] = {
    "stage": "length_adaptation", "denoisers": ("S_50",), "validation_denoisers": ("S_50",),
    "text_tokens": 4 * LENGTH, "encoder_length": 2 * LENGTH + 3, "decoder_length": 2 * LENGTH + 2,
}  # fmt: skip
PAIRS: dict[str, Any] = {"pairs": True, "encoder_length": 30, "decoder_length": 20}


def config(**changes: Any) -> TrainConfig:
    return small(**{"loop.steps": 2, **changes})


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the three stages, one from the other, and of a fine-tune."""
    place: Path = tmp_path_factory.mktemp("stages")
    before = torch.get_num_threads()
    train(config(), make_texts(), place / "ul2", tokenizer=make_tokenizer())
    halves = make_texts().reshape(5, 4 * LENGTH)
    train(config(**HALVES), halves, place / "length_adaptation", model=place / "ul2")
    for stage, model in (("bilingual_flan", "length_adaptation"), ("chat", "bilingual_flan")):
        changes = {**PAIRS, "stage": stage}
        train(config(**changes), make_pairs(), place / stage, model=place / model)
    torch.set_num_threads(before)
    return place


def test_each_stage_is_written_beside_its_model(chain: Path) -> None:
    for stage in ("ul2", "length_adaptation", "bilingual_flan", "chat"):
        assert read_stage(chain / stage) == stage
        assert read_stage(chain / stage / "best") == stage
        assert json.loads((chain / stage / "best" / "stage.json").read_text()) == {"stage": stage}
        recipe = json.loads((chain / stage / "recipe.json").read_text())
        assert recipe["config"]["stage"] == stage
    # It grew in the second stage, and kept what it grew to.
    sizes = json.loads((chain / "chat" / "best" / "config.json").read_text())
    assert sizes["max_seq_length"] == 1024


@pytest.mark.parametrize(
    ("stage", "model", "found"),
    [
        ("bilingual_flan", "ul2", "ul2; bilingual_flan starts from length_adaptation"),
        ("chat", "length_adaptation", "length_adaptation; chat starts from bilingual_flan"),
        ("tool_retrieval", "chat", "chat; tool_retrieval starts from bilingual_flan"),
        ("ul2", "length_adaptation", "length_adaptation; ul2 starts from random weights"),
    ],
)
def test_the_wrong_stage_is_refused(
    stage: str, model: str, found: str, chain: Path, tmp_path: Path
) -> None:
    changes = {**PAIRS, "stage": stage} if stage != "ul2" else {}
    data = make_pairs() if stage != "ul2" else make_texts()
    for folder in (chain / model, chain / model / "best"):
        with pytest.raises(ValueError, match=f"{model}.*: a model of the stage {found}"):
            train(config(**changes), data, tmp_path / "out", model=folder)
    assert not (tmp_path / "out").exists()


def test_a_copied_model_keeps_its_stage(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain / "ul2" / "best", tmp_path / "model")
    with pytest.raises(ValueError, match="a model of the stage ul2; chat starts from"):
        check_stage("chat", tmp_path / "model")


def test_a_stage_may_go_on_with_its_own(chain: Path) -> None:
    for stage in ("ul2", "length_adaptation", "bilingual_flan", "chat"):
        check_stage(stage, chain / stage)


def test_a_stage_that_needs_a_model_is_refused_without_one(tmp_path: Path) -> None:
    for stage, before in STAGES.items():
        if before:
            text = f"the stage {stage} starts from a model of {before[0]}: name one"
            with pytest.raises(ValueError, match=text):
                train(config(stage=stage), make_texts(), tmp_path / "out", tokenizer="x")
    assert not (tmp_path / "out").exists()


def test_what_has_no_record_may_be_any_stage(chain: Path, tmp_path: Path) -> None:
    """A released folder, and a run without a stage, which leaves none either."""
    shutil.copytree(chain / "ul2" / "best", tmp_path / "released")
    for name in ("stage.json", "manifest.json"):
        (tmp_path / "released" / name).unlink()
    assert read_stage(tmp_path / "released") is None
    changes = {**PAIRS, "stage": "chat"}
    train(config(**changes), make_pairs(), tmp_path / "chat", model=tmp_path / "released")
    train(config(stage=None), make_texts(), tmp_path / "any", model=chain / "chat")
    assert read_stage(tmp_path / "any") is None
    assert not (tmp_path / "any" / "best" / "stage.json").exists()
    check_stage("code", tmp_path / "any")


def test_a_record_that_changed_is_refused(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain / "ul2", tmp_path / "run", symlinks=True)
    file = tmp_path / "run" / "best" / "stage.json"
    for content, text in (
        ('{"stage": "flan"}', "stage must be one of ul2, .*: got 'flan'"),
        ("[]", "stage must be one of ul2, .*: got None"),
        ("", "not a record of a stage"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=f"stage.json: {text}"):
            check_stage("length_adaptation", tmp_path / "run")
    file.write_text('{"stage": "length_adaptation"}')
    changes = {**PAIRS, "stage": "bilingual_flan"}
    with pytest.raises(ValueError, match=r"stage.json: has changed since it was written"):
        train(
            config(**changes), make_pairs(), tmp_path / "out", model=tmp_path / "run",
            tokenizer=make_tokenizer(),
        )  # fmt: skip
