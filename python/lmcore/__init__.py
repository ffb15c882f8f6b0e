"""Six published language-model and recommendation systems as one library.

`recsys` and `training` need torch and are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore import ner, ops
from lmcore._core import __version__

if TYPE_CHECKING:
    from lmcore import recsys, training

__all__ = ["__version__", "ner", "ops", "recsys", "training"]


def __getattr__(name: str) -> Any:
    # The import sets the attribute, so this is asked once.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
