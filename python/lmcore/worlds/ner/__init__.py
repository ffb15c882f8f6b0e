"""A generated corpus with planted entities, and generations with planted damage.

Everything random is a draw of (seed, stream, item, position): sentence i depends on (seed, i)
alone, and the damage done to its word w on (seed, i, w).
"""

from lmcore.worlds.ner.damage import (
    LLAMA_MIX,
    T5_MIX,
    DamageMix,
    WrittenWord,
    corrupt_generation,
    corrupt_sentences,
    write_generation,
)
from lmcore.worlds.ner.sentences import Sentence, generate_sentences
from lmcore.worlds.ner.words import LANGUAGES
from lmcore.worlds.ner.world import World, make_world

__all__ = [
    "LANGUAGES",
    "LLAMA_MIX",
    "T5_MIX",
    "DamageMix",
    "Sentence",
    "World",
    "WrittenWord",
    "corrupt_generation",
    "corrupt_sentences",
    "generate_sentences",
    "make_world",
    "write_generation",
]
