"""Chains that a model writes: rows, noise that belongs to them, and going on after a stop."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_chains
from commands import check_line, run_here
from lmcore.detox.chain_writing import ChainSampling, ChainWriter, WrittenChain, load_writer
from lmcore.detox.generation import generate_file
from lmcore.detox.recipes import TrainConfig
from lmcore.detox.training import train
from lmcore.training.config import change
from prediction_rows import write_rows
from stopped_runs import Stop

ROWS = [tiny_chains.make_row(word, toxic) for word in ("you", "sea") for toxic in (None, "blorp")]
PROMPTS = ["you blorp", "sea", "you", "sea blorp", "owl zarg"]
SMALL: dict[str, Any] = {"samples": 3, "batch_size": 6, "max_new_tokens": 60}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its chains by heart."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("writer")
    model = tiny_chains.save("gpt2", place / "model", size=48)
    config = {
        "batch_size": 4, "micro_batch_size": 4, "loop.steps": 120, "optimizer.lr": 0.01,
        "contrastive.weight": 0.0, "device.device": "cpu",
    }  # fmt: skip
    train(change(TrainConfig(), config), ROWS, place / "run", model=model)
    return place / "run"


@pytest.fixture(scope="module")
def writer(folder: Path) -> ChainWriter:
    return load_writer(folder, ChainSampling(**SMALL), device="cpu")


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_a_trained_model_writes(writer: ChainWriter, tmp_path: Path) -> None:
    rows = [{"prompt": {"text": text, "toxicity": 0.5}, "id": n} for n, text in enumerate(PROMPTS)]
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    summary = generate_file(writer, source, target, seed=3)
    made = read(target)
    assert [{k: row[k] for k in ("prompt", "id")} for row in made] == rows
    assert (summary.rows, summary.chains + sum(summary.unparsable.values())) == (5, 15)
    assert summary.chains >= 10
    assert summary.latency is not None
    assert summary.latency > 0.5
    right = 0
    for row in made[:4]:
        word, *toxic = row["prompt"]["text"].split()
        for text, chain in zip(row["generations"], row["chains"], strict=True):
            if chain.get("problem"):
                continue
            assert chain["toxic"] == (chain["masked"] is not None)
            assert text in chain["chain"]
            right += (text, chain["toxic"]) == (tiny_chains.WORDS[word], bool(toxic))
    assert right >= 9


def test_a_sample_is_its_own(writer: ChainWriter) -> None:
    """Whatever stands beside it; another seed or number gives others."""
    hot = ChainWriter(
        writer.model, writer.tokenizer, ChainSampling(**SMALL, temperature=3.0, top_p=1.0)
    )
    numbers = [4, 9, 1, 7, 3]
    together = hot.write(PROMPTS, numbers, seed=5)
    for prompt, number, expected in zip(PROMPTS, numbers, together, strict=True):
        assert hot.write([prompt], [number], seed=5) == [expected]
    assert hot.write(PROMPTS[:1], [5], seed=5) != together[:1]
    assert hot.write(PROMPTS[:1], [4], seed=6) != together[:1]
    assert len({chain.text for chain in together[0]}) == 3
    assert any(chain.problem for chains in together for chain in chains)
    with pytest.raises(ValueError, match="expected 1 numbers: got 0"):
        hot.write(["a"], [])


def test_it_ends_behind_its_continuation(writer: ChainWriter) -> None:
    for chains in writer.write(PROMPTS[:4], range(4), seed=1):
        for chain in chains:
            if chain.chain is not None:
                assert chain.text.endswith("#")
                assert chain.text.partition("# Generation:")[2].count("#") == 1


def test_no_chain(writer: ChainWriter, tmp_path: Path) -> None:
    short = ChainWriter(
        writer.model, writer.tokenizer, ChainSampling(samples=2, max_new_tokens=12, batch_size=2)
    )
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("you blorp\n")
    summary = generate_file(short, source, target)
    assert summary.unparsable.keys() <= {"no_verdict", "no_mask_step", "no_generation"}
    assert (summary.chains, summary.cut) == (0, 2)
    (row,) = read(target)
    assert (row["text"], row["generations"]) == ("you blorp", ["", ""])
    assert {chain["toxic"] for chain in row["chains"]} == {None}
    assert row["chains"][0]["problem"] in summary.unparsable


def test_an_encoder_decoder_writes(tmp_path: Path) -> None:
    words = tiny_chains.make_words()
    writer = ChainWriter(tiny_chains.make_t5(words), words, ChainSampling(**SMALL))
    found = writer.write(PROMPTS, range(5))
    assert found[2:3] == writer.write(PROMPTS[2:3], [2])
    assert all(len(chains) == 3 for chains in found)


def test_going_on_to_the_same_bytes(writer: ChainWriter, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("\n".join(PROMPTS) + "\n")
    generate_file(writer, source, tmp_path / "whole.jsonl", seed=2)
    target = tmp_path / "out.jsonl"

    class Stopping(ChainWriter):
        def write(
            self, prompts: Sequence[str], numbers: Sequence[int], seed: int = 0
        ) -> list[list[WrittenChain]]:
            if numbers[0] > 2:
                raise Stop
            return super().write(prompts, numbers, seed)

    stopping = Stopping(writer.model, writer.tokenizer, writer.sampling)
    with pytest.raises(Stop):
        generate_file(stopping, source, target, seed=2)
    assert not target.exists()
    with pytest.raises(FileExistsError, match="seed"):
        generate_file(writer, source, target, seed=3)
    summary = generate_file(writer, source, target, seed=2)
    assert (summary.rows, summary.resumed_rows) == (5, 2)
    assert target.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_prompts_that_cannot_be_continued(writer: ChainWriter, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"prompt": "sea " * 200}, {"prompt": ""}, {"id": 1}, {"text": "you", "generations": []},
        {"text": "sea"},
    ]  # fmt: skip
    source = write_rows(tmp_path / "in.jsonl", rows)
    with pytest.raises(ValueError, match=r"in\.jsonl:1: has 20\d tokens and a chain up to 60, and"):
        generate_file(writer, source, tmp_path / "out")
    summary = generate_file(writer, source, tmp_path / "out", skip_bad_rows=True)
    assert (summary.rows, summary.bad_rows) == (1, 4)
    assert "has generations already" in summary.listed_bad_rows[3]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("you blorp\nsea\n")
    options = ["--samples", 2, "--max-new-tokens", 60, "--threads", 1, "--device", "cpu", "--quiet"]
    code, output, errors = run_here("detox", "generate", folder, source, target, *options)
    assert (code, output) == (0, "")
    assert errors.startswith("2 prompts continued, 0 skipped: ")
    assert "times a plain continuation of 20 tokens" in errors
    assert [len(row["generations"]) for row in read(target)] == [2, 2]
    check_line(run_here("detox", "generate", tmp_path / "no", source, target), "no such folder")
    check_line(run_here("detox", "generate", folder, source, source), "the output is an input too")
    for option in ("--top-p", "--temperature"):
        check_line(
            run_here("detox", "generate", folder, source, target, option, "0.0"),
            option.strip("-").replace("-", "_"),
        )


def test_settings() -> None:
    for changes, message in (
        ({"samples": 0}, "samples must be at least 1"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"grammar": "other"}, "grammar must be one of paper, student: got 'other'"),
    ):
        with pytest.raises(ValueError, match=message):
            ChainSampling(**changes)
