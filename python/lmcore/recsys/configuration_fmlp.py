"""Sizes of FMLP-Rec."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from lmcore.recsys.backbone import check_sizes


@strict
class FMLPConfig(PreTrainedConfig):
    """What an `FMLPModel` is made of; the defaults are the authors'.

    Source: Zhou et al., "Filter-enhanced MLP is All You Need for Sequential Recommendation"
    (WWW 2022).

    Attributes:
        item_count: items of the catalogue, I; ids are 1..I and 0 is padding. It must be given.
        max_length: positions of the window, L.
        hidden_size: H; the feed-forward layers are four times as wide.
        num_hidden_layers: blocks of filter and feed-forward.
        dropout: probability in [0, 1), for embeddings, filters and feed-forward.
        layer_norm_eps: epsilon of every layer normalisation.
        initializer_range: standard deviation that weights start with.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> FMLPConfig(item_count=100).hidden_size
        64
    """

    model_type = "fmlp"
    has_no_defaults_at_init = True

    item_count: int = 0
    max_length: int = 50
    hidden_size: int = 64
    num_hidden_layers: int = 2
    dropout: float | int = 0.5
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def validate_architecture(self) -> None:
        """Checks the ranges of the sizes."""
        check_sizes(self)
