"""Tables of `arms_recsys.py`."""

from collections.abc import Sequence
from typing import Any


def format_tables(lines: Sequence[dict[str, Any]], name: str) -> str:
    """All tables."""
    return "\n".join(
        f"{line['seed']} {line.get('loss', 'bce')} {line['arm']} {line['best_epoch']} "
        f"{line['valid']['NDCG@10']:.4f} {line['full']['NDCG@10']:.4f} {line['full']['HR@10']:.4f}"
        for line in lines
    )
