"""Six published language-model and recommendation systems as one library."""

from lmcore import ner, ops
from lmcore._core import __version__

__all__ = ["__version__", "ner", "ops"]
