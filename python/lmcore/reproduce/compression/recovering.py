"""A small OpenBA, smaller ones that are made of it, and their recovery: what several claims ask."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmcore.reproduce.claim import Size
from lmcore.reproduce.openba.pretraining import (
    PEAK,
    SCALES,
    Corpus,
    Pretraining,
    Scale,
    generate_corpus,
)
from lmcore.reproduce.openba.words import Words

if TYPE_CHECKING:
    from lmcore.compression import Plan

DENOISERS = ("R3", "R8", "S", "X3", "X8", "X64_15", "X64_50")
"""UL2's seven."""
# The paper's, of its layer stages: a fifth of the largest step size of pre-training, which falls
# to half of it, after a warm-up of one step in twenty.
_SHARE, _FINAL, _WARMUP = 0.2, 0.5, 20
# Of the seeds of recovery, whose order of texts is not that of pre-training.
_OTHER = 1000
CALIBRATION = 2000
"""Documents that scores and masks are made with, of which nothing else reads any."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Sizes:
    """Of the experiment."""

    scale: Scale
    """Of the whole model and its training."""
    steps: int
    """Of recovery."""
    update_every_steps: int
    """Of D-UL2."""
    valid: int
    """Texts that D-UL2 is validated with; neither trained on nor tested."""
    mask_steps: int = 2
    """Of gates that learn what stays."""
    words: bool = False
    """Whether a word is a token, and nothing is scored: a vocabulary as small as the texts."""


SIZES: dict[Size, Sizes] = {
    "tiny": Sizes(
        scale=replace(SCALES["tiny"], decoder_layers=8, documents=120), steps=6,
        update_every_steps=2, valid=4,
    ),
    "full": Sizes(
        scale=replace(
            SCALES["full"], encoder_layers=1, decoder_layers=8, steps=600, batch_size=16,
            micro_batch_size=16,
        ),
        steps=120, update_every_steps=10, valid=64, mask_steps=100,
    ),
}  # fmt: skip
"""By the size of the claims."""
QUICK = Sizes(
    scale=replace(
        SCALES["quick"], decoder_layers=8, steps=150, batch_size=16, micro_batch_size=16
    ),
    steps=45, update_every_steps=15, valid=0, words=True,
)  # fmt: skip
"""Of claims on layers in a demo, which look at one model."""
GROUP = "pruned_models"
"""Of claims that look at the same models."""


def write_corpus(
    seed: int, scale: Scale, folder: Path, text: Path | None = None, count: int = 0
) -> Corpus:
    """Returns groups of generated documents, and writes the tokenizer that made them.

    Args:
        seed: of the world.
        scale: how large.
        folder: which is made, for the tokenizer.
        text: a file for documents that are in none of the groups.
        count: how many of these.
    """
    from lmcore.openba import OpenBATokenizer
    from lmcore.openba.models import find_ids
    from lmcore.worlds.openba import make_world, write_piece_file

    folder.mkdir()
    write_piece_file(folder / "spiece.model")
    tokenizer = OpenBATokenizer(folder / "spiece.model")
    tokenizer.save_pretrained(folder)
    documents = make_world(seed, documents=scale.documents).to_text().splitlines()
    count = min(count, len(documents) // 4)
    if text is not None:
        text.write_text("".join(f"{line}\n" for line in documents[:count]))
    end = [tokenizer.eos_token_id]
    encoded = tokenizer(documents[count:], add_special_tokens=False)["input_ids"]
    stream = np.array([number for ids in encoded for number in (*ids, *end)], np.int64)
    groups = stream[: len(stream) // scale.length * scale.length].reshape(-1, scale.length)
    ids = find_ids(tokenizer)
    prefixes: dict[str, Any] = {
        name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in "RSX"
    }
    # A group between both holds a document of each.
    return Corpus(
        train=groups[: -scale.tests - 1], test=groups[-scale.tests :],
        vocabulary_size=tokenizer.padded_size(1), ids=ids, prefixes=prefixes,
    )  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class Recovered:
    """A model after recovery."""

    model: Path
    """Its folder, and that of its tokenizer."""
    losses: Mapping[str, float]
    """Nats per target token of texts that are held out, by denoiser, and `loss`, the mean."""
    history: Sequence[Mapping[str, Any]]
    """The lines of its log."""

    def list_losses(self) -> list[float]:
        """Returns the mean losses of validation texts, in order of steps."""
        return [line["metrics"]["loss"] for line in self.history if line.get("metrics")]

    def list_shares(self, every: int) -> list[dict[str, float]]:
        """Returns how often each denoiser was drawn in D-UL2, at first and after each update.

        Args:
            every: steps between updates.
        """
        return [
            {name: line[f"share_of_{name}"] for name in DENOISERS}
            for line in self.history
            if (line["step"] - 1) % every == 0 and "share_of_S" in line
        ]


@dataclass(kw_only=True, slots=True, frozen=True)
class _Made:
    """What a seed and sizes make."""

    corpus: Corpus
    valid: NDArray[np.int64]
    files: Mapping[str, bytes]
    """Of the model and its tokenizer."""
    tokenizer: Any
    """Where the folder has none."""
    text: bytes
    losses: Mapping[str, float]
    targets: tuple[float, ...] | None
    """The model's losses of the validation texts."""


class Whole:
    """A trained model, in a folder with its tokenizer, and what it is asked and recovered with.

    Args:
        place: a folder where models may be written.
        seed: of the texts and of training.
        sizes: of the experiment.

    Attributes:
        folder: of the model and its tokenizer.
        text: a file of documents that nothing else reads, for scores.
        corpus: what is trained and tested with.
        losses: as `measure` gives them.
    """

    def __init__(self, place: Path, seed: int, sizes: Sizes) -> None:
        self._place, self._seed, self.sizes = place, seed, sizes
        self.folder, self.text = place / "whole", place / "text.txt"
        made = _make(seed, sizes)
        self.corpus, self.losses = made.corpus, made.losses
        self._made = made
        self.folder.mkdir()
        for name, content in made.files.items():
            Path(self.folder, name).write_bytes(content)
        self.text.write_bytes(made.text)
        self._count = 0

    def measure(self, model: Path) -> dict[str, float]:
        """Returns the nats per target token under each denoiser, and `loss`, the mean.

        Args:
            model: its folder.
        """
        from lmcore.openba.models import load_model

        return _measure(load_model(model), self.corpus.test, self.corpus)

    def cut(self, plan: Plan, source: Path | None = None, stage: int | None = None) -> Path:
        """Returns the folder of a smaller model.

        Args:
            plan: of the whole model.
            source: another one, which the stages before have left.
            stage: that is cut of it.
        """
        from lmcore.compression import prune_folder

        target = self.find_place()
        prune_folder(self.folder if source is None else source, target, plan, stage=stage)
        return target

    def start_anew(self, folder: Path) -> Path:
        """Returns the folder of a model of the same shape whose weights are drawn.

        Args:
            folder: of a model.
        """
        import torch

        from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
        from lmcore.training.checkpoint import no_bars

        target = self.find_place()
        shutil.copytree(folder, target)
        torch.manual_seed(self._seed)
        with no_bars():
            config = OpenBAConfig.from_pretrained(folder)
            OpenBAForConditionalGeneration(config).save_pretrained(target)
        return target

    def recover(
        self,
        model: Path,
        *,
        steps: int | None = None,
        lr: float = _SHARE * PEAK,
        final: float = _FINAL,
        parts: int = 1,
        stage: int = 0,
        teacher: Path | None = None,
        **changes: Any,
    ) -> Recovered:
        """Returns a model after training with the seven denoisers.

        Args:
            model: its folder.
            steps: how many; those of the sizes if None.
            lr: the largest step size.
            final: share of it at the end, to which it falls.
            parts: of the steps, after each of which the loss is told.
            stage: recoveries of other stages see the texts in other orders.
            teacher: the folder of a model that it learns from, beside its labels.
            changes: to the settings, such as `objective`.
        """
        from lmcore.compression import RecoveryConfig, recover
        from lmcore.training.config import (
            DeviceConfig,
            LoopConfig,
            OptimizerConfig,
            ScheduleConfig,
        )

        made, scale = self._made, self.sizes.scale
        count = self.sizes.steps if steps is None else steps
        given: dict[str, Any] = {
            "objective": "ul2",
            "update_every_steps": self.sizes.update_every_steps,
            "targets": self._made.targets,
            "teacher": "none" if teacher is None else str(teacher),
            "tied": False,
        }
        config = RecoveryConfig(
            text_tokens=scale.length,
            batch_size=scale.batch_size,
            micro_batch_size=scale.micro_batch_size,
            validation_batch_size=64,
            validation_texts=max(1, len(made.valid)),
            optimizer=OptimizerConfig(lr=lr, betas=(0.9, 0.95), weight_decay=0.1, clip_norm=1.0),
            schedule=ScheduleConfig(
                kind="cosine", warmup_steps=max(1, count // _WARMUP), final_share=final
            ),
            loop=LoopConfig(
                steps=count, validate_every_steps=max(1, count // parts), log_every_steps=1,
                metric="loss", metric_mode="min", seed=self._seed + _OTHER * (1 + stage),
            ),
            device=DeviceConfig(device="cpu", threads=1),
            **given | changes,
        )  # fmt: skip
        out = self.find_place()
        is_validated = parts > 1 or config.objective == "d_ul2"
        result = recover(
            config, self.corpus.train, out, model=model, tokenizer=made.tokenizer,
            valid=made.valid if is_validated else None,
        )  # fmt: skip
        model = out / "best"
        return Recovered(model=model, losses=self.measure(model), history=result.history)

    def find_place(self) -> Path:
        """Returns where a folder may be written."""
        self._count += 1
        return self._place / str(self._count)


@contextmanager
def train_whole(seed: int, sizes: Sizes) -> Iterator[Whole]:
    """Yields a trained model; of one seed and size it is trained once in a process.

    Args:
        seed: of the texts and of training.
        sizes: of the experiment.
    """
    from lmcore.training.checkpoint import no_bars

    with tempfile.TemporaryDirectory() as name, no_bars():
        yield Whole(Path(name), seed, sizes)


def cut_half(whole: Whole, seed: int) -> Path:
    """Returns the folder of a model with half of the decoder's layers, heads and inner units.

    Args:
        whole: of which it is made.
        seed: of the heads and units that are drawn.
    """
    from lmcore.compression import Sizes, add_chosen_stage, start_plan

    plan = start_plan(whole.folder)
    shape = plan.shape
    half = Sizes(
        decoder_layers=shape.decoder_layers // 2, heads=shape.heads // 2, ffn=shape.inner_size // 2
    )
    return whole.cut(add_chosen_stage(plan, half, seed=seed)[0])


@functools.cache
def train_on_words(seed: int, scale: Scale) -> tuple[Pretraining, Corpus, Words]:
    """Returns a trained model, what it reads and its words; it is trained once in a process.

    Args:
        seed: of the texts and of training.
        scale: how large.
    """
    words = Words()
    corpus = generate_corpus(seed, scale, words)
    return Pretraining(seed, scale, corpus, corpus.denoisers).train(), corpus, words


@functools.cache
def _make(seed: int, sizes: Sizes) -> _Made:
    from lmcore.training.checkpoint import no_bars

    with tempfile.TemporaryDirectory() as name, no_bars():
        folder, text = Path(name, "whole"), Path(name, "text.txt")
        if sizes.words:
            run, corpus, words = train_on_words(seed, sizes.scale)
            tokenizer, valid = _make_tokenizer(corpus, words), corpus.train[:0]
            text.touch()
        else:
            tokenizer = None
            corpus = write_corpus(seed, sizes.scale, folder, text, CALIBRATION)
            # A group between both holds a document of each.
            valid = corpus.train[-sizes.valid :]
            corpus = replace(corpus, train=corpus.train[: -sizes.valid - 1])
            run = Pretraining(seed, sizes.scale, corpus, corpus.denoisers).train()
        run.model.save_pretrained(folder)
        targets = _measure(run.model, valid, corpus) if len(valid) else {}
        return _Made(
            corpus=corpus, valid=valid, tokenizer=tokenizer, text=text.read_bytes(),
            files={path.name: path.read_bytes() for path in folder.iterdir()},
            losses=_measure(run.model, corpus.test, corpus),
            targets=tuple(targets[name] for name in DENOISERS) if targets else None,
        )  # fmt: skip


def _make_tokenizer(corpus: Corpus, words: Words) -> Any:
    """Of texts that are ids already: it says which of them are which."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    ids = corpus.ids
    vocabulary = {"<pad>": ids.pad, "</s>": ids.eos, **words.ids}
    vocabulary |= {f"<extra_id_{n}>": ids.first_sentinel - n for n in range(ids.sentinel_count)}
    vocabulary |= {f"<{name}>": number for name, number in corpus.prefixes.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<pad>")),
        eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip


def _measure(model: Any, texts: NDArray[np.int64], corpus: Corpus) -> dict[str, float]:
    from lmcore.openba.objective import measure_losses

    losses = measure_losses(
        model.eval(), texts, denoisers=corpus.denoisers, ids=corpus.ids, batch_size=64
    )
    return {name.removeprefix("loss_"): loss for name, loss in losses.items()}
