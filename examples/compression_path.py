"""A small OpenBA loses a layer, then widths: planned, pruned, recovered, and its losses shown."""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM
from transformers.utils import logging

from lmcore.compression import PathConfig, PathStage, SizesCut, format_stages, read_plan, run_path
from lmcore.compression.recipes import tiny
from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer
from lmcore.training.config import change
from lmcore.worlds.openba import make_world, write_piece_file

logging.disable_progress_bar()
TRAINING = change(tiny(), {
    "objective": "ul2", "text_tokens": 32, "batch_size": 16, "micro_batch_size": 16,
    "validation_texts": 16, "loop.steps": 20, "loop.validate_every_steps": 10,
    "schedule.warmup_steps": 2, "optimizer.lr": 3e-3, "device.device": "cpu",
})  # fmt: skip

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for file, seed, documents in (("train.txt", 0, 300), ("valid.txt", 1, 60)):
        text = make_world(seed, documents=documents).to_text()
        (folder / file).write_text(text, encoding="utf-8")

    # The original: random weights, which learn in the first stage, that cuts nothing.
    write_piece_file(folder / "spiece.model")
    tokenizer = OpenBATokenizer(folder / "spiece.model")
    torch.manual_seed(0)
    config = OpenBAConfig(
        vocab_size=tokenizer.padded_size(), hidden_size=48, kv_channels=12, num_heads=4,
        ffn_hidden_size=96, swiglu_rule=False, encoder_layers=2, decoder_layers=4,
        hidden_dropout=0.0, attention_dropout=0.0, max_seq_length=64, decoder_max_seq_length=64,
    )  # fmt: skip
    for part in (OpenBAForConditionalGeneration(config), tokenizer):
        part.save_pretrained(folder / "large")

    # Plan, prune, recover and evaluate, one stage after the other.
    path = PathConfig(
        model=str(folder / "large"), data=str(folder / "train.txt"),
        valid=str(folder / "valid.txt"),
        stages=(
            PathStage(name="first", recover=TRAINING, teacher="none"),
            PathStage(name="layers", cut=SizesCut(decoder_layers=3), recover=TRAINING,
                      teacher="previous"),
            PathStage(name="widths", cut=SizesCut(ffn=64, heads=3, choose="taylor", tokens=2000),
                      recover=TRAINING, teacher="previous"),
        ),
    )  # fmt: skip
    result = run_path(path, folder / "small", tell=print)
    print("", *format_stages(result.stages), sep="\n")
    print("layers kept:", read_plan(folder / "small" / "plan.json").stages[1].decoder_layers)
    small = AutoModelForSeq2SeqLM.from_pretrained(folder / "small" / "model")
    print("opens as any model:", small.num_parameters(), "parameters")
