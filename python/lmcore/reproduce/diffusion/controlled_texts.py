"""Claim: a classifier of the latents makes a model of texts say what it shall.

Diffusion-LM's tasks of semantic content and of syntax spans on E2E's descriptions of restaurants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.diffusion.attributes import (
    DATA,
    OUTSIDE,
    PACKAGE,
    Span,
    Value,
    allow_span,
    find_spans,
    has_value,
    make_tokenizer,
    read_restaurants,
    read_values,
    tag_words,
)
from lmcore.reproduce.diffusion.paraphrasing import keep_steps, train_run

if TYPE_CHECKING:
    from torch import Tensor

    from lmcore.diffusion.classifier import LatentClassifier
    from lmcore.diffusion.guidance import GuidanceConfig
    from lmcore.diffusion.recipes import TrainConfig
    from lmcore.diffusion.training import DiffusionRun

# What all texts are written after: there is nothing that they are the answer to.
_SOURCE = "restaurant"
# Positions of a row that hold no word: those of the source, and those around the text.
_MARKS = 6
_TASKS = {"content": "semantic content", "spans": "syntax spans"}
# A value or a tag that comes so seldom cannot be learned.
_LEAST = 20


@dataclass(kw_only=True, slots=True, frozen=True)
class _Scale:
    tests: int
    steps: int
    """Of the model's training."""
    classifier_steps: int
    sampling_steps: tuple[int, ...]
    texts: int | None = None
    """That are trained on; None: all."""
    batch_size: int = 32
    hidden_size: int = 128
    length: int = 32
    """Positions of a row; texts that do not fit are left out."""


_SCALES: dict[Size, _Scale] = {
    "tiny": _Scale(
        tests=4, steps=3, classifier_steps=3, sampling_steps=(2, 3), texts=60, batch_size=8,
        hidden_size=16,
    ),
    "full": _Scale(tests=48, steps=1400, classifier_steps=300, sampling_steps=(20, 100)),
}  # fmt: skip
# By the number of steps of the chain: fewer of them have to go further.
_STEP_SIZES = {20: 0.4, 100: 0.1}
_FLUENCY, _EPSILON = 0.001, 0.03


@dataclass(kw_only=True, slots=True, frozen=True)
class _Task:
    """What texts shall hold, the classifier that knows it, and how it is looked for."""

    classifier: LatentClassifier
    targets: Tensor
    is_met: Callable[[int, Sequence[int]], bool]
    """(row, ids of its words)"""


def measure_controlled_texts(seed: int, size: Size) -> Measurement:
    """Returns how many texts hold what they shall, with and without guidance.

    Args:
        seed: of the division of restaurants, of training, targets and noise.
        size: of the model, and how many steps.

    Returns:
        Values named `<task>/<steps>/none` and `.../guided`, the share of texts that hold their
        target in per cent; `<arm>/<steps>/self_bleu`, `.../entropy` and `.../bleu`, of texts
        without control (`none`) and of each task's: self-BLEU-4 and BLEU-4 against the texts of
        the restaurants that were held out, in per cent, and the entropy of words in nats;
        `gain/<task>`, guided minus without, the mean over the numbers of steps.

    Raises:
        ImportError: the package `textblob` is not installed.
        OSError: a file of `LMCORE_DATA` cannot be read.
    """
    scale = _SCALES[size]
    experiment = _Experiment(seed, scale)
    tasks = {"content": experiment.make_content(), "spans": experiment.make_spans()}
    values: dict[str, float] = {}
    for steps in scale.sampling_steps:
        free = experiment.sample(steps)
        values |= experiment.score(f"none/{steps}", free)
        for name, task in tasks.items():
            guided = experiment.sample(steps, task)
            values |= experiment.score(f"{name}/{steps}", guided)
            values[f"{name}/{steps}/none"] = _count(task, free)
            values[f"{name}/{steps}/guided"] = _count(task, guided)
    for name in tasks:
        gains = [
            values[f"{name}/{n}/guided"] - values[f"{name}/{n}/none"] for n in scale.sampling_steps
        ]
        values[f"gain/{name}"] = float(np.mean(gains))
    return Measurement(values=values)


class _Experiment:
    """A model of descriptions, and the rows that are held out."""

    def __init__(self, seed: int, scale: _Scale) -> None:
        from lmcore.diffusion.pairs import Pair

        self.seed, self.scale = seed, scale
        world = read_restaurants(seed, scale.tests)
        self.held, texts = world.held, world.trained[: scale.texts]
        self.tokenizer = make_tokenizer([*texts, _SOURCE, _SOURCE])
        self.config = _make_config(seed, scale)
        pairs = [
            Pair(_SOURCE, text)
            for text, ids in zip(texts, self.tokenizer.encode_batch(texts), strict=True)
            if len(ids) <= scale.length - _MARKS
        ]
        self.run: DiffusionRun = train_run(self.config, pairs, self.tokenizer, scale.steps)
        self.rows = [self._read(row) for row in self.run.data.ids.tolist()]

    @property
    def first(self) -> int:
        """Position of the first word that is made; the sources are all the same."""
        return int(self.run.data.source_lengths[0]) + 1

    def make_content(self) -> _Task:
        """Returns the task that the words of a field's value stand in the text."""
        import torch

        known: dict[Value, int] = {}
        for one in self.held:
            for value in read_values(one.source, self.tokenizer):
                known.setdefault(value, len(known))
        labels = torch.tensor([[has_value(row, value) for value in known] for row in self.rows])
        often = [value for value, n in known.items() if int(labels[:, n].sum()) >= _LEAST]
        often = often or list(known)
        labels = labels[:, [known[value] for value in often]]
        draws = np.random.default_rng(self.seed)
        wanted = []
        for one in self.held:
            own = [often.index(v) for v in read_values(one.source, self.tokenizer) if v in often]
            wanted.append(int(draws.choice(own or len(often))))
        targets = torch.zeros(len(wanted), len(often), dtype=torch.bool)
        targets[range(len(wanted)), wanted] = True
        return _Task(
            classifier=self._train(labels, len(often), per_position=False),
            targets=targets,
            is_met=lambda row, ids: has_value(ids, often[wanted[row]]),
        )

    def make_spans(self) -> _Task:
        """Returns the task that a phrase stands at a place of the text."""
        import torch

        tags = [self._tag(row) for row in self.rows]
        kinds = sorted({tag for row in tags for tag in row} | {OUTSIDE})
        numbers = {kind: n for n, kind in enumerate(kinds)}
        labels = torch.full(self.run.data.ids.shape, numbers[OUTSIDE])
        for row, found in zip(labels, tags, strict=True):
            row[self.first : self.first + len(found)] = torch.tensor([numbers[t] for t in found])
        draws = np.random.default_rng(self.seed)
        wanted: list[Span] = []
        for one in self.held:
            spans = find_spans(self._tag(self.tokenizer.encode_batch([one.targets[0]])[0]))
            fitting = [
                span for span in spans
                if span.end < self.scale.length - _MARKS
                and {f"B-{span.label}", f"I-{span.label}"} <= {*kinds}
            ]  # fmt: skip
            wanted.append(fitting[draws.integers(len(fitting))])
        allowed = [allow_span(span, kinds, self.scale.length, self.first) for span in wanted]
        return _Task(
            classifier=self._train(labels, len(kinds), per_position=True),
            targets=torch.from_numpy(np.array(allowed)),
            is_met=lambda row, ids: wanted[row] in find_spans(self._tag(ids)),
        )

    def sample(self, steps: int, task: _Task | None = None) -> list[list[int]]:
        """Returns the words of a text for each row.

        Args:
            steps: of the chain.
            task: what the texts are guided to.
        """
        import torch
        from torch import nn

        from lmcore.diffusion.data import encode_pairs
        from lmcore.diffusion.guidance import ClassifierGuide
        from lmcore.diffusion.pairs import Pair
        from lmcore.diffusion.sampling import sample_tokens
        from lmcore.diffusion.spacing import make_process

        blank = [Pair(_SOURCE, _SOURCE)] * len(self.held)
        encoded = encode_pairs(blank, self.tokenizer, self.scale.length)
        ids, mask = torch.from_numpy(encoded.ids).long(), torch.from_numpy(encoded.target_mask)
        guide = None
        if task is not None:
            guide = ClassifierGuide(task.classifier, task.targets, _find_strength(steps))
        with self.run.averaged() as model:
            nn.Module.eval(model)
            process = make_process(model.config, keep_steps("adaptive", steps))
            found = sample_tokens(
                model, process, ids, mask, seed=self.seed, rows=range(len(ids)), guide=guide
            )
        return [self._read(row) for row in found.tolist()]

    def score(self, name: str, rows: Sequence[Sequence[int]]) -> dict[str, float]:
        """Returns what tells of the quality of texts.

        Args:
            name: before each value's own.
            rows: ids of words.
        """
        from lmcore.diffusion.scoring import score_texts
        from lmcore.ops.ngrams import self_bleu, sentence_bleu

        texts = [self.tokenizer.tokenizer.decode(row) or "[UNK]" for row in rows]
        held = self.tokenizer.encode_batch([text for one in self.held for text in one.targets])
        references = [self.tokenizer.tokenizer.decode(row) for row in held]
        bleu = sentence_bleu(texts, [references] * len(texts), threads=1)[:, 3]
        entropy = score_texts(texts, texts, threads=1)["entropy"]
        assert isinstance(entropy, float)
        return {
            f"{name}/self_bleu": 100 * float(self_bleu(texts, order=4)[:, 3].mean()),
            f"{name}/entropy": entropy,
            f"{name}/bleu": 100 * float(bleu.mean()),
        }

    def _train(self, labels: Tensor, count: int, *, per_position: bool) -> LatentClassifier:
        import torch

        from lmcore.diffusion.classifier import LatentClassifier, train_classifier
        from lmcore.training.seeding import seed_torch

        data = self.run.data
        seed_torch(self.seed)
        with self.run.averaged() as model:
            classifier = LatentClassifier(model.config, count, per_position=per_position)
            train_classifier(
                classifier, model, self.run.process, torch.from_numpy(data.ids).long(),
                torch.from_numpy(data.target_mask), labels, steps=self.scale.classifier_steps,
                batch_size=self.config.batch_size, lr=3e-3, seed=self.seed,
            )  # fmt: skip
        return classifier

    def _read(self, row: Sequence[int]) -> list[int]:
        """The ids of the words of a row."""
        words = list(row[self.first :])
        end = words.index(self.tokenizer.end) if self.tokenizer.end in words else len(words)
        marks = (self.tokenizer.start, self.tokenizer.pad)
        return [one for one in words[:end] if one not in marks]

    def _tag(self, ids: Sequence[int]) -> list[str]:
        words = [str(self.tokenizer.tokenizer.id_to_token(one)) for one in ids]
        return tag_words(words) if words else []


def _make_config(seed: int, scale: _Scale) -> TrainConfig:
    from lmcore.diffusion.recipes import tiny
    from lmcore.training.config import change

    return change(
        tiny(),
        {
            "loop.seed": seed, "loop.steps": scale.steps, "batch_size": scale.batch_size,
            "micro_batch_size": scale.batch_size, "length": scale.length,
            "shape.hidden_size": scale.hidden_size, "shape.ffn_size": 4 * scale.hidden_size,
            "schedule.warmup_steps": min(100, scale.steps // 2), "device.device": "cpu",
        },
    )  # fmt: skip


def _find_strength(steps: int) -> GuidanceConfig:
    from lmcore.diffusion.guidance import GuidanceConfig

    return GuidanceConfig(step_size=_STEP_SIZES.get(steps, 0.1), fluency=_FLUENCY, epsilon=_EPSILON)


def _count(task: _Task, rows: Sequence[Sequence[int]]) -> float:
    """The share of texts that hold their target, in per cent."""
    return 100 * float(np.mean([task.is_met(row, ids) for row, ids in enumerate(rows)]))


def control_helps(estimates: Estimates) -> bool:
    """Returns whether guidance raises the share of both tasks by more than the spread.

    Args:
        estimates: the numbers of `measure_controlled_texts`.
    """
    return all(estimates[f"gain/{task}"].mean > estimates[f"gain/{task}"].spread for task in _TASKS)


def _find_steps(estimates: Estimates) -> list[int]:
    """The numbers of steps that were measured."""
    return sorted(int(name.split("/")[1]) for name in estimates if name.startswith("none/")
                  and name.endswith("/bleu"))  # fmt: skip


def _describe(estimates: Estimates) -> str:
    steps = _find_steps(estimates)
    lines = [f"texts that hold their target, %, at {' and '.join(map(str, steps))} steps"]
    for task, title in _TASKS.items():
        shares: dict[str, str] = {
            arm: ", ".join(estimates[f"{task}/{n}/{arm}"].format(1) for n in steps)
            for arm in ("none", "guided")
        }
        gain = estimates[f"gain/{task}"].format(1, sign=True)
        lines.append(f"{title}: no control {shares['none']}, guided {shares['guided']}; {gain}")
    for arm, title in {"none": "no control", **_TASKS}.items():
        parts: list[Any] = [
            f"{estimates[f'{arm}/{n}/self_bleu'].format(1)} / "
            f"{estimates[f'{arm}/{n}/entropy'].format(2)} / "
            f"{estimates[f'{arm}/{n}/bleu'].format(1)}"
            for n in steps
        ]
        lines.append(f"self-BLEU-4 / entropy / BLEU-4 to any held-out text, {title}: "
                     f"{', '.join(parts)}")  # fmt: skip
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    steps = _find_steps(estimates)
    panels = tuple(
        Panel(
            title=title,
            series=tuple(
                Series(
                    name=name,
                    y=tuple(estimates[f"{task}/{n}/{arm}"].mean for n in steps),
                    spread=tuple(estimates[f"{task}/{n}/{arm}"].spread for n in steps),
                )
                for arm, name in {"none": "no control", "guided": "guided"}.items()
            ),
        )
        for task, title in _TASKS.items()
    )
    return (
        Plot(
            title="Texts that hold their target", kind="bars", x_label="steps", y_label="%",
            x=tuple(map(str, steps)), panels=panels,
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="controlled_texts",
        system="diffusion",
        statement="A classifier of the latents makes texts hold what they shall.",
        source="Bridge-Gap Diffusion, arXiv 2305.04465, E2E; Diffusion-LM, arXiv 2205.14217",
        paper="semantic content 85.06, syntax spans 95.33 (reported by others)",
        setting="A small model of E2E's descriptions of up to 26 words, trained from nothing on "
        "those of its development and test files, and two small classifiers. A target is a value "
        "of a restaurant that was held out, met where its words stand in the text; or a phrase of "
        "its description (start, end and kind, by textblob's parser), met where the text has "
        "exactly that phrase. One text for each target, without a choice among several.",
        measure=measure_controlled_texts,
        describe=_describe,
        rule="For both tasks, in the mean over few and many steps, more texts hold their target "
        "with guidance than without, by more than the spread.",
        expected="reproduced",
        needs=(f"data:{DATA}", f"package:{PACKAGE}"),
        sizes=("tiny", "full"),
        holds=control_helps,
        plot=_plot,
    ),
)
