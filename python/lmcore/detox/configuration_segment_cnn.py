"""Sizes of a Segment-CNN, and the loss that it is trained with."""

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from lmcore.detox.objective import SPAN_LOSSES
from lmcore.ops.segments import MOST_SIZE


@strict
class SegmentCNNConfig(BertConfig):
    """What a `SegmentCNNModel` is made of: any BERT, and the segments that it judges.

    The defaults are BERT-base and the released code's.

    Source: Detox-Chain (arXiv 2308.08295), section 2.2 of the specification.

    Attributes:
        segment_size: n, tokens of a segment; pairs in the paper.
        span_loss: `authors` or `corrected`, see `lmcore.detox.objective.compute_span_loss`.
        toxic_weight: of toxic segments in the loss; None: that of `span_loss`, 8 or 2.
        max_length: L, positions of a text with `[CLS]` and `[SEP]`; longer ones are cut into
            windows.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> SegmentCNNConfig(hidden_size=64, num_attention_heads=4).segment_size
        2
    """

    model_type = "segment_cnn"

    segment_size: int = 2
    span_loss: str = "authors"
    toxic_weight: float | int | None = None
    max_length: int = 128

    def validate_architecture(self) -> None:
        """Checks what BERT checks, and the ranges of the fields beside."""
        super().validate_architecture()  # type: ignore[no-untyped-call]
        if not 1 <= self.segment_size <= MOST_SIZE:
            raise ValueError(
                f"segment_size must be at least 1 and at most {MOST_SIZE}: got {self.segment_size}"
            )
        if self.span_loss not in SPAN_LOSSES:
            raise ValueError(
                f"span_loss must be one of {', '.join(SPAN_LOSSES)}: got {self.span_loss!r:.60}"
            )
        if self.toxic_weight is not None and not 0 < self.toxic_weight < float("inf"):
            raise ValueError(f"toxic_weight must be above 0 and finite: got {self.toxic_weight}")
        # Room for both ends and a segment.
        if not self.segment_size + 2 <= self.max_length <= 2**20:
            raise ValueError(
                f"max_length must be at least {self.segment_size + 2} and at most {2**20}: "
                f"got {self.max_length}"
            )
