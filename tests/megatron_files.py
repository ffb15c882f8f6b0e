"""Training checkpoints as Megatron-LM writes them, made from a model: the way back of `convert`."""

import argparse
import enum
import random
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmcore.openba import OpenBAForConditionalGeneration

NAMES = {
    "self_attn.qkv": "self_attention.query_key_value",
    "self_attn.o": "self_attention.dense",
    "inter_attn.q": "inter_attention.query",
    "inter_attn.kv": "inter_attention.key_value",
    "inter_attn.o": "inter_attention.dense",
    "mlp.fc_out": "mlp.w2",
    "input_layernorm": "input_layernorm",
    "post_attn_layernorm": "post_attention_layernorm",
    "post_inter_attn_layernorm": "post_inter_attention_layernorm",
}
BY_ROWS = ("self_attn.qkv", "inter_attn.q", "inter_attn.kv", "mlp.fc_in")
BY_COLUMNS = ("self_attn.o", "inter_attn.o", "mlp.fc_out")


def make_arguments(model: OpenBAForConditionalGeneration, ranks: int) -> argparse.Namespace:
    config = model.config
    return argparse.Namespace(
        padded_vocab_size=config.vocab_size, hidden_size=config.hidden_size,
        kv_channels=config.kv_channels, num_attention_heads=config.num_heads,
        ffn_hidden_size=config.ffn_hidden_size, num_layers=config.encoder_layers,
        encoder_num_layers=config.encoder_layers, decoder_num_layers=config.decoder_layers,
        encoder_seq_length=config.max_seq_length, decoder_seq_length=config.decoder_max_seq_length,
        hidden_dropout=0.1, attention_dropout=0.1, layernorm_epsilon=1e-5,
        tensor_model_parallel_size=ranks, pipeline_model_parallel_size=1,
        params_dtype=torch.float16, pos_emb_type="rotary", mlp_type="SwiGLU", fp16=True,
        train_data_path=["/data/corpus"], lr=np.float64(7e-6),
    )  # fmt: skip


def split_model(model: OpenBAForConditionalGeneration, ranks: int) -> list[dict[str, Any]]:
    """The `model` of each rank's file; a row-parallel part is a view of the whole tensor."""
    weights = model.state_dict()
    found: list[dict[str, Any]] = []
    for rank in range(ranks):

        def take(tensor: Tensor, axis: int, rank: int = rank) -> Tensor:
            return tensor.chunk(ranks, axis)[rank]

        stacks: dict[str, OrderedDict[str, Tensor]] = {
            "encoder": OrderedDict(), "decoder": OrderedDict(),
        }  # fmt: skip
        for name, tensor in weights.items():
            stack, _, rest = name.partition(".")
            if not rest.startswith("block."):
                continue
            _, number, part, *_ = rest.split(".")
            operation, _, kind = rest.removeprefix(f"block.{number}.").rpartition(".")
            layer = f"layers.{number}"
            target = stacks[stack]
            if operation in BY_ROWS:
                if operation == "mlp.fc_in":
                    for theirs, half in zip(("w1", "w3"), tensor.chunk(2, 0), strict=True):
                        target[f"{layer}.mlp.{theirs}.{kind}"] = take(half, 0).clone()
                    continue
                tensor = take(tensor, 0).clone()
            elif operation in BY_COLUMNS and kind == "weight":
                tensor = take(tensor, 1)
            target[f"{layer}.{NAMES[operation]}.{kind}"] = tensor
            if operation == "self_attn.qkv":
                angles = torch.ones(model.config.kv_channels // 2, dtype=torch.float16)
                target[f"{layer}.self_attention.rotary_embed.inv_freq"] = angles
        for stack, target in stacks.items():
            for kind in ("weight", "bias"):
                name = f"final_layernorm.{kind}"
                target[name] = weights[f"{stack}.{name}"]
        table = take(weights["encoder.embed_tokens.weight"], 0).clone()
        part = {
            "language_model": {
                "embedding": {"word_embeddings": OrderedDict(weight=table)},
                **stacks,
            },
        }
        if "lm_head.bias" in weights:
            part["lm_head"] = OrderedDict(bias=take(weights["lm_head.bias"], 0).clone())
        found.append(part)
    return found


def make_rank(
    model: dict[str, Any], arguments: argparse.Namespace, iteration: int, side: int = 1000
) -> dict[str, Any]:
    """What the file of a rank holds besides: states of the optimizer and of random generators."""
    return {
        "args": arguments,
        "checkpoint_version": 3.0,
        "iteration": iteration,
        "model": model,
        "optimizer": {"optimizer": {"state": {}}, "fp32": [[torch.ones(side, side)]]},
        "opt_param_scheduler": {"max_lr": 1e-4, "num_steps": 7},
        "rng_state": [
            {
                "random_rng_state": random.Random(0).getstate(),
                "np_rng_state": np.random.RandomState(0).get_state(),
                "torch_rng_state": torch.get_rng_state(),
                "rng_tracker_states": {"model-parallel-rng": torch.get_rng_state()},
            }
        ],
    }


def write_checkpoint(
    folder: Path,
    model: OpenBAForConditionalGeneration,
    ranks: int,
    iteration: int = 123,
    *,
    names_model_type: bool = True,
    side: int = 1000,
) -> Path:
    """Writes a checkpoint and returns the folder of its iteration."""
    base = folder / f"iter_{iteration:07d}"
    for number, part in enumerate(split_model(model, ranks)):
        arguments = make_arguments(model, ranks)
        arguments.rank = number
        rank = base / f"mp_rank_{number:02d}"
        rank.mkdir(parents=True)
        content = make_rank(part, arguments, iteration, side)
        save(content, rank / "model_optim_rng.pt", names_model_type=names_model_type)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(iteration))
    return base


def save(content: dict[str, Any], file: Path, *, names_model_type: bool = True) -> None:
    """Saves as Megatron does, whose arguments hold an enumeration of its own."""
    name = "megatron.core.enums"
    module = types.ModuleType(name)
    # As pythons before 3.11 and after it write it: the class, called with the value.
    kinds = enum.Enum("ModelType", {"encoder_and_decoder": 2}, module=name)
    kinds.__reduce_ex__ = lambda self, protocol: (type(self), (self.value,))  # type: ignore
    module.ModelType = kinds  # type: ignore[attr-defined]
    parents = {"megatron": types.ModuleType("megatron"), "megatron.core": types.ModuleType("core")}
    sys.modules.update({**parents, name: module})
    try:
        if names_model_type:
            content["args"].model_type = kinds(2)
        torch.save(content, file)
    finally:
        for known in (*parents, name):
            del sys.modules[known]
