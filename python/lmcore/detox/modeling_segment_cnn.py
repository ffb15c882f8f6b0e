"""Segment-CNN: BERT, a convolution over adjacent tokens, and a judgement of each segment.

Shapes: B rows, L positions, D hidden size, n tokens of a segment, S = L - n + 1 segments.

The names in `state_dict` are those of the released files, so that these load. Segment 0 begins with
`[CLS]`, the last one ends with `[SEP]`; neither is of the text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel, initialization
from transformers.models.bert.modeling_bert import BertPreTrainedModel
from transformers.utils.generic import ModelOutput

from lmcore._json import read_json
from lmcore._manifest import find_model
from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
from lmcore.detox.objective import compute_span_loss
from lmcore.training.checkpoint import no_bars

_LAYERS = ["BertLayer"]
# A table of 0, 1, 2, ... in the released files.
_IGNORED = [r"position_ids$"]


@dataclass
class SegmentCNNOutput(ModelOutput):
    """What a Segment-CNN says of texts."""

    loss: Tensor | None = None
    """A scalar, of those labels that were given."""
    logits: Tensor | None = None
    """`[B, 2]`: of the text, other and toxic."""
    span_logits: Tensor | None = None
    """`[B, S, 2]`: of each segment, other and toxic."""

    @property
    def span_probabilities(self) -> Tensor:
        """`[B, S, 2]`: what the released code calls the output."""
        assert self.span_logits is not None
        return self.span_logits.softmax(-1)


class SegmentCNNModel(BertPreTrainedModel):
    """Judges each segment of a text, and the text.

    Source: Detox-Chain (arXiv 2308.08295), `BertForSpanClassification` of the released code.

    Args:
        config: the sizes.

    Example:
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> config = SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes)
        >>> model = SegmentCNNModel(config).eval()
        >>> model(torch.tensor([[2, 5, 6, 3]])).span_probabilities.shape
        torch.Size([1, 3, 2])
    """

    config: SegmentCNNConfig
    config_class = SegmentCNNConfig
    _no_split_modules = _LAYERS
    _keys_to_ignore_on_load_unexpected = _IGNORED

    def __init__(self, config: SegmentCNNConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, 2)
        self.span_classifier = nn.Linear(config.hidden_size, 2)
        self.conv = nn.Conv2d(1, 1, (config.segment_size, 1))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        span_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SegmentCNNOutput:
        """Returns the logits of texts and segments, and the loss of what labels are given.

        Args:
            input_ids: `[B, L]` int64, with `[CLS]` and `[SEP]`.
            attention_mask: `[B, L]`, 0 for padding; None: there is none.
            token_type_ids: `[B, L]` int64; None: all are 0.
            labels: `[B]` int64, 1 for a toxic text.
            span_labels: `[B, S]` int64, 1 for a toxic segment, 0 for another, -100 for none.
            kwargs: for BERT.

        Raises:
            ValueError: labels of another shape.
        """
        found = self.bert(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **kwargs
        )
        logits: Tensor = self.classifier(self.dropout(found.pooler_output))
        span_logits = self.judge(found.last_hidden_state)
        loss: Tensor | None = None
        if labels is not None:
            loss = functional.cross_entropy(logits, labels)
        if span_labels is not None:
            config = self.config
            own = compute_span_loss(
                span_logits, span_labels, kind=config.span_loss, toxic_weight=config.toxic_weight
            )
            loss = own if loss is None else loss + own
        return SegmentCNNOutput(loss=loss, logits=logits, span_logits=span_logits)

    def judge(self, states: Tensor) -> Tensor:
        """Returns the logits of segments: tanh(w_0 h_t + ... + w_(n-1) h_(t+n-1) + b), projected.

        The convolution has one weight for each token of a segment, the same for all channels.

        Args:
            states: `[B, L, D]`.

        Returns:
            `[B, S, 2]`; no segments where L is below n.
        """
        size = self.config.segment_size
        count = max(0, states.shape[1] - size + 1)
        weights = self.conv.weight.flatten()
        joined: Tensor = weights[0] * states[:, :count]
        for k in range(1, size):
            joined = joined + weights[k] * states[:, k : k + count]
        joined = joined + cast(Tensor, self.conv.bias)
        result: Tensor = self.span_classifier(torch.tanh(joined))
        return result

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts what no checkpoint gave; the convolution as the mean of a segment's tokens."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, nn.Conv2d):
            initialization.constant_(module.weight, 1 / self.config.segment_size)
            initialization.zeros_(cast(Tensor, module.bias))


def load_segment_cnn(path: str | os.PathLike[str], **options: Any) -> SegmentCNNModel:
    """Returns a Segment-CNN of a folder, in float32: one of ours, or a released checkpoint.

    A released folder names the model type `bert`, and has the weights of both classifiers and of
    the convolution beside those of BERT.

    Args:
        path: as `save_pretrained` writes it; of a training run, its best model.
        options: of `from_pretrained`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no Segment-CNN, or one that cannot be used.

    Example:
        >>> import tempfile
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> config = SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SegmentCNNModel(config).save_pretrained(folder)
        ...     load_segment_cnn(folder).config.hidden_size
        8
    """
    model, missing = load_weights(path, **options)
    if missing:  # they would be random
        raise ValueError(f"{os.fspath(path)}: its weights lack {missing[0]}")
    return model


def load_weights(
    path: str | os.PathLike[str], *, segment_size: int | None = None, **options: Any
) -> tuple[SegmentCNNModel, list[str]]:
    """Returns a Segment-CNN with the weights of a folder, and the names of those that it lacks.

    Args:
        path: a folder of a Segment-CNN, or of a BERT, whose judgement is then random.
        segment_size: of a BERT that becomes a Segment-CNN; None: pairs.
        options: of `from_pretrained`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds neither, or one that cannot be used.

    Example:
        >>> import tempfile
        >>> from transformers import BertConfig
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config = BertConfig(vocab_size=9, intermediate_size=16, **sizes)
        ...     BertModel(config).save_pretrained(folder)
        ...     load_weights(folder)[1][0]
        'classifier.bias'
    """
    folder = find_model(path)
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder of a model", os.fspath(path))
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: not a model: there is no config.json in it")
    content = read_json(folder / "config.json", "a configuration")
    kind = content.get("model_type", "bert") if isinstance(content, dict) else None
    if kind not in (SegmentCNNConfig.model_type, "bert"):
        raise ValueError(
            f"{folder}: expected a model of segment_cnn or bert, got one of {kind!s:.60}"
        )
    try:
        with no_bars():
            fields = {name: value for name, value in content.items() if name != "model_type"}
            if segment_size is not None:
                fields.setdefault("segment_size", segment_size)
            config = SegmentCNNConfig(**fields)
            loaded: Any = SegmentCNNModel.from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # a folder that is something else makes a loader fail in any way
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise ValueError(f"{folder}: not a model: {reason}"[:500]) from error
    missing = sorted(loaded[1]["missing_keys"])
    if any(name.startswith("bert.") and "pooler" not in name for name in missing):
        first = next(name for name in missing if name.startswith("bert."))
        raise ValueError(f"{folder}: its weights lack {first}")
    return cast(SegmentCNNModel, loaded[0]), missing
