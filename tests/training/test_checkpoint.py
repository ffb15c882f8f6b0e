"""States and folders that are whole or not there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmcore.training.checkpoint import load_state, save_folder, save_state


def test_state_round_trip(tmp_path: Path) -> None:
    state = {
        "tensor": torch.arange(6.0).view(2, 3),
        "nested": {"keys": np.array([1, 2**63], np.uint64), "list": [np.zeros((0, 3)), 1, None]},
        "scalar": np.array(7, np.int64),
        "flags": np.array([[True], [False]]),
        "number": np.float64(0.5),
        "text": "北",
    }
    save_state(tmp_path / "state.pt", state)
    found = load_state(tmp_path / "state.pt")
    assert torch.equal(found["tensor"], state["tensor"])  # type: ignore[arg-type]
    for name in ("scalar", "flags"):
        assert found[name].dtype == state[name].dtype  # type: ignore[attr-defined]
        assert found[name].shape == state[name].shape  # type: ignore[attr-defined]
        assert np.array_equal(found[name], state[name])  # type: ignore[arg-type]
    assert found["nested"]["keys"].tolist() == [1, 2**63]
    assert found["nested"]["list"][0].shape == (0, 3)
    assert found["nested"]["list"][1:] == [1, None]
    assert (found["number"], found["text"]) == (0.5, "北")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_broken_state(tmp_path: Path) -> None:
    save_state(tmp_path / "whole.pt", {"a": torch.zeros(1000)})
    whole = (tmp_path / "whole.pt").read_bytes()
    for name, data in {"cut": whole[: len(whole) // 2], "empty": b"", "other": b"text"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: not the state of a run"):
            load_state(tmp_path / name)
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not the state of a run: list"):
        load_state(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "none.pt")


def test_a_failed_write_leaves_the_old_files(tmp_path: Path) -> None:
    save_folder(tmp_path / "model", lambda new: (new / "a").write_text("old"))

    def fail(new: Path) -> None:
        (new / "a").write_text("new")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        save_folder(tmp_path / "model", fail)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["a"]
    assert (tmp_path / "model" / "a").read_text() == "old"


def test_folder_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x")
    save_folder(tmp_path, lambda new: (new / "a.safetensors").write_text("1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "log"]
