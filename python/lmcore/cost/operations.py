"""How many floating-point operations a token takes.

Counted are the products of matrices, two operations for a multiplication and its addition: maps,
scores of attention and their sums. Norms, activations, softmax, biases and the look-up of
embeddings are left out; together they are a few operations for each of thousands.

Source: Kaplan et al., Scaling Laws for Neural Language Models (arXiv 2001.08361), section 2.1,
written out for an encoder-decoder whose heads may be wider than its hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmcore.cost.shapes import MOST, Shape


@dataclass(kw_only=True, slots=True, frozen=True)
class Operations:
    """Floating-point operations of a forward pass over texts of given lengths."""

    source_token: int
    """Of one source token: the encoder, and its keys and values in the decoder's layers."""
    target_token: int
    """Of one target token, the output layer included, as a mean over the positions."""
    cached_token: int
    """Of the target token behind all others, keys and values of those being kept."""
    forward: int
    """Of a whole sample."""
    recomputed: int = 0
    """Of the layers alone, which recomputation runs through once more."""

    @property
    def training(self) -> int:
        """Of a sample's forward and backward pass; with recomputation, `recomputed` more.

        Gradients of inputs and of weights each take as many as the forward pass.
        """
        return 3 * self.forward


def count_operations(shape: Shape, source_tokens: int, target_tokens: int) -> Operations:
    """Returns the operations of a sample and of its tokens.

    A causal token attends to itself and those before it: (T + 1) / 2 of T tokens, as a mean.
    Kernels that compute hidden scores and drop them do more.

    Args:
        shape: the sizes.
        source_tokens: S, which the encoder reads; 0 for a decoder alone.
        target_tokens: T, of the decoder; 0 for an encoder alone.

    Raises:
        ValueError: a length is out of range, or none where the shape needs one.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40,
        ...     head_size=128, inner_size=11008, vocabulary_size=250368)
        >>> f"{count_operations(shape, 570, 380).training:.2e}"
        '3.88e+13'
    """
    check_lengths(shape, source_tokens, target_tokens)
    hidden, heads, groups = shape.hidden_size, shape.heads_size, shape.groups_size
    ends = 2 * 2 * hidden * heads  # queries and output
    keys = 2 * 2 * hidden * groups
    inner = 2 * (2 + shape.gated) * hidden * shape.inner_size
    seen = 2 * 2 * heads  # score and sum, of each key that a query sees
    cross = int(shape.has_cross_attention)
    encoder = shape.encoder_layers * (ends + keys + inner + seen * source_tokens)
    source_keys = shape.decoder_layers * cross * keys
    output = 2 * shape.vocabulary_size * hidden * (shape.decoder_layers > 0)
    layer = ends + keys + inner + cross * (ends + seen * source_tokens)
    maps = shape.decoder_layers * layer
    scores = shape.decoder_layers * seen * target_tokens * (target_tokens + 1) // 2
    layers = source_tokens * (encoder + source_keys) + target_tokens * maps + scores
    mean_scores = scores // target_tokens if target_tokens else 0
    return Operations(
        source_token=encoder + source_keys,
        target_token=(maps + mean_scores + output) if target_tokens else 0,
        cached_token=(maps + shape.decoder_layers * seen * target_tokens + output)
        if target_tokens
        else 0,
        forward=layers + target_tokens * output,
        recomputed=layers,
    )


def check_lengths(shape: Shape, source_tokens: int, target_tokens: int) -> None:
    """Checks that texts of these lengths can pass a shape.

    Args:
        shape: the sizes.
        source_tokens: which the encoder reads.
        target_tokens: of the decoder.

    Raises:
        ValueError: a length is out of range, or none where the shape needs one.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=8, heads=2, groups=1, head_size=3,
        ...     inner_size=5, vocabulary_size=9)
        >>> check_lengths(shape, 0, 4)
    """
    for name, tokens, layers in (
        ("source_tokens", source_tokens, shape.encoder_layers),
        ("target_tokens", target_tokens, shape.decoder_layers),
    ):
        if not layers and tokens:
            raise ValueError(f"{name} must be 0, as there are no such layers: got {tokens}")
        if layers and not 1 <= tokens <= MOST:
            raise ValueError(f"{name} must be from 1 to {MOST}: got {tokens}")
