"""The command `lmcore openba cost`: its numbers, its light start, and what it refuses."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run, run_here
from lmcore.openba import OpenBAForConditionalGeneration
from tiny_openba import make_model

V1 = {
    "model_type": "openba", "vocab_size": 250368, "hidden_size": 4096, "kv_channels": 128,
    "num_heads": 40, "ffn_hidden_size": 16384, "num_layers": 12, "num_decoder_layers": 36,
    "add_qkv_bias": True, "add_lm_head_bias": True, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(V1))
    return path


def cost(*arguments: object) -> dict[str, Any]:
    code, output, errors = run_here("openba", "cost", *arguments, "--json")
    assert (code, errors) == (0, "")
    found: dict[str, Any] = json.loads(output)
    return found


def test_the_released_model(config: Path) -> None:
    found = cost(config)
    assert found["parameters"]["total"] == 15_593_210_368
    assert found["parameters"]["distinct"] == 14_567_703_040
    assert found["distinct_bytes"]["bfloat16"] == 29_135_406_080
    assert found["cache_bytes"] == {"source_token": 737_280, "target_token": 737_280}
    assert [part["devices"] for part in found["memory_bytes"]] == [1, 2, 4, 8]
    assert found == cost(config.parent)
    assert cost(config, "--tied")["parameters"]["total"] == 14_567_703_040


def test_the_text_has_the_same_numbers(config: Path) -> None:
    found = cost(config, "--devices", 3)
    code, output, errors = run_here("openba", "cost", config, "--devices", 3)
    assert (code, errors) == (0, "")
    for number in (
        *(value for name, value in found["parameters"].items() if "layer" not in name and value),
        *found["bytes"].values(), *found["distinct_bytes"].values(),
        *(found["flops"][name] for name in ("source_token", "target_token", "training")),
    ):  # fmt: skip
        assert f" {number:,}" in output
    for part in found["memory_bytes"]:
        assert f" {part['total'] / 1e9:,.2f}\n" in output


def test_a_saved_model(tmp_path: Path) -> None:
    model: OpenBAForConditionalGeneration = make_model(ffn_hidden_size=600)
    model.save_pretrained(tmp_path)
    found = cost(tmp_path)
    assert found["parameters"]["total"] == sum(p.numel() for p in model.parameters())


def test_options_change_what_they_say(config: Path) -> None:
    plain = cost(config)
    again = cost(config, "--recompute")
    assert again["flops"]["training"] > plain["flops"]["training"]
    assert again["flops"]["forward"] == plain["flops"]["forward"]
    assert again["memory_bytes"][0]["activations"] < plain["memory_bytes"][0]["activations"]
    rows = cost(config, "--rows", 4)["memory_bytes"][0]
    assert rows["logits"] == 4 * plain["memory_bytes"][0]["logits"]
    assert cost(config, "--no-swiglu-rule")["shape"]["inner_size"] == 16384
    master = cost(config, "--precision", "master", "--target-tokens", 7, "--source-tokens", 9)
    assert master["memory_bytes"][0]["master"] == 4 * 15_593_210_368
    assert (master["flops"]["source_tokens"], master["flops"]["target_tokens"]) == (9, 7)


def test_a_decoder_alone(tmp_path: Path) -> None:
    sizes = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008}
    layers = {"num_hidden_layers": 32, "num_attention_heads": 32}
    config = tmp_path / "llama.json"
    config.write_text(json.dumps({"model_type": "llama", **sizes, **layers}))
    found = cost(config)
    assert found["parameters"]["total"] == 6_738_415_616  # LLaMA-2-7B
    assert found["flops"]["source_tokens"] == 0
    assert "source token" not in run_here("openba", "cost", config)[1]


@pytest.mark.alone
def test_it_takes_less_than_a_second_and_no_torch(config: Path) -> None:
    taken = []
    for _ in range(3):  # the machine may do other things at the same time
        start = time.perf_counter()
        assert run("openba", "cost", config)[0] == 0
        taken.append(time.perf_counter() - start)
    assert min(taken) < 1.0


def test_it_imports_no_torch_and_nothing_of_openba(config: Path) -> None:
    code = (
        "import contextlib, io, sys; from lmcore.cli import main\n"
        f"sys.argv[1:] = ['openba', 'cost', {str(config)!r}]\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = done.stdout.split()
    assert "lmcore.cost.report" in modules
    assert {"torch", "transformers", "tokenizers", "lmcore.openba"} & {*modules} == set()


def test_one_line_for_what_cannot_be_used(tmp_path: Path, config: Path) -> None:
    check_line(run_here("openba", "cost", tmp_path / "none"), "No such file or directory")
    check_line(run_here("openba", "cost", "/dev/zero"), "/dev/zero: not a configuration: ")
    (tmp_path / "\x1b[2J.json").write_text('{"model_type": "\\u001b[2J"}')
    check_line(run_here("openba", "cost", tmp_path / "\x1b[2J.json"), "\\x1b[2J.json: model_type")
    check_line(run_here("openba", "cost", config, "--precision", "float8"), "precision must be ")
    config.write_text('{"model_type": "openba", "num_heads": -4}')
    check_line(run_here("openba", "cost", config), "config.json: num_heads must be from 1 to ")


def test_the_largest_numbers(config: Path) -> None:
    most = 2**31 - 1
    sizes = dict.fromkeys((name for name, value in V1.items() if type(value) is int), most)
    config.write_text(json.dumps({**V1, **sizes}))
    options = [f"--{name}={most}" for name in ("devices", "rows", "source-tokens", "target-tokens")]
    code, output, errors = run_here("openba", "cost", config, *options)
    assert (code, errors) == (0, "")
    assert len(output.splitlines()) > 50
