"""Sizes of LiGR."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from lmcore.recsys.backbone import check_heads, check_sizes


@strict
class LiGRConfig(PreTrainedConfig):
    """What a `LiGRModel` is made of.

    Source: Borisyuk et al., "From Features to Transformers: Redefining Ranking for Scalable
    Impact" (arXiv 2502.03417), in the form that eSASRec (RecSys 2025) and RecTools train.

    Attributes:
        item_count: items of the catalogue, I; ids are 1..I and 0 is padding. It must be given.
        max_length: positions of the window, L.
        hidden_size: H, a multiple of the heads.
        num_hidden_layers: blocks of attention and feed-forward.
        num_attention_heads: heads of each attention.
        feed_forward_multiplier: hidden units of the feed-forward layers, in multiples of H.
        dropout: probability in [0, 1), for embeddings, attention weights and both branches.
        layer_norm_eps: epsilon of every layer normalisation.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> LiGRConfig(item_count=100, hidden_size=16).feed_forward_multiplier
        4
    """

    model_type = "ligr"
    has_no_defaults_at_init = True

    item_count: int = 0
    max_length: int = 50
    hidden_size: int = 50
    num_hidden_layers: int = 2
    num_attention_heads: int = 1
    feed_forward_multiplier: int = 4
    dropout: float | int = 0.5
    layer_norm_eps: float = 1e-5

    def validate_architecture(self) -> None:
        """Checks the ranges of the sizes."""
        check_sizes(self)
        check_heads(self.hidden_size, self.num_attention_heads)
