"""States and folders that are whole or not there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmcore.training.checkpoint import load, load_state, save, save_state


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


def test_one_file_for_one_process(tmp_path: Path) -> None:
    save(tmp_path, {"weights": torch.arange(3.0), "deep": [{"keys": np.arange(2)}]})
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    found = load(tmp_path, template=dict)
    assert found["weights"].tolist() == [0, 1, 2]
    assert found["deep"][0]["keys"].tolist() == [0, 1]


@pytest.mark.parametrize("data", [b"", b"text", b"{}", b"[" * 200_000])
def test_something_else_is_refused_by_its_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"state\.pt: not the state of a run"):
        load(tmp_path)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"x": Evil()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: not the state of a run"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()
