"""A small OpenBA with its texts, and paths over it that take seconds."""

from pathlib import Path
from typing import Any

from lmcore.compression.path import PathConfig, PathStage, SizesCut, VocabularyCut
from lmcore.compression.plan import Stage
from lmcore.compression.recipes import tiny
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.training.config import change
from lmcore.worlds.openba import make_world
from tiny_generation import save_pair

SETTINGS: dict[str, Any] = {
    "objective": "d_ul2", "text_tokens": 32, "batch_size": 4, "micro_batch_size": 4,
    "validation_texts": 4, "update_every_steps": 2, "loop.steps": 4,
    "loop.validate_every_steps": 2, "loop.save_every_seconds": 0.0, "schedule.warmup_steps": 0,
    "device.device": "cpu", "device.threads": 1,
}  # fmt: skip


def make_training(**changes: Any) -> RecoveryConfig:
    return change(tiny(), {**SETTINGS, **changes})


def save_inputs(folder: Path) -> dict[str, Any]:
    """A model of 2 + 4 layers, texts to train on, and texts of validation."""
    save_pair(folder / "large", decoder_layers=4)
    for name, seed, documents in (("train.txt", 0, 60), ("valid.txt", 1, 30)):
        text = make_world(seed, documents=documents).to_text()
        (folder / name).write_text(text, encoding="utf-8")
    return {
        "model": str(folder / "large"), "data": str(folder / "train.txt"),
        "valid": str(folder / "valid.txt"),
    }  # fmt: skip


def make_path(inputs: dict[str, Any]) -> PathConfig:
    """Layers by their indices, widths by what the texts say, tokens by their counts."""
    return PathConfig(
        **inputs,
        stages=(
            PathStage(name="layers", cut=Stage(decoder_layers=(0, 2, 3)), recover=make_training()),
            PathStage(
                name="widths",
                cut=SizesCut(decoder_layers=2, hidden=24, ffn=20, choose="taylor", tokens=256),
                recover=make_training(objective="ul2"),
            ),
            PathStage(name="tokens", cut=VocabularyCut(keep=640)),
        ),
    )
