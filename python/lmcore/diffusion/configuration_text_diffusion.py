"""Sizes of a text diffusion model."""

from itertools import pairwise

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# Far above what is trained. Products of sizes stay below 2**63, which is where torch's end.
_LARGEST = {
    "vocab_size": 2**31 - 1,
    "latent_size": 65_536,
    "hidden_size": 65_536,
    "num_hidden_layers": 1000,
    "num_attention_heads": 65_536,
    "intermediate_size": 2**20,
    "max_position_embeddings": 2**20,
    "time_size": 65_536,
    "diffusion_steps": 2**20,
}


@strict
class TextDiffusionConfig(PreTrainedConfig):
    """What a `TextDiffusionModel` is made of; the defaults are the paper's, in BERT-base's shape.

    Source: DiffuSeq (arXiv 2210.08933) and Bridge-Gap Diffusion (arXiv 2305.04465), the released
    code.

    Attributes:
        vocab_size: V.
        latent_size: E, of the word embeddings, in which the diffusion takes place. Where it is
            `hidden_size`, there are no projections between the two, as in the released code.
        hidden_size: D of the transformer, a multiple of the heads.
        num_hidden_layers: of the transformer.
        num_attention_heads: of each layer.
        intermediate_size: of the feed-forward.
        max_position_embeddings: positions that have an embedding.
        time_size: of the sinusoids of a timestep, even; the layer behind them is four times as
            wide.
        dropout: probability in [0, 1), behind the embeddings and each sublayer.
        attention_dropout: probability in [0, 1), for attention weights.
        layer_norm_eps: epsilon of every layer normalisation.
        diffusion_steps: T, steps of the process that the model is trained with.
        noise_schedule: the name of its betas.
        row_length: positions of the rows that the model is trained with: source, target and
            padding; None: not known.
        distilled_timesteps: of those that the model was distilled to sample with, by DDIM without
            rounding, in ascending order; None: of none.
        pad_token_id: with which a text ends that is shorter than the others; None: not known.
        tie_word_embeddings: whether the output layer has the table of word embeddings; it must.

    Raises:
        StrictDataclassError: a field has the wrong type or lies outside its range.

    Example:
        >>> TextDiffusionConfig(hidden_size=64, num_attention_heads=4).latent_size
        128
    """

    model_type = "text_diffusion"

    vocab_size: int = 30522
    latent_size: int = 128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    time_size: int = 128
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    layer_norm_eps: float = 1e-12
    diffusion_steps: int = 2000
    noise_schedule: str = "sqrt"
    row_length: int | None = None
    distilled_timesteps: list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    def validate_architecture(self) -> None:
        """Checks the ranges of the sizes."""
        for name, most in _LARGEST.items():
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be at least 1 and at most {most}: got {value}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads: "
                f"got {self.hidden_size} and {self.num_attention_heads}"
            )
        if self.time_size % 2:
            raise ValueError(f"time_size must be even: got {self.time_size}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1): got {getattr(self, name)}")
        if not 0 < self.layer_norm_eps < float("inf"):
            raise ValueError(
                f"layer_norm_eps must be above 0 and finite: got {self.layer_norm_eps}"
            )
        most = self.max_position_embeddings
        if self.row_length is not None and not 1 <= self.row_length <= most:
            raise ValueError(
                f"row_length must be at least 1 and at most max_position_embeddings {most}: "
                f"got {self.row_length}"
            )
        kept = self.distilled_timesteps
        if kept is not None and not (
            kept
            and all(a < b for a, b in pairwise(kept))
            and kept[0] >= 0
            and kept[-1] == self.diffusion_steps - 1
        ):
            raise ValueError(
                f"distilled_timesteps must ascend from at least 0 to the last of the "
                f"{self.diffusion_steps} diffusion_steps: got {kept!s:.60}"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id must be an id below vocab_size {self.vocab_size}: "
                f"got {self.pad_token_id}"
            )
        if not self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings must be true: latents are rounded to its rows")
