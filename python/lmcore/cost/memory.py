"""Memory of a training step on one or more devices, and of keys and values that decoding keeps.

A step is one forward and backward pass over a micro-batch, and AdamW:

| precision | weights | gradients | moments | master | copies for computing |
| --- | --- | --- | --- | --- | --- |
| `float32` | 4 | 4 | 8 | | |
| `bfloat16`, as `lmcore.training` does it | 4 | 4 | 8 | | 2, of maps alone |
| `master`, as Megatron does it | 2 | 2 | 8 | 4 | |

Bytes of a parameter; with N devices each holds an N-th of these (ZeRO-3, FSDP2), and beside them
whole what it computes with: what no layer holds, and two layers, one in use and one on its way.

Activations are what the backward pass asks for, of a model whose attention keeps no scores (SDPA,
FlashAttention), and the logits four times in float32: as they are, as logarithms of probabilities,
and the gradients of both. Not counted are what the optimizer needs for a moment, the memory
of the device's libraries and what an allocator loses; a tenth more is a fair guess for those.

Source: Rajbhandari et al., ZeRO (arXiv 1910.02054), section 3; Korthikanti et al., Reducing
Activation Recomputation (arXiv 2205.05198), section 4, written out for these layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmcore.cost.operations import check_lengths
from lmcore.cost.parameters import count_parameters, parameter_bytes
from lmcore.cost.shapes import MOST, Shape


@dataclass(kw_only=True, slots=True, frozen=True)
class _Bytes:
    """Bytes of a number by what it is for."""

    weight: int
    gradient: int
    master: int
    compute: int
    residual: int
    """Of what goes from layer to layer."""
    moments: int = 8


PRECISIONS = {
    "float32": _Bytes(weight=4, gradient=4, master=0, compute=4, residual=4),
    "bfloat16": _Bytes(weight=4, gradient=4, master=0, compute=2, residual=4),
    "master": _Bytes(weight=2, gradient=2, master=4, compute=2, residual=2),
}
"""How a model is trained."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Step:
    """A training step, of each device.

    Raises:
        ValueError: a number is out of its range, or there is no such precision.
    """

    rows: int = 1
    """Of a micro-batch, whose gradients are added up."""
    source_tokens: int = 570
    target_tokens: int = 380
    """What a row is padded to; as in the pre-training of OpenBA."""
    precision: str = "bfloat16"
    recompute: bool = False
    """Whether a layer keeps its input alone, and runs again in the backward pass."""

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MOST:
            raise ValueError(f"rows must be from 1 to {MOST}: got {self.rows}")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ValueError(f"precision must be one of {known}: got {self.precision!r:.60}")


@dataclass(kw_only=True, slots=True, frozen=True)
class StepMemory:
    """Bytes that a device holds at the fullest moment of a step."""

    devices: int
    weights: int
    gradients: int
    moments: int
    master: int
    gathered: int
    """Weights and gradients beside its share, whole, in the type that computes."""
    activations: int
    """Of the layers."""
    logits: int

    @property
    def total(self) -> int:
        """All of these."""
        kept = self.weights + self.gradients + self.moments + self.master
        return kept + self.gathered + self.activations + self.logits


def count_cache_bytes(shape: Shape, dtype: str = "bfloat16") -> tuple[int, int]:
    """Returns the bytes of keys and values of a source token, and of a target token.

    A source token's are those of cross-attention, which are computed once.

    Args:
        shape: the sizes.
        dtype: a key of `lmcore.cost.parameters.BYTES`.

    Raises:
        ValueError: there is no such type.

    Example:
        >>> count_cache_bytes(Shape(
        ...     encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40,
        ...     head_size=128, inner_size=11008, vocabulary_size=250368))
        (737280, 737280)
    """
    token = parameter_bytes(2 * shape.groups_size * shape.decoder_layers, dtype)
    return token * shape.has_cross_attention, token


def count_activations(shape: Shape, step: Step) -> tuple[int, int]:
    """Returns the bytes of activations that a micro-batch keeps in all layers, and its logits.

    A layer keeps the input of each norm, what it makes of it, queries, keys, values and what they
    give, and of a feed-forward both halves, the gate and the product. Masks of dropout are not
    counted: a byte for each number that is dropped.

    Args:
        shape: the sizes.
        step: the micro-batch.

    Raises:
        ValueError: a length is out of range, or none where the shape needs one.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=1, decoder_layers=1, hidden_size=8, heads=2, groups=2, head_size=4,
        ...     inner_size=8, vocabulary_size=100)
        >>> count_activations(shape, Step(source_tokens=1, target_tokens=1, precision="float32"))
        (1168, 1600)
    """
    check_lengths(shape, step.source_tokens, step.target_tokens)
    kind = PRECISIONS[step.precision]
    compute, cross = kind.compute, int(shape.has_cross_attention)
    hidden, heads, groups = shape.hidden_size, shape.heads_size, shape.groups_size
    # Of a sublayer: what the norm reads, with its mean and spread, and what it gives.
    norm = kind.residual * hidden + 8 + compute * hidden
    softmax = 4 * shape.heads  # the logarithm of a sum for each query and head
    attention = compute * (2 * heads + 2 * groups) + softmax
    inner = compute * (4 if shape.gated else 2) * shape.inner_size
    # The values of a fused product are a part of it, which keeps the whole.
    attention += compute * (heads + groups) * shape.fused_qkv
    target = (2 + cross) * norm + attention + inner + cross * (2 * compute * heads + softmax)
    # Autocast turns the encoder's states into the type that computes for each layer anew.
    turned = compute * hidden if compute != kind.residual else 0
    source = cross * (compute * 2 * groups + turned)
    encoder = 2 * norm + attention + inner
    sources, targets = step.rows * step.source_tokens, step.rows * step.target_tokens
    encoder, decoder = sources * encoder, targets * target + sources * source
    ends = (sources * (shape.encoder_layers > 0) + targets * (shape.decoder_layers > 0)) * norm
    if step.recompute:
        kept = kind.residual * hidden
        layers = kept * (sources * shape.encoder_layers + targets * shape.decoder_layers)
        layers += max(encoder, decoder if shape.decoder_layers else 0)
    else:
        layers = encoder * shape.encoder_layers + decoder * shape.decoder_layers
    # In float32 the logits, the logarithms and the gradients of both; in another type of the
    # output layer its result and the gradient of that.
    wide = 4 * 4 if compute == 4 else 4 * 3 + 2 * compute
    return layers + ends, targets * shape.vocabulary_size * wide


def count_step_memory(shape: Shape, step: Step, devices: int = 1) -> StepMemory:
    """Returns the memory of a training step on each of some devices.

    Args:
        shape: the sizes.
        step: what each device computes.
        devices: N, among which weights, gradients and the optimizer's state are divided.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=12, decoder_layers=36, hidden_size=4096, heads=40, groups=40,
        ...     head_size=128, inner_size=11008, vocabulary_size=250368, tied=True)
        >>> one, many = (count_step_memory(shape, Step(), count) for count in (1, 64))
        >>> one.moments // 10**9, many.moments // 10**9
        (116, 1)
    """
    if not 1 <= devices <= MOST:
        raise ValueError(f"devices must be from 1 to {MOST}: got {devices}")
    parameters, kind = count_parameters(shape), PRECISIONS[step.precision]
    activations, logits = count_activations(shape, step)
    share = -(-parameters.total // devices)
    layers = (
        parameters.encoder_layer * shape.encoder_layers
        + parameters.decoder_layer * shape.decoder_layers
    )
    largest = max(parameters.encoder_layer, parameters.decoder_layer)
    outside = parameters.total - layers
    if devices > 1:
        # Weights, and the gradients that are about to be divided.
        gathered = 2 * kind.compute * (outside + min(2 * largest, layers))
    elif kind.compute < kind.weight:
        # Autocast keeps the copies of a pass to its end; the look-up of embeddings needs none.
        gathered = kind.compute * (layers + parameters.output_weights + parameters.output_bias)
    else:
        gathered = 0
    return StepMemory(
        devices=devices,
        weights=kind.weight * share,
        gradients=kind.gradient * share,
        moments=kind.moments * share,
        master=kind.master * share,
        gathered=gathered,
        activations=activations,
        logits=logits,
    )
