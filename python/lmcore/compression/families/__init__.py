"""Families of models whose dimensions are known: one file of tables each."""

from lmcore.compression.families.bert import BERT
from lmcore.compression.families.family import Axis, Family, Tensors
from lmcore.compression.families.gpt2 import GPT2
from lmcore.compression.families.llama import LLAMA, MISTRAL, QWEN
from lmcore.compression.families.openba import OPENBA
from lmcore.compression.families.t5 import T5, UMT5

FAMILIES = {
    kind: family
    for family in (OPENBA, T5, UMT5, LLAMA, MISTRAL, QWEN, GPT2, BERT)
    for kind in family.model_types
}
"""By the `model_type` of a configuration."""

__all__ = ["FAMILIES", "Axis", "Family", "Tensors", "find_family"]


def find_family(model_type: str) -> Family:
    """Returns the family of a model.

    Args:
        model_type: as `config.json` names it.

    Raises:
        ValueError: no such family is known.

    Example:
        >>> find_family("mt5") is find_family("t5")
        True
    """
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"model_type must be one of {known}: got {model_type!r:.60}")
    return FAMILIES[model_type]
