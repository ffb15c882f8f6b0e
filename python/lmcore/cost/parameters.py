"""How many parameters a shape has, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from lmcore.cost.shapes import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "int4": 0.5}
"""Bytes of a parameter by the type it is kept in; scales of quantised ones are not counted."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Parameters:
    """Numbers of parameters."""

    embedding: int
    positions: int
    encoder_attention: int
    encoder_feed_forward: int
    encoder_norms: int
    decoder_attention: int
    decoder_cross_attention: int
    decoder_feed_forward: int
    decoder_norms: int
    output_weights: int
    """Of the output layer; 0 where they are the embedding itself."""
    output_bias: int
    encoder_layer: int
    """Of one layer, all its parts; the parts above are those of all layers."""
    decoder_layer: int

    @property
    def total(self) -> int:
        """What a model holds in memory."""
        return sum(getattr(self, name) for name in PARTS)

    @property
    def distinct(self) -> int:
        """The same with one table for embedding and output layer, whether tied in memory or not.

        The released OpenBA models were trained with one table, their files count it once, and
        papers do; loaded, they have two of equal values.
        """
        return self.total - self.output_weights

    def to_bytes(self, dtype: str = "bfloat16") -> int:
        """Returns the bytes of all parameters that a model holds.

        Args:
            dtype: a key of `BYTES`.

        Raises:
            ValueError: there is no such type.
        """
        return parameter_bytes(self.total, dtype)


PARTS = (
    "embedding", "positions", "encoder_attention", "encoder_feed_forward", "encoder_norms",
    "decoder_attention", "decoder_cross_attention", "decoder_feed_forward", "decoder_norms",
    "output_weights", "output_bias",
)  # fmt: skip
"""The fields of `Parameters` that are no sums of others."""


def parameter_bytes(count: int, dtype: str) -> int:
    """Returns the bytes that so many parameters take, rounded up.

    Args:
        count: of parameters.
        dtype: a key of `BYTES`.

    Raises:
        ValueError: there is no such type.

    Example:
        >>> parameter_bytes(14_567_703_040, "bfloat16")
        29135406080
    """
    if dtype not in BYTES:
        raise ValueError(f"dtype must be one of {', '.join(BYTES)}: got {dtype!r:.60}")
    doubled = count * int(2 * BYTES[dtype])  # floats would round
    return -(-doubled // 2)


def count_attention(shape: Shape) -> int:
    """Returns the parameters of one attention: queries, keys, values and output.

    Args:
        shape: the sizes.

    Example:
        >>> count_attention(Shape(
        ...     encoder_layers=1, decoder_layers=1, hidden_size=8, heads=2, groups=1, head_size=3,
        ...     inner_size=5, vocabulary_size=9))
        144
    """
    hidden, heads = shape.hidden_size, shape.heads_size
    mapped = heads + 2 * shape.groups_size
    biases = shape.qkv_bias * mapped + shape.output_bias * hidden
    return hidden * (mapped + heads) + biases


def count_feed_forward(shape: Shape) -> int:
    """Returns the parameters of one feed-forward.

    Args:
        shape: the sizes.

    Example:
        >>> count_feed_forward(Shape(
        ...     encoder_layers=1, decoder_layers=1, hidden_size=8, heads=2, groups=1, head_size=3,
        ...     inner_size=5, vocabulary_size=9))
        120
    """
    hidden, widened = shape.hidden_size, (1 + shape.gated) * shape.inner_size
    biases = shape.inner_bias * (widened + hidden)
    return hidden * (widened + shape.inner_size) + biases


def count_parameters(shape: Shape) -> Parameters:
    """Returns the parameters of each part.

    Source: the specification of OpenBA (arXiv 2309.10706), section 3: with h the hidden size, P
    that of all heads, F the inner size and V the vocabulary, a layer has 4 h P of an attention,
    3 h F of a gated feed-forward, their biases and 2 h of each norm.

    Args:
        shape: the sizes.

    Example:
        >>> counted = count_parameters(Shape(
        ...     encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40,
        ...     head_size=128, inner_size=11008, vocabulary_size=250368, qkv_bias=True,
        ...     output_bias=True, norm_bias=True, head_bias=True,
        ... ))
        >>> counted.distinct, counted.total
        (14567703040, 15593210368)
    """
    attention, inner = count_attention(shape), count_feed_forward(shape)
    norm = (1 + shape.norm_bias) * shape.hidden_size
    head_norms = 2 * shape.head_size * shape.head_norm
    table = shape.vocabulary_size * shape.hidden_size
    encoders, decoders, cross = (
        shape.encoder_layers, shape.decoder_layers, int(shape.has_cross_attention),
    )  # fmt: skip
    has_output = decoders > 0  # an encoder alone gives states
    return Parameters(
        embedding=table,
        positions=shape.position_parameters,
        encoder_attention=encoders * attention,
        encoder_feed_forward=encoders * inner,
        encoder_norms=(2 * encoders + (encoders > 0)) * norm + encoders * head_norms,
        decoder_attention=decoders * attention,
        decoder_cross_attention=decoders * cross * attention,
        decoder_feed_forward=decoders * inner,
        decoder_norms=((2 + cross) * decoders + (decoders > 0)) * norm + decoders * head_norms,
        output_weights=table if has_output and not shape.tied else 0,
        output_bias=shape.vocabulary_size * shape.head_bias * has_output,
        encoder_layer=(attention + inner + 2 * norm + head_norms) * (encoders > 0),
        decoder_layer=((1 + cross) * attention + inner + (2 + cross) * norm + head_norms)
        * (decoders > 0),
    )
