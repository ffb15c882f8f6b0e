"""`openba.export`: graphs of ONNX compute what the model does, at any size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import check_line, run_here
from lmcore.openba import OpenBAForConditionalGeneration, export, graphs
from tiny_generation import save_pair
from tiny_openba import make_model

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of unequal depth, whose heads are wider than its hidden size, and its graphs."""
    base = tmp_path_factory.mktemp("graphs")
    make_model(shift_positions=True).save_pretrained(base / "model")
    summary = export(base / "model", base / "graphs")
    assert summary.layers == (2, 3)
    assert summary.difference < graphs.MOST_DIFFERENCE
    assert {"encoder.onnx", "decoder.onnx", "config.json"} <= set(summary.files)
    assert sorted(path.name for path in base.iterdir()) == ["graphs", "model"]
    return base


def open_graphs(folder: Path) -> tuple[Any, Any]:
    first, second = (
        onnxruntime.InferenceSession(folder / "graphs" / name)
        for name in ("encoder.onnx", "decoder.onnx")
    )
    return first, second


@pytest.mark.parametrize(
    ("rows", "source", "steps"),
    [(1, 1, [1]), (1, 2, [1, 1, 1]), (2, 40, [5, 1, 3]), (5, 3, [1, 60]), (7, 7, [2, 4])],
)
def test_logits_are_those_of_the_model(
    folder: Path, rows: int, source: int, steps: list[int]
) -> None:
    model = OpenBAForConditionalGeneration.from_pretrained(folder / "model").eval()
    encoder, decoder = open_graphs(folder)
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(61, (rows, source), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, source - row :] = 0
    if rows > 2:
        mask[2] = mask[2].flip(0)  # padding on the left
        mask[-1] = 0
    targets = torch.randint(61, (rows, sum(steps)), generator=generator)
    cross = encoder.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    feed = dict(zip(graphs.name_pairs("cross", 3), cross, strict=True))
    nothing = np.zeros((rows, 4, 0, 12), np.float32)
    feed |= dict.fromkeys(graphs.name_pairs("past", 3), nothing)
    found, start = [], 0
    for step in steps:
        tokens = targets[:, start : start + step].numpy()
        logits, *present = decoder.run(
            None, {**feed, "input_ids": tokens, "attention_mask": mask.numpy()}
        )
        feed |= dict(zip(graphs.name_pairs("past", 3), present, strict=True))
        found.append(logits)
        start += step
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=targets).logits
    assert np.abs(np.concatenate(found, 1) - expected.numpy()).max() < 1e-4


def test_greedy_tokens_are_those_of_generate(folder: Path) -> None:
    model = OpenBAForConditionalGeneration.from_pretrained(folder / "model").eval()
    encoder, decoder = open_graphs(folder)
    ids = torch.randint(2, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:], mask[2, :3] = 0, 0
    expected = model.generate(
        ids, attention_mask=mask, max_new_tokens=20, min_new_tokens=20, do_sample=False
    )
    cross = encoder.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    feed = dict(zip(graphs.name_pairs("cross", 3), cross, strict=True))
    feed |= dict.fromkeys(graphs.name_pairs("past", 3), np.zeros((4, 4, 0, 12), np.float32))
    tokens = np.zeros((4, 1), np.int64)
    while tokens.shape[1] < expected.shape[1]:
        new = tokens[:, -1:]
        logits, *present = decoder.run(
            None, {**feed, "input_ids": new, "attention_mask": mask.numpy()}
        )
        feed |= dict(zip(graphs.name_pairs("past", 3), present, strict=True))
        logits[:, -1, 1] = -np.inf  # no end, as asked of `generate`
        tokens = np.concatenate([tokens, logits[:, -1].argmax(-1)[:, None]], 1)
    assert tokens.tolist() == expected.tolist()


def test_graphs_that_compute_something_else_get_no_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: Any, *arguments: Any) -> Any:
        return work(model, *arguments) + np.float32(0.1)

    work = graphs._run
    monkeypatch.setattr(graphs, "_run", spoil)
    with pytest.raises(ValueError, match="the graphs are not the model: logits differ by 0"):
        export(folder / "model", tmp_path / "graphs")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer goes along, and halves become float32."""
    monkeypatch.chdir(tmp_path)
    save_pair(tmp_path / "model")
    model = OpenBAForConditionalGeneration.from_pretrained("model", dtype=torch.float16)
    model.save_pretrained("model")
    code, output, errors = run_here("openba", "export", "model", "--out", "graphs")
    assert (code, output) == (0, "")
    assert "logits differ by at most" in errors.splitlines()[-1]
    assert (tmp_path / "graphs/tokenizer.json").is_file()
    for arguments in (["model", "--out", "model/x"], ["model", "--out", "graphs"],
                      ["nowhere", "--out", "x"]):  # fmt: skip
        check_line(run_here("openba", "export", *arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graphs", "model"]
