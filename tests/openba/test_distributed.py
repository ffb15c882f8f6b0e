"""Two processes that share a model: in shards of its parameters, or of its matrices."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import workers
from lmcore.openba import OpenBAForConditionalGeneration
from openba_steps import train
from tiny_openba import make_model

KINDS, MODELS = ["fsdp_size", "tp_size"], ["untied", "tied"]
RUN = f"""
import json, sys, torch
from pathlib import Path
from openba_steps import train

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
root = Path(sys.argv[1])
print(json.dumps({{
    f"{{name}} {{kind}}": train(root / name, root / f"{{name}} {{kind}}", kind)
    for name in {MODELS} for kind in {KINDS}
}}))
"""
REFUSE = """
import sys, torch
from transformers.distributed import DistributedConfig
from lmcore.openba import OpenBAForConditionalGeneration

torch.distributed.init_process_group("gloo")
for folder in sys.argv[1:]:
    try:
        OpenBAForConditionalGeneration.from_pretrained(
            folder, distributed_config=DistributedConfig(tp_size=2)
        )
    except ValueError as error:
        print(error)
    torch.distributed.barrier()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models")
    for name in MODELS:
        model = make_model(tie_word_embeddings=name == "tied", add_ffn_bias=False)
        model.save_pretrained(path / name)
    return path


@pytest.fixture(scope="module")
def found(root: Path) -> list[dict[str, Any]]:
    """What two processes found, each for all models and ways to divide them."""
    return [json.loads(text.splitlines()[-1]) for text in workers.run(RUN, 2, root)]


@pytest.fixture(scope="module", params=MODELS)
def alone(request: Any, root: Path) -> tuple[str, dict[str, Any]]:
    """What this process finds."""
    return request.param, train(root / request.param, root / f"{request.param} alone")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_do_what_one_does(
    kind: str, root: Path, alone: tuple[str, dict[str, Any]], found: list[dict[str, Any]]
) -> None:
    """Tokens before, between and behind steps, norms of gradients, losses, and what is saved."""
    name, wanted = alone
    assert wanted["shards"] == []
    model = make_model(tie_word_embeddings=name == "tied", add_ffn_bias=False)
    for each in found:
        got = each[f"{name} {kind}"]
        assert got["tokens"] == wanted["tokens"]
        assert got["numbers"] == pytest.approx(wanted["numbers"], rel=1e-4)
        if kind == "fsdp_size":
            assert got["shards"] == [name for name, _ in model.named_parameters()]
        else:
            assert "decoder.block.2.mlp.fc_in.weight" in got["shards"]
            assert "decoder.block.2.inter_attn.kv.bias" in got["shards"]
            assert "encoder.embed_tokens.weight" in got["shards"]
            assert "decoder.block.2.input_layernorm.weight" not in got["shards"]
    one, two = (
        OpenBAForConditionalGeneration.from_pretrained(root / f"{name} {way}").state_dict()
        for way in ("alone", kind)
    )
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    for name, changes in (("heads", {"num_heads": 3, "add_ffn_bias": False}), ("bias", {})):
        make_model(**changes).save_pretrained(tmp_path / name)
    for output in workers.run(REFUSE, 2, tmp_path / "heads", tmp_path / "bias"):
        assert output.splitlines() == [
            "num_heads must be a multiple of tp_size: got 3 and 2",
            "tp_size must be 1 where add_ffn_bias is true",
        ]
