"""A smaller T5 out of a larger one: planned, costed, pruned in two ways, and opened again."""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from lmcore.compression import (
    Sizes,
    add_chosen_stage,
    list_shapes,
    prune_folder,
    prune_state,
    start_plan,
)
from lmcore.cost import Step, format_stage_costs, make_stage_costs

logging.disable_progress_bar()
CONFIG = T5Config(
    vocab_size=512, d_model=64, d_kv=16, d_ff=128, num_heads=4, num_layers=6, num_decoder_layers=6,
    decoder_start_token_id=0,
)  # fmt: skip

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    torch.manual_seed(0)
    T5ForConditionalGeneration(CONFIG).save_pretrained(folder / "large")

    # Layers first, widths behind them, as the paper does; training would follow each stage.
    plan = start_plan(folder / "large")
    plan, _ = add_chosen_stage(plan, Sizes(encoder_layers=4, decoder_layers=4), name="layers")
    plan, _ = add_chosen_stage(plan, Sizes(hidden=48, heads=3, ffn=96), name="widths", seed=1)
    print(format_stage_costs(make_stage_costs(list_shapes(plan), Step())))

    # All at once, or stage by stage: the same bits.
    prune_folder(folder / "large", folder / "small", plan)
    prune_folder(folder / "large", folder / "1", plan, stage=1)
    prune_folder(folder / "1", folder / "2", plan, stage=2)
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("small", "2")]
    print("\nstage by stage is at once:", weights[0] == weights[1])

    # The result is a model like any other, and what the definition makes of the same weights.
    large, small = (
        AutoModelForSeq2SeqLM.from_pretrained(folder / name) for name in ("large", "small")
    )
    print("parameters:", large.num_parameters(), "->", small.num_parameters())
    kept = prune_state(large.state_dict(), plan)
    print("as defined:", all(torch.equal(kept[name], x) for name, x in small.state_dict().items()))
    print("generates:", small.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3).shape[0], "row")
