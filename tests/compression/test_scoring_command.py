"""`lmcore compression plan --choose ...`: scores that are made, kept and used again."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from commands import check_line, run_here
from lmcore.compression.calibration import (
    CalibrationRow,
    Reader,
    make_batch,
    read_calibration,
)
from lmcore.compression.choosing import Scores, choose
from lmcore.compression.importance import Calibration, score_model
from lmcore.compression.plan_files import read_plan
from lmcore.compression.planning import start_plan
from lmcore.compression.scores_files import (
    StoredScores,
    check_scores,
    digest_weights,
    read_scores,
    write_scores,
)
from tiny_generation import PROMPTS, save_pair

TEXT = "\n".join(text for text in PROMPTS if text) + "\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("scoring") / "openba")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "text.txt"
    file.write_text(TEXT * 4)
    return file


def plan(model: Path, out: Path, *arguments: object) -> tuple[int, str, str]:
    return run_here("compression", "plan", model, out, "--quiet", *arguments)


@pytest.mark.parametrize("method", ["magnitude", "activation", "taylor", "block_influence"])
def test_scores_choose_and_are_used_again(
    tmp_path: Path, model: Path, text: Path, method: str
) -> None:
    """What is kept has the highest scores; another size takes them from the file."""
    reads = [] if method == "magnitude" else ["--text", text, "--tokens", 200, "--batch-size", 3]
    sizes = ["--ffn", 5] if method != "block_influence" else ["--decoder-layers", 2]
    scores = tmp_path / "scores"
    arguments = [*sizes, "--choose", method, "--scores", scores]
    code, output, errors = plan(model, tmp_path / "plan", *arguments, *reads)
    assert (code, output) == (0, ""), errors
    stored = read_scores(scores)
    assert f"scores: {method}" in errors
    assert f"written to {scores}" in errors
    assert (f"{stored.tokens:,} tokens" in errors) == bool(reads)
    assert 0 <= stored.tokens <= 200
    [stage] = read_plan(tmp_path / "plan").stages
    assert (stage.method, stage.seed) == (method, None)
    if method == "block_influence":
        assert stage.decoder_layers == (0, read_plan(tmp_path / "plan").shape.decoder_layers - 1)
    else:
        found = stored.scores.decoder_ffn
        assert found is not None
        assert stage.decoder_ffn is not None
        assert stage.decoder_ffn[1] == tuple(choose(found[1], 5).tolist())
    before = scores.read_bytes()
    sizes = ["--ffn", 3] if method != "block_influence" else ["--decoder-layers", 3]
    arguments = [*sizes, "--choose", method, "--scores", scores]
    code, output, errors = plan(model, tmp_path / "other", *arguments)
    assert (code, output) == (0, "")
    assert f"read from {scores}" in errors
    assert scores.read_bytes() == before
    [other] = read_plan(tmp_path / "other").stages
    if method != "block_influence":
        assert other.decoder_ffn is not None
        assert {*other.decoder_ffn[1]} < {*(stage.decoder_ffn or {})[1]}


def test_the_size_of_batches_changes_nothing(model: Path, text: Path) -> None:
    for method in ("activation", "taylor", "block_influence"):
        found = [
            score_model(model, method, Calibration(text=text, tokens=300, batch_size=size)).scores
            for size in (1, 7)
        ]
        for name in ("hidden", "encoder_layers", "decoder_layers"):
            first, second = (getattr(scores, name) for scores in found)
            if first is not None:
                assert np.allclose(first, second, rtol=1e-5, atol=1e-6 * first.max())


def test_what_does_not_go_together(tmp_path: Path, model: Path, text: Path) -> None:
    def fails(*arguments: object) -> tuple[int, str, str]:
        result = plan(model, tmp_path / "plan", *arguments)
        assert not (tmp_path / "plan").exists()
        return result

    read = ["--text", text]
    taylor = ["--choose", "taylor"]
    check_line(fails("--ffn", 3, *read), "--text and --tokens are for methods that read: random")
    check_line(fails("--ffn", 3, "--choose", "magnitude", *read), "magnitude does not")
    check_line(fails("--ffn", 3, "--scores", tmp_path / "s"), "random does not")
    check_line(fails("--ffn", 3, *taylor), "taylor needs --text, or --scores that are there")
    check_line(fails("--ffn", 3, *taylor, "--scores", tmp_path / "s"), "taylor needs --text")
    check_line(fails("--ffn", 3, *taylor, "--tokens", 5), "--tokens and --text belong")
    check_line(fails("--decoder-layers", 2, *taylor, *read), "taylor scores widths: expected one")
    check_line(
        fails("--ffn", 3, "--choose", "block_influence", *read), "block_influence scores layers"
    )
    check_line(fails("--ffn", 10**6, *taylor, *read), "ffn: expected to keep from 1 to ")
    check_line(
        plan(model / "config.json", tmp_path / "plan", "--ffn", 3, *taylor, *read),
        "taylor needs the folder of the model",
    )
    check_line(fails("--ffn", 3, *taylor, "--text", tmp_path / "none"), "No such file")
    check_line(fails("--ffn", 3, *taylor, "--text", "/dev/null"), "expected a file of text")
    there = tmp_path / "there"
    there.write_text("x")
    check_line(fails("--ffn", 3, *taylor, *read, "--scores", there), f"{there}: not a safetensors")
    check_line(fails("--ffn", 3, *taylor, *read, "--scores", tmp_path / "no" / "s"), "No such file")
    assert there.read_text() == "x"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no texts"),
        ("a.txt", b"\n \n", "holds no texts"),
        ("a.txt", b"Ada met\n\xff\n", "a.txt:2: not UTF-8 at byte 1"),
        ("a.jsonl", b'{"text": "Ada"}\n{"text": 3}\n', "a.jsonl:2: expected a text under 'text'"),
        ("a.jsonl", b'{"text": "Ada"}\n{"src": "Ada"}\n', "a.jsonl:2: expected a text under 'trg'"),
        ("a.jsonl", b'{"text": "Ada"}\n{"text": "A', "a.jsonl:2: "),
        ("a.jsonl", b'{"text": "Ada", "text": "b"}\n', "a.jsonl:1: "),
    ],
)
def test_bad_texts(tmp_path: Path, model: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    scores = ["--choose", "taylor", "--scores", tmp_path / "scores", "--text", tmp_path / name]
    check_line(plan(model, tmp_path / "plan", "--ffn", 3, *scores), message)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_scores_of_another_model(tmp_path: Path, model: Path, text: Path) -> None:
    """Also of one that was trained on: some weights are others, and nothing else."""
    scores = tmp_path / "scores"
    magnitude = ["--ffn", 3, "--choose", "magnitude", "--scores", scores]
    assert plan(model, tmp_path / "plan", *magnitude)[0] == 0
    trained = tmp_path / "trained"
    shutil.copytree(model, trained)
    state = load_file(trained / "model.safetensors")
    save_file({k: v * 1.001 for k, v in state.items()}, trained / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    line = f"{scores}: the scores are of another model: name another file"
    check_line(plan(trained, tmp_path / "plan", *magnitude), line)
    other = ["--ffn", 3, "--choose", "taylor", "--scores", scores, "--text", text]
    check_line(plan(model, tmp_path / "plan", *other), "made by magnitude: taylor is asked for")
    kept = tmp_path / "taylor"
    taylor = ["--ffn", 3, "--choose", "taylor", "--scores", kept]
    assert plan(model, tmp_path / "plan", *taylor, "--text", text, "--tokens", 99)[0] == 0
    changed = tmp_path / "changed.txt"
    changed.write_text(TEXT)
    check_line(plan(model, tmp_path / "plan", *taylor, "--text", changed), "with another text")
    result = plan(model, tmp_path / "plan", *taylor, "--text", text, "--tokens", 98)
    check_line(result, "made with at most 99 tokens: 98 are asked for")
    assert plan(model, tmp_path / "plan", *taylor, "--text", text)[0] == 0


def test_numbers_that_are_none(tmp_path: Path, model: Path, text: Path) -> None:
    """A weight that is no number: every method says so, and nothing is written."""
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    state = load_file(broken / "model.safetensors")
    name = next(key for key in state if key.endswith("decoder.block.1.mlp.fc_out.weight"))
    state[name][0, 0] = float("nan")
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    for method, message in (
        ("magnitude", "weights must be finite numbers"),
        ("taylor", "decoder.block.1.mlp.fc_out.weight is not finite"),
        ("activation", "decoder.block.1.mlp.fc_out.weight is not finite"),
        ("block_influence", "decoder.block.1.mlp.fc_out.weight is not finite"),
    ):
        size = ["--decoder-layers", 2] if method == "block_influence" else ["--ffn", 3]
        reads = [] if method == "magnitude" else ["--text", text]
        arguments = [*size, "--choose", method, "--scores", tmp_path / "scores", *reads]
        check_line(plan(broken, tmp_path / "plan", *arguments), str(broken), message)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_model_without_its_output_layer(tmp_path: Path) -> None:
    """Taylor would ask a random one for the loss."""
    from tiny_families import save_model

    folder = save_model("bert", tmp_path / "bert")
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    )
    (tmp_path / "text.txt").write_text("a a a a a a a a a\n" * 3)
    text = ["--text", tmp_path / "text.txt"]
    for method, code in (("activation", 0), ("taylor", 2)):
        result = plan(folder, tmp_path / "plan", "--ffn", 3, "--choose", method, *text)
        assert result[0] == code, result
    check_line(result, "lacks cls.predictions.", "it would be random")


def test_no_gradient(tmp_path: Path) -> None:
    """Of a model whose layers are cut off from the loss."""
    from lmcore.compression.families import find_family
    from lmcore.compression.importance import make_batches
    from lmcore.compression.probes import score_gradients

    config = GPT2Config(vocab_size=9, n_layer=1, n_embd=8, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    network = GPT2LMHeadModel(config).eval()
    network.save_pretrained(tmp_path)
    network.transformer.register_forward_hook(lambda _, __, output: _detach(output))
    batches = make_batches([CalibrationRow((), (3, 4, 5))], "decoder", 1)
    shape = start_plan(tmp_path).shape
    with pytest.raises(ValueError, match="no gradient of the loss comes to"):
        score_gradients(network, batches, find_family("gpt2"), shape)
    batches = make_batches([CalibrationRow((), (3,))], "decoder", 1)
    with pytest.raises(ValueError, match="expected labels to have a loss of"):
        score_gradients(GPT2LMHeadModel(config).eval(), batches, find_family("gpt2"), shape)


def _detach(output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state.detach()
    return output


# Files.


SHAPE_SCORES = Scores(hidden=np.arange(4.0), decoder_ffn={0: np.ones(3), 1: np.zeros(3)})


def test_files_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "scores"
    write_scores(file, StoredScores(scores=SHAPE_SCORES, method="taylor", model="ab", tokens=7))
    found = read_scores(file)
    assert (found.method, found.model, found.tokens) == ("taylor", "ab", 7)
    assert found.scores.decoder_ffn is not None
    assert found.scores.decoder_ffn[0].tolist() == [1, 1, 1]
    assert found.scores.encoder_ffn is None
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])

    def write(head: Any, body: bytes) -> None:
        text = json.dumps(head).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + body)

    body = content[8 + length :]
    about = header["__metadata__"]
    changes: list[tuple[Any, bytes, str]] = [
        ({**header, "__metadata__": {**about, "format": "pt"}}, body, "its format is 'pt'"),
        ({**header, "__metadata__": {**about, "version": "2"}}, body, "expected version 1"),
        ({**header, "__metadata__": {**about, "method": "luck"}}, body, "method must be one of"),
        ({**header, "__metadata__": {**about, "tokens": "-1"}}, body, "tokens must be a whole"),
        ({**header, "__metadata__": {**about, "more": "x"}}, body, "expected format, version"),
        ({**header, "__metadata__": {**about, "tokens": 3}}, body, "no metadata of texts"),
        ({k: v for k, v in header.items() if k != "__metadata__"}, body, "no metadata of texts"),
        (header, np.full(len(body) // 8, np.nan).tobytes(), "hidden has another"),
        (header, body[:-8], "not a whole safetensors file"),
        ({**header, "hidden": {**header["hidden"], "dtype": "I64"}}, body, "of I64"),
        ({**header, "hidden": {**header["hidden"], "shape": [2, 2]}}, body, "expected scores"),
        ({**header, "hidden": {**header["hidden"], "shape": [2**40]}}, body, "takes"),
        ({("lips" if k == "hidden" else k): v for k, v in header.items()}, body, "got 'lips'"),
        ({"__metadata__": about}, b"", "expected scores of at least one dimension"),
    ]
    for head, data, message in changes:
        write(head, data)
        with pytest.raises(ValueError, match=f"{file.name}: .*{message}"):
            read_scores(file)
    bad = StoredScores(scores=Scores(hidden=np.array([1, np.inf])), method="taylor", model="ab")
    with pytest.raises(ValueError, match="hidden has another"):
        write_scores(file, bad)


def test_shapes_are_those_of_the_model(model: Path) -> None:
    shape = start_plan(model).shape
    stored = StoredScores(scores=SHAPE_SCORES, method="taylor", model=digest_weights(model))
    with pytest.raises(ValueError, match=r"hidden has the shape \[4\] where"):
        check_scores(stored, stored.model, shape)


# Rows.


def encode(text: str, **_: Any) -> dict[str, list[int]]:
    return {"input_ids": [ord(letter) for letter in text]}


class Tokens:
    eos_token_id = 1
    cls_token_id, sep_token_id = 2, 3


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder", "encoder"])
def test_nothing_of_a_text_is_left_out(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "text.txt"
    lines = ["abcdefghijklmnopq", "r", "stuvwxyz"]
    file.write_text("\n".join(lines))
    reader = Reader(kind=kind, tokenizer=Tokens(), encode=encode, length=7)
    rows = read_calibration(file, reader, 10**6)
    ids = [n for row in rows for n in (*row.source, *row.target) if n > 3]
    assert "".join(map(chr, ids)) == "".join(lines)
    assert max(row.tokens for row in rows) <= 7 + 2
    few = read_calibration(file, reader, 12)
    assert few == rows[: len(few)]
    assert sum(row.tokens for row in few) <= 12


def test_each_seventh_token_is_masked() -> None:
    """Beginning with another one in each row, wherever its batch begins."""
    rows = [CalibrationRow(tuple(range(10, 30)))] * 3
    batch = make_batch(rows, "encoder", mask=4)
    hidden = (batch.inputs["input_ids"] == 4).tolist()
    assert [[n for n, gone in enumerate(row) if gone] for row in hidden] == [
        [3, 10, 17], [2, 9, 16], [1, 8, 15],
    ]  # fmt: skip
    assert batch.labels[1][[2, 3, 9]].tolist() == [12, -100, 19]
    last = make_batch(rows[2:], "encoder", mask=4, number=2)
    assert torch.equal(last.inputs["input_ids"][0], batch.inputs["input_ids"][2])


def test_rows_of_pairs(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"src": "ab", "trg": "c"}\n')
    made = {
        kind: Reader(kind=kind, tokenizer=Tokens(), encode=encode, most_tokens=4)
        for kind in ("encoder-decoder", "decoder", "encoder")
    }
    assert read_calibration(file, made["encoder-decoder"], 9)[0] == ((97, 98), (99,))
    assert read_calibration(file, made["decoder"], 9)[0] == ((97, 98), (99, 1))
    with pytest.raises(ValueError, match=r"rows.jsonl:1: .*an encoder alone has no targets"):
        read_calibration(file, made["encoder"], 9)
    file.write_text('{"src": "abcde", "trg": "c"}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl:1: expected at most 4 tokens, got 5"):
        read_calibration(file, made["encoder-decoder"], 9)
    small = Reader(kind="decoder", tokenizer=Tokens(), encode=encode, vocabulary_size=99)
    with pytest.raises(ValueError, match="not the model's: it gives the id 101"):
        read_calibration(file, small, 9)


def test_bfloat16_is_read_as_it_is(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    state = {key: value.bfloat16() for key, value in load_file(file).items()}
    save_file(state, file, {"format": "pt"})
    shutil.copytree(tmp_path / "half", tmp_path / "wide")
    wide = {key: value.to(torch.float64) for key, value in state.items()}
    save_file(wide, tmp_path / "wide" / "model.safetensors", {"format": "pt"})
    half, full = (score_model(tmp_path / name, "magnitude").scores for name in ("half", "wide"))
    assert half.hidden is not None
    assert full.hidden is not None
    assert np.array_equal(half.hidden, full.hidden)
