"""Attention by lengths among the implementations of transformers, as soon as something has those.

Nothing is imported here: `lmcore.attention` is, when a module of transformers that keeps
implementations of attention or of masks has been imported.
"""

import sys
from collections.abc import Callable

from lmcore._auto_classes import register_after_import

NAME = "lmcore"
"""As `attn_implementation` calls it."""


def register_attention() -> None:
    """Registers the attention and its masks; more than once does no harm.

    Example:
        >>> register_attention()
        >>> from transformers import AttentionInterface
        >>> "lmcore" in AttentionInterface()
        True
    """
    register_after_import(_REGISTER)


def _register_function() -> None:
    from lmcore.attention import attend

    sys.modules["transformers.modeling_utils"].AttentionInterface.register(NAME, attend)


def _register_mask() -> None:
    from lmcore.attention import make_ranges

    sys.modules["transformers.masking_utils"].AttentionMaskInterface.register(NAME, make_ranges)


# Both: where a name has no mask function, a padded batch comes without a mask, in silence.
_REGISTER: dict[str, Callable[[], None]] = {
    "transformers.modeling_utils": _register_function,
    "transformers.masking_utils": _register_mask,
}
