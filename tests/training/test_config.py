"""Settings to and from JSON and texts."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from lmcore.training.config import (
    Between,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    change,
    check_fields,
    config_from_dict,
    config_to_dict,
    override,
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Config:
    lr: float = 0.1
    steps: int = 3
    betas: tuple[float, float] = (0.9, 0.98)
    name: str = "a"
    limit: int | None = None
    start: int | Literal["auto"] = "auto"
    kind: Literal["x", "y"] = "x"
    on: bool = False


def test_round_trip_through_json() -> None:
    config = Config(lr=1.0, betas=(0.5, 0.25), limit=4, start=7, kind="y", on=True)
    assert config_from_dict(Config, json.loads(json.dumps(config_to_dict(config)))) == config
    assert config_from_dict(Config, {}) == Config()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("lr=1", "lr", 1.0),
        ("lr=1e-3", "lr", 0.001),
        ("betas=[0.5, 1]", "betas", (0.5, 1.0)),
        ("name=b=c", "name", "b=c"),
        ("limit=4", "limit", 4),
        ("limit=none", "limit", None),
        ("start=12", "start", 12),
        ("start=auto", "start", "auto"),
        ("kind=y", "kind", "y"),
        ("on=True", "on", True),
    ],
)
def test_override(text: str, name: str, value: object) -> None:
    found = getattr(override(Config(), [text]), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("lr", ValueError, "expected NAME=VALUE: got 'lr'"),
        ("rate=1", ValueError, "'rate' is no setting of Config; there are lr, steps"),
        ("lr=fast", TypeError, "lr must be float: got 'fast'"),
        ("steps=1.5", TypeError, "steps must be int: got 1.5"),
        ("steps=true", TypeError, "steps must be int: got True"),
        ("betas=[1]", TypeError, "betas must be [float, float]: got [1]"),
        ("limit=x", TypeError, "limit must be int or none: got 'x'"),
        ("start=x", ValueError, "start must be int or auto: got 'x'"),
        ("kind=z", ValueError, "kind must be x or y: got 'z'"),
        ("on=1", TypeError, "on must be bool: got 1"),
    ],
)
def test_override_refuses(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        override(Config(), [text])
    assert str(caught.value).startswith(message)


def test_fields_of_a_configuration_made_by_hand() -> None:
    check_fields(Config())
    check_fields(Config(lr=1, limit=4, start=2))
    with pytest.raises(ValueError, match="kind must be x or y: got 'z'"):
        check_fields(Config(kind="z"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"steps must be int: got 1\.5"):
        check_fields(Config(steps=1.5))  # type: ignore[arg-type]


@dataclass(kw_only=True, slots=True, frozen=True)
class Wide:
    names: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    folder: Path = Path()
    title: str | None = None
    rate: Annotated[float, Between(0, 1)] = 0.5
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        check_fields(self)


def test_lists_mappings_paths_and_parts_go_through_json() -> None:
    config = Wide(
        names=("a", "b"), sizes={"x": 3}, folder=Path("a/b"), optimizer=OptimizerConfig(lr=0.5)
    )
    assert config_from_dict(Wide, json.loads(json.dumps(config_to_dict(config)))) == config
    made = Wide(names=["a"], folder="x", rate=1)  # type: ignore[arg-type]
    assert (made.names, made.folder, type(made.rate)) == (("a",), Path("x"), float)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ('names=["a", "b"]', "names", ("a", "b")),
        ('sizes={"x": 3}', "sizes", {"x": 3}),
        ("folder=runs/1", "folder", Path("runs/1")),
        ("folder=2024", "folder", Path("2024")),
        ("title=2024", "title", "2024"),
        ("title=true", "title", "true"),
        ("title=none", "title", None),
        ("rate=.5", "rate", 0.5),
        ("rate=1.", "rate", 1.0),
    ],
)
def test_texts_of_wider_types(text: str, name: str, value: object) -> None:
    found = getattr(override(Wide(), [text]), name)
    assert found == value
    assert type(found) is type(value)


def test_parts_of_parts() -> None:
    found = override(Wide(), ["optimizer.lr=3e-4", "optimizer.betas=[0.5, 0.5]", "title=x"])
    assert (found.optimizer.lr, found.optimizer.betas, found.title) == (3e-4, (0.5, 0.5), "x")
    assert found.optimizer.eps == Wide().optimizer.eps
    other = change(found, {"optimizer": OptimizerConfig(lr=1.0), "optimizer.eps": 0.5})
    assert (other.optimizer.lr, other.optimizer.eps) == (1.0, 0.5)
    with pytest.raises(
        ValueError, match=r"'optimizer\.rate' is no setting of OptimizerConfig; the"
    ):
        override(Wide(), ["optimizer.rate=1"])
    with pytest.raises(ValueError, match=r"'rate\.x' is no setting: rate has no parts"):
        override(Wide(), ["rate.x=1"])
    with pytest.raises(TypeError, match="optimizer must be OptimizerConfig: got 'x'"):
        override(Wide(), ["optimizer=x"])
    with pytest.raises(ValueError, match=r"optimizer\.lr must be above 0"):
        config_from_dict(Wide, {"optimizer": {"lr": -1}})
    with pytest.raises(ValueError, match=r"'optimizer\.x' is no setting"):
        config_from_dict(Wide, {"optimizer": {"x": -1}})


@pytest.mark.parametrize("text", ["inf", "Infinity", "-Infinity", "nan", "NaN", "1e999"])
def test_numbers_that_are_not_finite(text: str) -> None:
    with pytest.raises((TypeError, ValueError), match="lr must be"):
        override(OptimizerConfig(), [f"lr={text}"])
    with pytest.raises((TypeError, ValueError), match="lr must be"):
        OptimizerConfig(lr=float(text))


def test_schedules_that_need_the_length_of_the_run() -> None:
    needs = {kind: ScheduleConfig(kind=kind).needs_steps for kind in ("constant", "linear")}
    assert needs == {"constant": False, "linear": True}
    assert not ScheduleConfig(kind="linear", decay_steps=3).needs_steps
    assert ScheduleConfig(kind="stable", decay_steps=3).needs_steps
    with pytest.raises(ValueError, match="decay_steps must be given where kind is stable"):
        ScheduleConfig(kind="stable")
    with pytest.raises(ValueError, match="final_share has no meaning where kind is constant"):
        ScheduleConfig(final_share=0.5)
    assert LoopConfig(steps=3).save_every_seconds == 60.0
