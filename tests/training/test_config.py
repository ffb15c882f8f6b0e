"""Settings to and from JSON and texts."""

import json
from dataclasses import dataclass
from typing import Literal

import pytest

from lmcore.training.config import check_fields, config_from_dict, config_to_dict, override


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
