"""Small generated data sets with planted truth, one module or package per system.

Each has a frozen `World` and `make_world(seed, *, sizes)`. A world's fields and properties are
data as its system's reader takes them, its methods say what is true of them, and `to_text` writes
the file that the command line reads. Equal arguments give equal worlds, and a larger world begins
with the smaller one.
"""

from typing import Protocol, runtime_checkable

__all__ = ["LanguageWorld", "World"]


@runtime_checkable
class World(Protocol):
    """What every generated data set offers beside its data."""

    def to_text(self) -> str:
        """Returns the file that the system's command reads."""
        ...


@runtime_checkable
class LanguageWorld(World, Protocol):
    """Generated text whose entropy is planted: what the loss of a language model cannot fall below.

    Its text is composed from choices of `lmcore.worlds.draws`, which know what each of them costs.
    """

    def entropy(self) -> float:
        """Returns the nats per token that a model which knows the world loses on its text.

        A model's mean loss per token minus this number says what it has still to learn.
        """
        ...
