"""Training of text diffusion on pairs, with or without Distance Penalty."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmcore.diffusion.data import EncodedPairs, encode_pairs
from lmcore.diffusion.models import check_fit, load_model, make_model, save_model
from lmcore.diffusion.objective import Batch, find_losses
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.process import Process
from lmcore.diffusion.recipes import TrainConfig
from lmcore.diffusion.timesteps import TimestepChoice
from lmcore.diffusion.tokenization import TextTokenizer, load_tokenizer
from lmcore.ops.schedule import make_betas
from lmcore.training.average import WeightAverage
from lmcore.training.batches import ExampleBatches
from lmcore.training.checkpoint import check_weights, gather_weights, hash_weights, take_weights
from lmcore.training.config import LoopConfig
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.manifest import find_model
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    start_processes,
    use_threads,
)
from lmcore.training.seeding import seed_torch
