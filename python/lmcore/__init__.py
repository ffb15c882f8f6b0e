"""Six published language-model and recommendation systems as one library.

Packages are imported when they are first used: `recsys` and `training` need torch, and the command
line shall answer Ctrl-C from its first milliseconds on.
"""

from __future__ import annotations

from importlib import import_module

from lmcore._core import __version__

TYPE_CHECKING = False  # importing `typing` takes longer than all of this
if TYPE_CHECKING:
    from typing import Any

    from lmcore import compression, detox, diffusion, ner, openba, ops, recsys, training

__all__ = [
    "__version__", "compression", "detox", "diffusion", "ner", "openba", "ops", "recsys",
    "training",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # The import sets the attribute, so this is asked once.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
