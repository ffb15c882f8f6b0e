"""Texts that a model of text diffusion makes of sources, in a few steps.

Rows all have one length, and padding is a target like any other token. A row's noise is a function
of the seed and of its own source, so what becomes of it does not depend on where it stands and
what stands beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
from lmcore.diffusion.data import SHORTEST, begin_row, find_kept_lengths, read_targets
from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.diffusion.models import (
    check_fit,
    find_row_length,
    load_model,
    load_tokenizer_of,
)
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.precision import find_precision, narrow_denoiser
from lmcore.diffusion.sampling import Sampler, Step, sample_tokens
from lmcore.diffusion.spacing import choose_timesteps, make_process
from lmcore.diffusion.tokenization import TextTokenizer
from lmcore.training.processes import find_device

DISTILLED = "distilled"
"""The schedule of a model that was distilled."""


@dataclass(kw_only=True, slots=True, frozen=True)
class SamplingConfig:
    """How texts are generated; the defaults are the authors' 20 steps.

    Raises:
        TypeError: a number is of another type.
        ValueError: a number is out of its range.
    """

    steps: int | None = None
    """N, at most T; 20 if None. A specification as `schedule` has its own."""
    schedule: str = "adaptive"
    """Which timesteps these are, as for `choose_timesteps`; or `distilled`: those for which the
    model was distilled, by DDIM without rounding unless `sampler` says otherwise."""
    proportions: tuple[float, ...] | None = None
    """Of the steps of `adaptive`, the share of each section, from the least noise to the most."""
    sampler: Sampler = field(default_factory=Sampler)
    """How the reverse process is solved."""
    batch_size: int = 64
    """Sources that are answered together."""
    length: int | None = None
    """Positions of a row: source, target and padding. None: as
    `lmcore.diffusion.models.find_row_length` has it."""
    target_tokens: int | None = None
    """Room that a source leaves for a target that is not known, `[CLS]` counted and `[SEP]` not,
    unless it is shorter itself; None for half of the row."""

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1), ("batch_size", 1), ("length", SHORTEST), ("target_tokens", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name != "batch_size":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int: got {type(value).__name__}")
            if not least <= value < 1 << 31:
                raise ValueError(f"{name} must be from {least} to {(1 << 31) - 1}: got {value}")


@dataclass(kw_only=True, slots=True, frozen=True)
class Question:
    """A source as a model reads it."""

    given: tuple[int, ...]
    """Ids of the row that are not made: source and separator."""
    reference: tuple[int, ...]
    """Ids of its target, all of them; empty where it is not known."""
    cut_source: int
    """Tokens that the source has lost."""
    cut_target: int
    """Tokens of the target that a row has no room for."""
    unknown: int
    """Tokens of both, cut ones included, that stand for text which has none."""

    @property
    def row(self) -> int:
        """The number that its noise depends on, below 2**31: a digest of what is given."""
        text = ",".join(map(str, self.given)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) >> 1

    @property
    def truncated(self) -> list[str]:
        """What was cut: `source`, `target` or both."""
        cut = {"source": self.cut_source, "target": self.cut_target}
        return [name for name, count in cut.items() if count]


class TextGenerator:
    """Answers sources with a model of text diffusion.

    Args:
        model: it is put into evaluation mode.
        tokenizer: of the model.
        sampling: how texts are generated; 20 steps of Adaptive Decay Sampling if None.

    Attributes:
        timesteps: to sample with, the noisiest first.
        process: of these timesteps.
        length: positions of a row.

    Raises:
        ValueError: the tokenizer is not the model's, the row is longer than the model's positions,
            or the timesteps cannot be had.

    Example:
        >>> from lmcore.diffusion.models import make_model
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> generate = TextGenerator(
        ...     make_model(tiny(), tokenizer), tokenizer, SamplingConfig(steps=4, length=16))
        >>> generate.timesteps
        [1999, 1334, 667, 0]
        >>> len(generate(["a b", "b"], seed=1))
        2
    """

    def __init__(
        self,
        model: TextDiffusionModel,
        tokenizer: TextTokenizer,
        sampling: SamplingConfig | None = None,
    ) -> None:
        self.sampling = sampling = SamplingConfig() if sampling is None else sampling
        self.length = sampling.length or find_row_length(model.config)
        check_fit(model, tokenizer, self.length)
        nn.Module.eval(model)  # transformers' own is untyped
        self.model = model
        self.tokenizer = tokenizer
        if sampling.schedule == DISTILLED:
            self.timesteps = _find_distilled(model.config, sampling)
            if sampling.sampler == Sampler():
                self.sampling = replace(sampling, sampler=Sampler(solver="ddim", clamp=False))
        else:
            self.timesteps = choose_timesteps(
                model.config.diffusion_steps, sampling.schedule, sampling.steps,
                sampling.proportions,
            )  # fmt: skip
        self.process = make_process(model.config, self.timesteps)

    def __call__(
        self,
        sources: Sequence[str],
        *,
        seed: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> list[str]:
        """Returns a text for each source, without the tokens around it.

        Args:
            sources: any number.
            seed: of the noise, below 2**64.
            progress: called with the number of sources of each batch that is done.

        Raises:
            ValueError: a source has no tokens.
        """
        questions = self.encode(Pair(source, "") for source in sources)
        answers = []
        for first in range(0, len(questions), self.sampling.batch_size):
            part = questions[first : first + self.sampling.batch_size]
            answers += self.answer(part, seed)
            if progress is not None:
                progress(len(part))
        return [self.read(ids, plain=True) for ids in answers]

    def encode(self, pairs: Iterable[Pair]) -> list[Question]:
        """Returns sources as the model reads them.

        A pair with a target is shortened as in training (section 4 of the specification), one
        without as if its target had `target_tokens`.

        Args:
            pairs: whose targets may be empty.

        Raises:
            ValueError: a text has no tokens.
        """
        known = list(pairs)
        sources = self.tokenizer.encode_batch([pair.source for pair in known])
        targets = self.tokenizer.encode_batch([pair.target for pair in known])
        questions = []
        for row, (pair, source, target) in enumerate(zip(known, sources, targets, strict=True)):
            if not source or (pair.target and not target):
                raise ValueError(
                    f"pair {row}: its {'target' if source else 'source'} has no tokens"
                )
            questions.append(self.ask(source, target))
        return questions

    def ask(self, source: Sequence[int], target: Sequence[int] = ()) -> Question:
        """Returns a source as the model reads it.

        Args:
            source: ids of the text, at least one.
            target: ids of its target; none where it is not known.
        """
        room = self.sampling.target_tokens or self.length // 2
        assumed = 1 + len(target) if target else room
        kept, kept_target = find_kept_lengths(1 + len(source), assumed, self.length)
        unknown = self.tokenizer.unknown
        return Question(
            given=tuple(begin_row(source, kept, self.tokenizer)),
            reference=tuple(target),
            cut_source=1 + len(source) - kept,
            cut_target=1 + len(target) - kept_target if target else 0,
            unknown=0 if unknown is None else [*source, *target].count(unknown),
        )

    def answer(
        self,
        questions: Sequence[Question],
        seed: int,
        *,
        callback: Callable[[Step], object] | None = None,
    ) -> list[list[int]]:
        """Returns the ids that follow what is given, padding included; questions are one batch.

        Args:
            questions: of `encode`.
            seed: of the noise, below 2**64.
            callback: called with what each step has made, as for `sample_tokens`.

        Raises:
            FloatingPointError: latents are not finite, and no text could be read from them.
        """
        if not questions:
            return []
        tokens, finite = self.compute(questions, seed, callback)
        # Here alone the device is waited for.
        if not finite:
            raise FloatingPointError("the model's estimates are not finite: it cannot be used")
        rows = tokens.tolist()
        return [row[len(own.given) :] for row, own in zip(rows, questions, strict=True)]

    def compute(
        self,
        questions: Sequence[Question],
        seed: int,
        callback: Callable[[Step], object] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the tokens of a batch without waiting for the device.

        Args:
            questions: as for `answer`, at least one.
            seed: as for `answer`.
            callback: as for `answer`.

        Returns:
            `[B, L]` int64, and `[]` bool, whether the latents that they were read from are finite.
        """
        ids, mask = self.stack(questions)
        finite: list[Tensor] = []

        def look(step: Step) -> None:
            if step.step == 0:
                finite.append(step.latents.isfinite().all())
            if callback is not None:
                callback(step)

        tokens = sample_tokens(
            self.model, self.process, ids, mask, seed=seed,
            rows=[question.row for question in questions], sampler=self.sampling.sampler,
            callback=look,
        )  # fmt: skip
        return tokens, finite[0]

    def stack(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """Returns questions as a batch.

        Args:
            questions: of `encode`.

        Returns:
            `[B, L]` int64 ids and `[B, L]` bool, the positions that are made, on the model's
            device.
        """
        ids = torch.full((len(questions), self.length), self.tokenizer.pad)
        for row, question in zip(ids, questions, strict=True):
            row[: len(question.given)] = torch.tensor(question.given)
        given = torch.tensor([len(question.given) for question in questions])
        mask = torch.arange(self.length) >= given[:, None]
        device = self.model.word_embedding.weight.device
        return ids.to(device), mask.to(device)

    def read(self, ids: Sequence[int], *, plain: bool = False) -> str:
        """Returns ids as text, without the padding behind it.

        Args:
            ids: of a target.
            plain: whether the text ends at the first token that ends one, and stands without the
                tokens around it; otherwise it is as the authors write it.
        """
        if not plain:
            return read_targets(ids, 0, self.tokenizer)
        end = next((n for n, one in enumerate(ids) if one == self.tokenizer.end), len(ids))
        return self.tokenizer.decode(ids[:end], skip_special_tokens=True).strip()

    def read_reference(self, target: Sequence[int]) -> str:
        """Returns a target that was given as the authors write it, all of it.

        Args:
            target: its ids; none where it is not known.
        """
        return self.read([self.tokenizer.start, *target, self.tokenizer.end]) if target else ""

    def describe(self) -> str:
        """Returns in a line how texts are made."""
        settings, sampler = self.sampling, self.sampling.sampler
        solver = f"{sampler.solver} with eta {sampler.eta:g}" if sampler.eta else sampler.solver
        rounded = "rounded to words" if sampler.clamp else "not rounded"
        steps = f"{len(self.timesteps)} of {self.process.total_steps} steps, {settings.schedule}"
        return f"{steps}; {solver}; estimates {rounded}."


def generate_texts(
    model: TextDiffusionModel,
    tokenizer: TextTokenizer,
    sources: Sequence[str],
    *,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[str]:
    """Returns a text for each source.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), section 6 of the specification.

    Args:
        model: of text diffusion.
        tokenizer: of the model.
        sources: any number; a longer one than the row has room for is cut at its end.
        seed: of the noise, below 2**64; another one gives another text.
        sampling: how texts are generated; 20 steps of Adaptive Decay Sampling if None.
        progress: called with the number of sources of each batch that is done.

    Raises:
        ValueError: the tokenizer is not the model's, a source has no tokens, or the settings do
            not fit the model.

    Example:
        >>> from lmcore.diffusion.models import make_model
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> sampling = SamplingConfig(steps=2, length=8)
        >>> model = make_model(tiny(), tokenizer)
        >>> one = generate_texts(model, tokenizer, ["a", "b a"], sampling=sampling)
        >>> two = generate_texts(model, tokenizer, ["b a", "a"], sampling=sampling)
        >>> one == two[::-1]
        True
    """
    return TextGenerator(model, tokenizer, sampling)(sources, seed=seed, progress=progress)


def load_generator(
    name: str | os.PathLike[str],
    sampling: SamplingConfig | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> TextGenerator:
    """Returns a generator with the model and the tokenizer of a folder.

    Args:
        name: as `save_pretrained` writes a model, with its tokenizer; or of a training run, whose
            best model it is.
        sampling: how texts are generated; 20 steps of Adaptive Decay Sampling if None.
        device: as for `lmcore.training.processes.find_device`.
        precision: of the network, `float32` or `bfloat16`; `auto` is bfloat16 on a GPU that has
            it. Words are looked up, rounded to and read in float32.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no model of text diffusion with its tokenizer, a setting does
            not fit the model, or the device does not exist or lacks the precision.

    Example:
        >>> load_generator("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] no such folder of a model: 'nowhere'
    """
    place = find_device(device)
    kind = find_precision(device, precision)
    model = load_model(name)
    generator = TextGenerator(model, load_tokenizer_of(name), sampling)
    narrow_denoiser(model, kind)
    nn.Module.to(model, place)  # transformers' own `to` is untyped
    return generator


def _find_distilled(config: TextDiffusionConfig, sampling: SamplingConfig) -> list[int]:
    if sampling.steps is not None or sampling.proportions is not None:
        raise ValueError(f"steps and proportions must not be given with the schedule {DISTILLED}")
    if config.distilled_timesteps is None:
        raise ValueError(f"the model was not distilled: it has no schedule {DISTILLED}")
    return sorted(config.distilled_timesteps, reverse=True)
