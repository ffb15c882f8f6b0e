"""Sizes of GRU4Rec."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from lmcore.recsys.backbone import check_sizes


@strict
class GRU4RecConfig(PreTrainedConfig):
    """What a `GRU4RecModel` is made of.

    Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks"
    (ICLR 2016), in the form of RecBole.

    Attributes:
        item_count: items of the catalogue, I; ids are 1..I and 0 is padding. It must be given.
        max_length: positions of the window, L.
        hidden_size: H, of the item embeddings and the features.
        gru_size: size of the recurrent state.
        num_hidden_layers: recurrent layers.
        dropout: probability in [0, 1), for the embeddings.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> GRU4RecConfig(item_count=100).gru_size
        100
    """

    model_type = "gru4rec"
    has_no_defaults_at_init = True

    item_count: int = 0
    max_length: int = 50
    hidden_size: int = 50
    gru_size: int = 100
    num_hidden_layers: int = 1
    dropout: float | int = 0.3

    def validate_architecture(self) -> None:
        """Checks the ranges of the sizes."""
        check_sizes(self)
