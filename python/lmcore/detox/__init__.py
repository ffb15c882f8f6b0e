"""Detoxification step by step: Detox-Chain, later CMD (arXiv 2308.08295)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore.detox.chain_files import ChainSummary, check_chains, find_grammar, make_chains
from lmcore.detox.chain_rows import ChainRow, find_problem, read_chain_row
from lmcore.detox.chains import Chain, ChainError
from lmcore.detox.selection import Selection, make_training_row, select_generations

if TYPE_CHECKING:
    from lmcore.detox.chain_collator import ChainCollator
    from lmcore.detox.chain_model import ContrastiveModel
    from lmcore.detox.chain_writing import ChainSampling, ChainWriter, load_writer
    from lmcore.detox.contrastive import contrastive_loss, pool_states
    from lmcore.detox.generation import WritingSummary, generate_file
    from lmcore.detox.training import TrainResult, train

# What needs torch, transformers or tokenizers, by the module that holds it: the others do without.
_LAZY = {
    "ChainCollator": "chain_collator",
    "ChainSampling": "chain_writing",
    "ChainWriter": "chain_writing",
    "ContrastiveModel": "chain_model",
    "TrainResult": "training",
    "WritingSummary": "generation",
    "contrastive_loss": "contrastive",
    "generate_file": "generation",
    "load_writer": "chain_writing",
    "pool_states": "contrastive",
    "train": "training",
}

__all__ = [
    "Chain",
    "ChainCollator",
    "ChainError",
    "ChainRow",
    "ChainSampling",
    "ChainSummary",
    "ChainWriter",
    "ContrastiveModel",
    "Selection",
    "TrainResult",
    "WritingSummary",
    "check_chains",
    "contrastive_loss",
    "find_grammar",
    "find_problem",
    "generate_file",
    "load_writer",
    "make_chains",
    "make_training_row",
    "pool_states",
    "read_chain_row",
    "select_generations",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.detox.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
