"""Sizes of OpenBA."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from lmcore.cost.configs import apply_swiglu_rule

_MAX_LAYERS = 1000
_MAX_SIZE = 2**31 - 1
_SIZES = (
    "vocab_size",
    "hidden_size",
    "kv_channels",
    "num_heads",
    "ffn_hidden_size",
    "encoder_layers",
    "decoder_layers",
    "max_seq_length",
    "decoder_max_seq_length",
)


@strict
class OpenBAConfig(PreTrainedConfig):
    """What an OpenBA model is made of; the defaults are those of the authors' class.

    It reads the `config.json` of the released folders, where depths are called `num_layers` and
    `num_decoder_layers`; both names can be used here as well. The heads' total size
    P = `num_heads * kv_channels` need not be `hidden_size` (5120 and 4096 in the released 15B).

    Source: OpenBA (arXiv 2309.10706), section 3.2, and the released code.

    Attributes:
        vocab_size: V, rows of the embedding, those that fill it up included.
        hidden_size: D.
        kv_channels: K, size of a head; even, since rotary embedding turns pairs.
        num_heads: H, of every attention.
        ffn_hidden_size: size that the inner layer of the feed-forward follows from.
        swiglu_rule: whether that layer has two thirds of it, rounded up to a multiple of 256 (V1
            and its fine-tunes), or exactly `ffn_hidden_size` (V2). Released files do not say; None
            is the first, unless the weights that are loaded have the second shape.
        encoder_layers: depth of the encoder.
        decoder_layers: depth of the decoder, which may be less or more.
        max_seq_length: positions that the encoder was trained with.
        decoder_max_seq_length: positions that the decoder was trained with.
        hidden_dropout: probability in [0, 1) for what each sublayer adds.
        attention_dropout: probability in [0, 1) for attention weights.
        add_qkv_bias: whether the projections of attention have biases.
        add_ffn_bias: whether those of the feed-forward have.
        add_lm_head_bias: whether the output layer has.
        layer_norm_eps: epsilon of every layer normalisation.
        rope_theta: base of the rotary angles.
        shift_positions: whether the first visible token has position 0 where padding stands on the
            left. As the authors' False it has not. Rotary attention sees differences of positions
            alone, so both give the same up to rounding; shifted positions stay within those that
            the model was trained with.
        initializer_range: standard deviation that weights start with; output projections start
            with that over the root of twice their stack's depth (Megatron's rule, which the
            authors trained with).
        initializer_factor: multiplies it.
        use_cache: whether decoding keeps keys and values.
        pad_token_id: of padding.
        eos_token_id: of the end of a text.
        decoder_start_token_id: which a target starts with.
        tie_word_embeddings: whether the output layer shares the embedding's weights, and scales
            its input by `hidden_size ** -0.5`. No released model does, although the values of
            both are the same there.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> config = OpenBAConfig(num_layers=12, num_decoder_layers=36, ffn_hidden_size=16384)
        >>> config.encoder_layers, config.decoder_layers, config.inner_size
        (12, 36, 11008)
    """

    model_type = "openba"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_heads",
        "head_dim": "kv_channels",
        "num_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
    }
    # The stacks have plans of their own.
    base_model_fsdp_plan: ClassVar[dict[Any, str]] = {}

    vocab_size: int = 32128
    hidden_size: int = 512
    kv_channels: int = 64
    num_heads: int = 8
    ffn_hidden_size: int = 2048
    swiglu_rule: bool | None = None
    encoder_layers: int = 12
    decoder_layers: int = 12
    max_seq_length: int = 1024
    decoder_max_seq_length: int = 256
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    add_qkv_bias: bool = False
    add_ffn_bias: bool = False
    add_lm_head_bias: bool = False
    layer_norm_eps: float = 1e-5
    rope_theta: float | int = 10000.0
    shift_positions: bool = False
    initializer_range: float = 0.02
    initializer_factor: float | int = 1.0
    is_encoder_decoder: bool = True
    use_cache: bool = True
    pad_token_id: int = 0
    eos_token_id: int | list[int] = 1
    decoder_start_token_id: int = 0
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Takes the released names of the depths."""
        if kwargs.get("num_decoder_layers", 0) is None:
            del kwargs["num_decoder_layers"]
        if "num_layers" in kwargs and "num_decoder_layers" not in kwargs:
            kwargs["num_decoder_layers"] = kwargs["num_layers"]
        for old, name in (
            ("num_layers", "encoder_layers"),
            ("num_decoder_layers", "decoder_layers"),
        ):
            given = getattr(self, name)
            if old in kwargs and given not in (type(self).__dict__.get(name, 12), kwargs[old]):
                raise ValueError(f"{name} and {old} are the same: got {given} and {kwargs[old]}")
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def heads_size(self) -> int:
        """P, the size of all heads of an attention together."""
        return self.num_heads * self.kv_channels

    @property
    def inner_size(self) -> int:
        """F, the size of the inner layer of the feed-forward."""
        if self.swiglu_rule is False:
            return self.ffn_hidden_size
        return apply_swiglu_rule(self.ffn_hidden_size)

    def validate_architecture(self) -> None:
        """Checks the ranges of the sizes."""
        for name in _SIZES:
            value = getattr(self, name)
            largest = _MAX_LAYERS if name.endswith("layers") else _MAX_SIZE
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be from 1 to {largest}: got {value}")
        if self.kv_channels % 2:
            raise ValueError(f"kv_channels must be even: got {self.kv_channels}")
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1): got {getattr(self, name)}")
        for name in ("layer_norm_eps", "rope_theta", "initializer_range", "initializer_factor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite: got {getattr(self, name)}")
        ends = self.eos_token_id if isinstance(self.eos_token_id, list) else [self.eos_token_id]
        if self.inner_size < 1:
            raise ValueError(f"ffn_hidden_size {self.ffn_hidden_size} leaves no inner layer")
        ids = [("pad_token_id", self.pad_token_id), *(("eos_token_id", end) for end in ends)]
        for name, value in [*ids, ("decoder_start_token_id", self.decoder_start_token_id)]:
            if not 0 <= value < self.vocab_size:
                raise ValueError(
                    f"{name} must be an id below vocab_size {self.vocab_size}: got {value}"
                )
