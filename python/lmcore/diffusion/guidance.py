"""Classifier guidance: each step's latents are drawn towards what a classifier shall find in them.

Shapes: B rows, L positions, E latent size, C labels.

Source: Diffusion-LM (arXiv 2205.14217), section 5.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lmcore.diffusion.classifier import LatentClassifier
from lmcore.diffusion.sampling import Draft


@dataclass(kw_only=True, slots=True, frozen=True)
class GuidanceConfig:
    """How far, and how, latents are drawn; the defaults are near the authors'.

    Adagrad moves each number of the latents by about `step_size` in its first step, whatever the
    size of its gradient is, unless that is below `epsilon`.

    Attributes:
        steps: of Adagrad on the latents of each step of the chain; 0: no guidance.
        step_size: of Adagrad, at least 0, in units of the latents; 0: no guidance.
        fluency: lambda, at least 0, of log p(x_{t-1} | x_t), which holds the latents to where the
            chain would have gone.
        epsilon: above 0, of Adagrad. A large one leaves alone what the target says little of, which
            else is moved as far as the rest, off the texts that the model knows.

    Raises:
        TypeError: `steps` is no int.
        ValueError: a value lies outside its range.

    Example:
        >>> GuidanceConfig(steps=1).fluency
        0.01
    """

    steps: int = 3
    step_size: float = 0.1
    fluency: float = 0.01
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool):
            raise TypeError(f"steps must be an int: got {type(self.steps).__name__}")
        if not 0 <= self.steps <= 1000:
            raise ValueError(f"steps must be from 0 to 1000: got {self.steps}")
        for name in ("step_size", "fluency"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite: got {value}")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be above 0 and finite: got {self.epsilon}")


class ClassifierGuide:
    """Draws latents towards targets, as the `guide` of `sample_tokens` and `sample_latents`.

    A few steps of Adagrad on lambda log p(x_{t-1} | x_t) + log p(c | x_{t-1}), where the first is
    the normal distribution around the chain's mean with the variance of ancestral sampling. Rows
    are added up, so that the gradient of a row is its own. Nothing waits for the device.

    Args:
        classifier: in evaluation.
        targets: of the rows, as for `LatentClassifier.find_log_probabilities`; on the device.
        config: how far they are drawn.

    Raises:
        TypeError: targets are not of bool.
        ValueError: the classifier is in training, targets have another number of labels, or, on a
            CPU, a position may have no label.

    Example:
        >>> from lmcore.diffusion import Process, TextDiffusionConfig, sample_latents
        >>> config = TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )
        >>> guide = ClassifierGuide(
        ...     LatentClassifier(config, 2).eval(), torch.tensor([[True, False]]))
        >>> text = torch.zeros(1, 3, 4)
        >>> sample_latents(
        ...     lambda latents, times: latents, Process([0.1, 0.2]), torch.zeros(9, 4), text,
        ...     torch.ones(1, 3, dtype=torch.bool), start=text, noise=lambda step: text,
        ...     guide=guide,
        ... ).shape
        torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        classifier: LatentClassifier,
        targets: Tensor,
        config: GuidanceConfig = GuidanceConfig(),
    ) -> None:
        if classifier.training:
            raise ValueError("classifier must be in evaluation: call classifier.eval()")
        if targets.dtype != torch.bool:
            raise TypeError(f"targets must be of bool: got {targets.dtype}")
        shape = "[batch, length, " if classifier.per_position else "[batch, "
        if targets.ndim != 2 + classifier.per_position or targets.shape[-1] != classifier.labels:
            raise ValueError(
                f"targets must have the shape {shape}{classifier.labels}]: "
                f"got {list(targets.shape)}"
            )
        # Elsewhere the check would wait for the device.
        if classifier.per_position and targets.device.type == "cpu":
            wrong = (~targets.any(-1)).nonzero()
            if len(wrong):
                row, place = wrong[0].tolist()
                raise ValueError(f"targets must leave each position a label: row {row} leaves "
                                 f"position {place} none")  # fmt: skip
        self.classifier, self.targets, self.config = classifier, targets, config

    def __call__(self, draft: Draft) -> Tensor:
        """Returns the latents to go on with.

        Args:
            draft: what the chain would go on with.

        Returns:
            `[B, L, E]` float32.

        Raises:
            ValueError: there are not as many rows or positions as targets.
        """
        config, latents = self.config, draft.latents
        squares = torch.zeros_like(latents)
        for _ in range(config.steps):
            gradient = self.find_gradient(draft, latents)
            squares = squares + gradient.square()
            latents = latents + config.step_size * gradient / (squares.sqrt() + config.epsilon)
        return latents

    def find_gradient(self, draft: Draft, latents: Tensor) -> Tensor:
        """Returns the gradient of lambda log p(x_{t-1} | x_t) + log p(c | x_{t-1}).

        Args:
            draft: whose mean and variance count.
            latents: `[B, L, E]` float32, at which it is taken.

        Returns:
            `[B, L, E]` float32.

        Raises:
            ValueError: there are not as many rows or positions as targets.
        """
        told = torch.full((len(latents),), draft.time, device=latents.device)
        with torch.enable_grad():
            moved = latents.detach().requires_grad_()
            found = self.classifier.find_log_probabilities(moved, told, self.targets).sum()
            (gradient,) = torch.autograd.grad(found, moved)
        return gradient - self.config.fluency / draft.variance * (latents - draft.means)
