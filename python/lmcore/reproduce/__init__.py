"""Published claims, measured again: one module per claim, one row per claim in the report."""

from lmcore.reproduce.run import CLAIMS, reproduce

__all__ = ["CLAIMS", "reproduce"]
