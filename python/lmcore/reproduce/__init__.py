"""Published claims, measured again: one module per claim, one row per claim in the report."""

from lmcore.reproduce.catalogue import CLAIMS
from lmcore.reproduce.run import reproduce

__all__ = ["CLAIMS", "reproduce"]
