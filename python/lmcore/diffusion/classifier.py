"""A classifier of noisy latents: how likely a text will have attributes, at any timestep.

Shapes: B rows, L positions, E latent size, D hidden size, C labels, N texts, T steps.

It is trained on latents that are noised as the model's are, with the model's word embeddings as
they are, so that its gradient can guide a chain (`lmcore.diffusion.guidance`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
from lmcore.diffusion.modeling_text_diffusion import (
    TextDiffusionLayer,
    TextDiffusionModel,
    make_sinusoids,
)
from lmcore.diffusion.process import Process, check_mask
from lmcore.training.batches import ExampleBatches
from lmcore.training.config import DeviceConfig, OptimizerConfig, ScheduleConfig
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import Processes
from lmcore.training.seeding import seed_torch

UNLABELLED = -100
"""The label of a position that says nothing."""
_LEAST_SHARE = 1e-3


class LatentClassifier(nn.Module):
    """Returns logits of labels for noisy latents: of the text, or of each position.

    A text may have any number of its labels, each with a probability of its own, whose logit is a
    smooth maximum over its positions; a position has exactly one.

    Source: Diffusion-LM (arXiv 2205.14217), section 5.1: a classifier on latents and timestep.

    Args:
        config: the sizes of the network; latents and timesteps are those of the diffusion model.
        labels: C.
        per_position: whether each position has a label; otherwise the text has labels.

    Raises:
        ValueError: there are no labels.

    Example:
        >>> config = TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )
        >>> classifier = LatentClassifier(config, 5).eval()
        >>> classifier(torch.zeros(2, 3, 4), torch.tensor([0.0, 999.5])).shape
        torch.Size([2, 5])
    """

    def __init__(
        self, config: TextDiffusionConfig, labels: int, *, per_position: bool = False
    ) -> None:
        super().__init__()
        if labels < 1:
            raise ValueError(f"labels must be at least 1: got {labels}")
        size, wide = config.hidden_size, 4 * config.time_size
        self.config, self.labels, self.per_position = config, labels, per_position
        self.input_proj = nn.Linear(config.latent_size, size)
        self.time_embed = nn.Sequential(
            nn.Linear(config.time_size, wide), nn.SiLU(), nn.Linear(wide, size)
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layer = nn.ModuleList(
            TextDiffusionLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.head = nn.Linear(size, labels)

    def forward(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """Returns the logits.

        Args:
            latents: `[B, L, E]`.
            timesteps: `[B]` float, from 0 to 1000, as the diffusion model is told them.

        Returns:
            `[B, C]`, or `[B, L, C]` per position.

        Raises:
            ValueError: shapes do not fit.
        """
        size, most = self.config.latent_size, self.config.max_position_embeddings
        if latents.ndim != 3 or latents.shape[2] != size or latents.shape[1] > most:
            raise ValueError(
                f"latents must have the shape [batch, at most {most}, {size}]: "
                f"got {list(latents.shape)}"
            )
        if timesteps.shape != latents.shape[:1]:
            raise ValueError(
                f"timesteps must have the shape [{len(latents)}]: got {list(timesteps.shape)}"
            )
        kind = self.head.weight.dtype
        times = self.time_embed(make_sinusoids(timesteps, self.config.time_size).to(kind))
        places = self.position_embeddings.weight[: latents.shape[1]]
        states = self.input_proj(latents.to(kind)) + places + times[:, None]
        states = self.dropout(self.LayerNorm(states))
        for layer in self.layer:
            states = layer(states)
        logits: Tensor = self.head(states)
        if self.per_position:
            return logits
        # A smooth maximum: what says that a text has a label may stand at one position.
        return logits.logsumexp(1) - math.log(logits.shape[1])

    def find_log_probabilities(self, latents: Tensor, timesteps: Tensor, targets: Tensor) -> Tensor:
        """Returns log p(c | x) of the targets c of each row.

        Args:
            latents: `[B, L, E]`.
            timesteps: `[B]` float, from 0 to 1000.
            targets: of texts `[B, C]` bool, the labels that a text shall have; whether it has
                others counts for nothing. Per position `[B, L, C]` bool, the labels that a
                position may have; where it may have all, it counts for nothing.

        Returns:
            `[B]` float32.

        Raises:
            TypeError: targets are not of bool.
            ValueError: shapes do not fit.
        """
        logits = self(latents, timesteps).float()
        if targets.dtype != torch.bool:
            raise TypeError(f"targets must be of bool: got {targets.dtype}")
        if targets.shape != logits.shape:
            raise ValueError(
                f"targets must have the shape {list(logits.shape)}: got {list(targets.shape)}"
            )
        if not self.per_position:
            return torch.where(targets, functional.logsigmoid(logits), 0.0).sum(1)
        allowed = logits.masked_fill(~targets, -torch.inf).logsumexp(-1)
        # Exactly 0, and so is its gradient, where all are allowed.
        found = torch.where(targets.all(-1), 0.0, allowed - logits.logsumexp(-1))
        return found.sum(1)

    def check_labels(self, labels: Tensor, rows: tuple[int, int]) -> None:
        """Checks the type and shape of labels.

        Args:
            labels: as for `compute_losses`.
            rows: B and L.

        Raises:
            TypeError: labels have another type.
            ValueError: they have another shape.
        """
        kind = torch.int64 if self.per_position else torch.bool
        shape = [rows[0], rows[1] if self.per_position else self.labels]
        if labels.dtype != kind:
            raise TypeError(f"labels must be of {str(kind)[6:]}: got {labels.dtype}")
        if list(labels.shape) != shape:
            raise ValueError(f"labels must have the shape {shape}: got {list(labels.shape)}")

    def compute_losses(self, latents: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Returns the cross-entropy of each row's labels, the mean over labels or positions.

        Args:
            latents: `[B, L, E]`.
            timesteps: `[B]` float, from 0 to 1000.
            labels: of texts `[B, C]` bool, which they have; per position `[B, L]` int64 below C,
                or `UNLABELLED`.

        Returns:
            `[B]` float32.

        Raises:
            TypeError: labels have another type.
            ValueError: shapes do not fit.
        """
        logits = self(latents, timesteps).float()
        self.check_labels(labels, (len(latents), latents.shape[1]))
        if not self.per_position:
            losses = functional.binary_cross_entropy_with_logits(
                logits, labels.float(), reduction="none"
            )
            return losses.mean(1)
        losses = functional.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=UNLABELLED
        )
        return losses.sum(1) / (labels != UNLABELLED).sum(1).clamp(min=1)


def train_classifier(
    classifier: LatentClassifier,
    model: TextDiffusionModel,
    process: Process,
    ids: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    start_at_shares: bool = True,
) -> Tensor:
    """Returns the loss of each step of training a classifier on noised latents, in memory.

    Each text comes with its word embeddings, noised to a timestep that is drawn uniformly; the
    model stays as it is, and the classifier is left in evaluation.

    Source: Diffusion-LM (arXiv 2205.14217), section 5.1.

    Args:
        classifier: on the device of the model.
        model: whose words are embedded.
        process: that of its training, T steps.
        ids: `[N, L]` int64 tokens.
        mask: `[N, L]` bool, the positions that are generated; only they become noisy.
        labels: of the texts, as for `LatentClassifier.compute_losses`.
        steps: of training.
        batch_size: texts of a step.
        lr: of AdamW, which falls in a line to 0.
        seed: of order and noise.
        start_at_shares: whether the biases of the output begin where each label is as likely as it
            is frequent; else rare labels take most of a short training to become so.

    Returns:
        `[steps]` float32.

    Raises:
        FloatingPointError: a loss is not finite; the text names the step.
        IndexError: an id or a label lies outside its range.
        TypeError: the mask or labels have another type.
        ValueError: shapes do not fit, there is no text or no step, or the sizes of classifier and
            model differ.

    Example:
        >>> config = TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )
        >>> ids, mask = torch.tensor([[1, 2, 3], [1, 2, 4]]), torch.ones(2, 3, dtype=torch.bool)
        >>> train_classifier(
        ...     LatentClassifier(config, 1), TextDiffusionModel(config), Process([0.1, 0.2]), ids,
        ...     mask, torch.tensor([[True], [False]]), steps=2,
        ... ).shape
        torch.Size([2])
    """
    _check_texts(classifier, model, ids, mask, labels, steps)
    with torch.no_grad():
        check_mask(mask, model.embed(ids[:1]).expand(len(ids), -1, -1))
    device = ids.device
    batches = ExampleBatches(range(len(ids)), min(batch_size, len(ids)), seed, _no_tensors)
    optimizer = Optimizer(
        classifier, OptimizerConfig(lr=lr, clip_norm=1.0),
        ScheduleConfig(kind="linear", warmup_steps=min(50, steps // 2)),
        DeviceConfig(device=device.type), Processes(device=device), steps=steps,
    )  # fmt: skip
    if start_at_shares:
        _set_biases(classifier, labels)
    classifier.train()
    losses = []
    for step in range(1, steps + 1):
        rows = torch.tensor(batches.find(step, slice(None)), device=device)
        seed_torch(seed, step)
        with torch.no_grad():
            words = model.embed(ids[rows]).float()
            clean = words + process.start_deviation * torch.randn_like(words)
            times = torch.randint(process.steps, (len(rows),), device=device)
            noisy = process.add_noise(clean, times, torch.randn_like(words), mask[rows])
        loss = classifier.compute_losses(noisy, process.scale_times(times), labels[rows]).mean()
        optimizer.backward(loss)
        optimizer.update(step)
        losses.append(loss.detach())
    classifier.eval()
    found = torch.stack(losses).cpu()
    wrong = (~found.isfinite()).nonzero()
    if len(wrong):
        raise FloatingPointError(f"the loss of step {int(wrong[0, 0]) + 1} is not finite")
    return found


@torch.no_grad()
def _set_biases(classifier: LatentClassifier, labels: Tensor) -> None:
    """Makes each label as likely as it is frequent, one that never comes a rare one."""
    if classifier.per_position:
        counts = labels[labels != UNLABELLED].bincount(minlength=classifier.labels)
        shares = (counts / counts.sum().clamp(min=1)).clamp(min=_LEAST_SHARE)
        classifier.head.bias.copy_(shares.log())
    else:
        shares = labels.float().mean(0).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        classifier.head.bias.copy_(shares.logit())


def _check_texts(
    classifier: LatentClassifier,
    model: TextDiffusionModel,
    ids: Tensor,
    mask: Tensor,
    labels: Tensor,
    steps: int,
) -> None:
    sizes = classifier.config.latent_size, model.config.latent_size
    if sizes[0] != sizes[1]:
        raise ValueError(f"classifier must read latents of {sizes[1]} numbers: it reads {sizes[0]}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1: got {steps}")
    if ids.ndim != 2 or not len(ids):
        raise ValueError(f"ids must have the shape [at least 1, length]: got {list(ids.shape)}")
    for name, tensor in (("mask", mask), ("labels", labels)):
        if len(tensor) != len(ids):
            raise ValueError(f"{name} must have {len(ids)} rows: got {len(tensor)}")
    classifier.check_labels(labels, (len(ids), ids.shape[1]))
    if classifier.per_position:
        wrong = (labels != UNLABELLED) & ((labels < 0) | (labels >= classifier.labels))
        if wrong.any():
            row, place = wrong.nonzero()[0].tolist()
            raise IndexError(
                f"labels must be below {classifier.labels}: "
                f"got {int(labels[row, place])} at {[row, place]}"
            )


def _no_tensors(rows: list[int]) -> dict[str, Tensor]:
    raise RuntimeError("rows are taken by their numbers")
