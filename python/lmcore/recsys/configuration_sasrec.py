"""Sizes of SASRec."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from lmcore.recsys.backbone import check_heads, check_sizes


@strict
class SASRecConfig(PreTrainedConfig):
    """What a `SASRecModel` is made of; the defaults are those of the UFNRec release.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), in the form
    of pmixer/SASRec.pytorch that UFNRec (arXiv 2208.04116) uses.

    Attributes:
        item_count: items of the catalogue, I; ids are 1..I and 0 is padding. It must be given.
        max_length: positions of the window, L.
        hidden_size: H, a multiple of the heads.
        num_hidden_layers: blocks of attention and feed-forward.
        num_attention_heads: heads of each attention.
        dropout: probability in [0, 1), for embeddings, attention weights and feed-forward.
        layer_norm_eps: epsilon of every layer normalisation.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> SASRecConfig(item_count=100, hidden_size=16).max_length
        50
    """

    model_type = "sasrec"
    has_no_defaults_at_init = True

    item_count: int = 0
    max_length: int = 50
    hidden_size: int = 50
    num_hidden_layers: int = 2
    num_attention_heads: int = 1
    dropout: float | int = 0.5
    layer_norm_eps: float = 1e-8

    def validate_architecture(self) -> None:
        """Checks the ranges of the sizes."""
        check_sizes(self)
        check_heads(self.hidden_size, self.num_attention_heads)
