"""OpenBA, a bilingual encoder-decoder with a shallow encoder (arXiv 2309.10706)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._attention import register_attention
from lmcore.openba.batches import DenoisedBatches
from lmcore.openba.cleaned_files import CleanSummary, clean_files
from lmcore.openba.cleaning import CleanConfig, CleanedTexts, clean_texts
from lmcore.openba.dialogues import find_turns
from lmcore.openba.format_files import FormatConfig, FormatSummary, write_formatted
from lmcore.openba.formats import (
    Pair,
    format_chat,
    format_code,
    format_instruction_generation,
    format_tool,
)
from lmcore.openba.indexed import IndexedDataset, IndexedWriter, Item, choose_dtype
from lmcore.openba.instructions import (
    InstructionConfig,
    InstructionSummary,
    TaskShare,
    write_instructions,
)
from lmcore.openba.mixture import Mixture, MixtureSource, read_mixture
from lmcore.openba.packing import PackSummary, pack_files
from lmcore.openba.pair_packing import PairPackSummary, pack_pairs
from lmcore.openba.pairs import Pairs
from lmcore.openba.pieces import PieceFile
from lmcore.openba.protobuf import Piece
from lmcore.openba.questions import Question, QuestionSet, read_questions
from lmcore.openba.registration import register_auto_classes
from lmcore.openba.templates import PairTemplate, Template, read_templates

if TYPE_CHECKING:
    from lmcore.openba.chain import ChainAnswer, ChainConfig, ChainInputs, ChainResult, run_chain
    from lmcore.openba.configuration_openba import OpenBAConfig
    from lmcore.openba.conversion import ConversionSummary, convert
    from lmcore.openba.evaluation import EvaluationConfig, evaluate
    from lmcore.openba.evaluation_scores import Evaluation
    from lmcore.openba.generation import Generated, Generation, TextGenerator, load_generator
    from lmcore.openba.graphs import ExportSummary, export
    from lmcore.openba.modeling_openba import (
        OpenBAEncoderModel,
        OpenBAForConditionalGeneration,
        OpenBAModel,
    )
    from lmcore.openba.prompts import GenerationSummary, generate_file
    from lmcore.openba.recipes import TrainConfig
    from lmcore.openba.tokenization_openba import OpenBATokenizer, load_tokenizer
    from lmcore.openba.training import TrainResult, train

# What needs torch or transformers, by the module that holds it: the others do without.
_LAZY = {
    "ChainAnswer": "chain",
    "ChainConfig": "chain",
    "ChainInputs": "chain",
    "ChainResult": "chain",
    "ConversionSummary": "conversion",
    "Evaluation": "evaluation_scores",
    "EvaluationConfig": "evaluation",
    "ExportSummary": "graphs",
    "Generated": "generation",
    "Generation": "generation",
    "GenerationSummary": "prompts",
    "OpenBAConfig": "configuration_openba",
    "OpenBAEncoderModel": "modeling_openba",
    "OpenBAForConditionalGeneration": "modeling_openba",
    "OpenBAModel": "modeling_openba",
    "OpenBATokenizer": "tokenization_openba",
    "TextGenerator": "generation",
    "TrainConfig": "recipes",
    "TrainResult": "training",
    "convert": "conversion",
    "evaluate": "evaluation",
    "export": "graphs",
    "generate_file": "prompts",
    "load_generator": "generation",
    "load_tokenizer": "tokenization_openba",
    "run_chain": "chain",
    "train": "training",
}

__all__ = [
    "ChainAnswer",
    "ChainConfig",
    "ChainInputs",
    "ChainResult",
    "CleanConfig",
    "CleanSummary",
    "CleanedTexts",
    "ConversionSummary",
    "DenoisedBatches",
    "Evaluation",
    "EvaluationConfig",
    "ExportSummary",
    "FormatConfig",
    "FormatSummary",
    "Generated",
    "Generation",
    "GenerationSummary",
    "IndexedDataset",
    "IndexedWriter",
    "InstructionConfig",
    "InstructionSummary",
    "Item",
    "Mixture",
    "MixtureSource",
    "OpenBAConfig",
    "OpenBAEncoderModel",
    "OpenBAForConditionalGeneration",
    "OpenBAModel",
    "OpenBATokenizer",
    "PackSummary",
    "Pair",
    "PairPackSummary",
    "PairTemplate",
    "Pairs",
    "Piece",
    "PieceFile",
    "Question",
    "QuestionSet",
    "TaskShare",
    "Template",
    "TextGenerator",
    "TrainConfig",
    "TrainResult",
    "choose_dtype",
    "clean_files",
    "clean_texts",
    "convert",
    "evaluate",
    "export",
    "find_turns",
    "format_chat",
    "format_code",
    "format_instruction_generation",
    "format_tool",
    "generate_file",
    "load_generator",
    "load_tokenizer",
    "pack_files",
    "pack_pairs",
    "read_mixture",
    "read_questions",
    "read_templates",
    "run_chain",
    "train",
    "write_formatted",
    "write_instructions",
]

register_auto_classes()
register_attention()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.openba.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
