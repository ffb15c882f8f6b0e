"""Training of Segment-CNN on texts whose segments are labelled."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from lmcore._manifest import find_model
from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
from lmcore.detox.modeling_segment_cnn import SegmentCNNModel, load_weights
from lmcore.detox.objective import compute_span_loss
from lmcore.detox.span_collator import CutTexts, SpanCollator, cut_examples
from lmcore.detox.span_labels import SpanExample
from lmcore.detox.span_recipes import SpanTrainConfig
from lmcore.detox.span_scores import compute_ratios
from lmcore.detox.tokenization import SegmentTokenizer, load_tokenizer
from lmcore.training.batches import ExampleBatches, share_rows
from lmcore.training.checkpoint import (
    check_weights,
    gather_weights,
    hash_weights,
    no_bars,
    take_weights,
)
from lmcore.training.config import LoopConfig
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    start_processes,
    use_threads,
)
from lmcore.training.seeding import seed_torch

# What may change when a run goes on. Data may move: a fingerprint tells what they are.
_FREE = (
    "config.model", "config.epochs", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "config.device.sharding", "config.device.recompute",
    "data.path", "data.valid", "data.tokenizer",
)  # fmt: skip
# Where the length of the run changes what each step does.
_OF_LENGTH = ("config.epochs", "config.loop.steps")


@dataclass(kw_only=True, slots=True, frozen=True)
class SpanTrainResult:
    """What a training run left behind."""

    folder: Path
    """Holds everything; `best` in it is the folder of the best model and its tokenizer."""
    steps: int
    """Those trained, in this and earlier calls."""
    best_step: int
    """After which the model was the best one."""
    best_value: float | None
    """Its validation metric; None without validation texts, where the last model is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    steps_per_epoch: int
    """Steps after which every text has come at least once."""
    cut: CutTexts
    """What of the training texts did not fit into rows."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def train_spans(
    config: SpanTrainConfig,
    examples: Sequence[SpanExample],
    out: str | os.PathLike[str],
    *,
    valid: Sequence[SpanExample] = (),
    tokenizer: str | os.PathLike[str] | SegmentTokenizer | None = None,
    resume: bool = True,
    progress: bool = False,
    data_path: str | os.PathLike[str] | None = None,
    valid_path: str | os.PathLike[str] | None = None,
) -> SpanTrainResult:
    """Returns the result of a training run, whose files stand in a folder.

    The folder gets `recipe.json` (settings and data), `log.jsonl`, `states`, `models`, and `best`:
    the model that was best in validation and its tokenizer. A killed run, started again, goes on
    from the last saved step and ends with the same weights as an unbroken one, at the same number
    of processes and threads. The loss is that of the whole batch, however it is divided.

    Source: Detox-Chain (arXiv 2308.08295), section 2.3 of the specification.

    Args:
        config: the settings.
        examples: to train on.
        out: the folder; it is made if it does not exist.
        valid: to validate with; without them the last model is the best.
        tokenizer: of the texts, or its file; that of `config.model` by default.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar, a line for each validation, and what was cut, on standard
            error.
        data_path: where the texts came from, for `recipe.json`; no file of the run.
        valid_path: where the validation texts came from.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        OSError: a file cannot be read or written.
        ValueError: there are no texts; there is no tokenizer; the model cannot be loaded, or does
            not fit its tokenizer or the settings; the device does not exist; the data would be
            overwritten; or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lmcore.detox.span_recipes import tiny
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> from lmcore.training.config import change
        >>> ids, labels = np.array([5, 6, 5], np.int32), np.array([0, 1], np.int8)
        >>> config = change(tiny(), {"shape.hidden_size": 8, "shape.layers": 1, "loop.steps": 2})
        >>> tokenizer = make_tokenizer(["a", "b"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     examples = [SpanExample(ids, labels, 1)]
        ...     train_spans(config, examples, folder, tokenizer=tokenizer).steps
        2
    """
    paths = {"data": data_path, "valid": valid_path}
    paths["tokenizer"] = None if isinstance(tokenizer, SegmentTokenizer) else tokenizer
    shown = {k: None if v is None else os.path.abspath(v) for k, v in paths.items()}  # noqa: PTH100
    keep_apart(out, [path for path in (*paths.values(), config.model) if path is not None])
    config = replace(config, device=choose_precision(config.device, progress=progress))
    with use_threads(config.device.threads), start_processes(config.device.device) as processes:
        run = SpanRun(config, examples, valid, tokenizer=tokenizer, processes=processes)
        if progress and processes.is_first and run.cut.texts:
            print(run.cut, file=sys.stderr)
        record = DataRecord(
            path=shown["data"],
            options={"valid": shown["valid"], "tokenizer": shown["tokenizer"]},
            sizes={"texts": len(examples), "valid_texts": len(valid)},
            fingerprint=processes.first(run.find_fingerprint),
        )
        is_fixed = config.schedule.needs_steps
        free = [name for name in _FREE if not (is_fixed and name in _OF_LENGTH)]
        result = fit(
            run,
            out,
            run.loop,
            recipe=Recipe(config=config, data=record, free=tuple(free)),
            processes=processes,
            unit="tokens",
            resume=resume,
            progress=progress,
        )
    return SpanTrainResult(
        folder=Path(out),
        steps=result.steps,
        best_step=result.best_step,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        steps_per_epoch=run.batches.steps_per_epoch,
        cut=run.cut,
        history=result.history,
    )


class SpanRun:
    """One run of training: tokenizer, model, optimizer and labelled texts.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops, which
    seed dropout as they like.

    Args:
        config: the settings.
        examples: to train on.
        valid: to validate with.
        tokenizer: as for `train_spans`.
        processes: those that share each batch; this one alone by default.

    Raises:
        OSError: as for `train_spans`.
        ValueError: as for `train_spans`.

    Example:
        >>> import numpy as np
        >>> from lmcore.detox.span_recipes import tiny
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> ids, labels = np.array([5, 6, 5], np.int32), np.array([0, 1], np.int8)
        >>> tokenizer = make_tokenizer(["a", "b"])
        >>> run = SpanRun(tiny(), [SpanExample(ids, labels, 1)], tokenizer=tokenizer)
        >>> run.step(1)["loss"].shape
        torch.Size([])
    """

    def __init__(
        self,
        config: SpanTrainConfig,
        examples: Sequence[SpanExample],
        valid: Sequence[SpanExample] = (),
        *,
        tokenizer: str | os.PathLike[str] | SegmentTokenizer | None = None,
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.device = config, processes, processes.device
        _check_batch(config, processes.data_count)
        if not examples:
            raise ValueError("there are no texts to train on")
        self.tokenizer = find_tokenizer(tokenizer, config.model)
        size, length = config.segment_size, config.max_length
        self.collator = SpanCollator(self.tokenizer, length, size)
        self.examples, self.cut = cut_examples(examples, length, size)
        self.valid, _ = cut_examples(valid, length, size)
        _check_labels([*self.examples, *self.valid], size)
        seed_torch(config.loop.seed)
        self.model = _make_model(config, self.tokenizer)
        self._first_weights = hash_weights(self.model) if processes.is_first else b""
        self.batches = ExampleBatches(
            self.examples, config.batch_size, config.loop.seed, self.collator
        )
        nn.Module.to(self.model, self.device)  # transformers' own `to` is untyped
        layers: Any = self.model.bert.encoder.layer
        processes.shard(self.model, [*layers], config.device)
        self.optimizer = Optimizer(
            self.model, config.optimizer, config.schedule, config.device, processes,
            steps=self.loop.steps,
        )  # fmt: skip

    @property
    def loop(self) -> LoopConfig:
        """When to validate, log and end, with epochs as numbers of steps."""
        loop, epoch = self.config.loop, self.batches.steps_per_epoch
        validate = loop.validate_every_steps or epoch
        return replace(
            loop,
            steps=loop.steps or self.config.epochs * epoch,
            validate_every_steps=validate,
            log_every_steps=loop.log_every_steps or min(validate, epoch),
        )

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of it, a micro-batch at a time.

        Args:
            step: from 1.

        Returns:
            `loss` and its parts over the batch, `text` and `spans`; `tokens` of this process.
        """
        config = self.config
        nn.Module.train(self.model)
        whole = [self.examples[k] for k in self.batches.find(step, slice(config.batch_size))]
        counts = _count_labels(whole, config.segment_size)
        indices = self.batches.find(step, share_rows(config.batch_size, self.processes))
        # Rows of about one length stand together; the longest come first, where memory may end.
        indices.sort(key=lambda index: -len(self.examples[index].ids))
        sums = torch.zeros(2, device=self.device)
        for first in range(0, len(indices), config.micro_batch_size):
            part = indices[first : first + config.micro_batch_size]
            batch = self._put(self.collator([self.examples[index] for index in part]))
            with self.optimizer.autocast():
                found = self.model(batch["input_ids"], attention_mask=batch["attention_mask"])
            assert found.logits is not None
            assert found.span_logits is not None
            text = functional.cross_entropy(found.logits.float(), batch["labels"], reduction="sum")
            text = text / len(whole)
            spans = compute_span_loss(
                found.span_logits.float(), batch["span_labels"], kind=config.span_loss,
                toxic_weight=config.toxic_weight, counts=counts,
            )  # fmt: skip
            self.optimizer.backward(text + spans)
            sums += torch.stack([text.detach(), spans.detach()])
        self.optimizer.update(step)
        text, spans = self.processes.sum(sums)
        tokens = sum(len(self.examples[index].ids) + 2 for index in indices)
        return {
            "loss": text + spans, "text": text, "spans": spans, "tokens": torch.tensor(tokens)
        }  # fmt: skip

    def validate(self) -> dict[str, float]:
        """Returns recall, precision and F1 of toxic segments, and the accuracy of texts.

        Empty without validation texts.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        check_weights(self.model)
        if not self.valid:
            return {}
        nn.Module.eval(self.model)
        counts = torch.zeros(4, dtype=torch.int64, device=self.device)
        order = sorted(range(len(self.valid)), key=lambda index: -len(self.valid[index].ids))
        size, processes = self.config.micro_batch_size, self.processes
        # Sharded weights come together for all processes at once: then each computes all.
        is_whole = self.config.device.sharding != "none"
        for number, first in enumerate(range(0, len(order), size)):
            if not is_whole and number % processes.data_count != processes.data_rank:
                continue
            part = [self.valid[index] for index in order[first : first + size]]
            counts += self._count(self._put(self.collator(part)))
        self._give_back()
        if not is_whole:
            counts = processes.sum(counts)
        right, found, expected, texts = counts.tolist()
        ratios = compute_ratios(right, found, expected)
        return {
            "pair_f1": ratios.f1, "pair_recall": ratios.recall,
            "pair_precision": ratios.precision, "accuracy": texts / len(self.valid),
        }  # fmt: skip

    def save_model(self, folder: Path) -> None:
        """Writes the model and its tokenizer, for `load_segment_cnn`.

        Args:
            folder: where to.
        """
        weights: dict[str, Tensor] = {}
        for name, value in gather_weights(self.model).items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if self.processes.is_first:  # one at a time: no device has to hold all of them
                weights[name] = whole.cpu()
        if self.processes.is_first:
            with no_bars():
                self.model.save_pretrained(folder, state_dict=weights)
            self.tokenizer.save(folder)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        return {
            "model": gather_weights(self.model, trained=True),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        take_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def find_fingerprint(self) -> str:
        """Returns what tells the texts, their labels, the tokenizer and the first weights apart."""
        digest = hashlib.blake2b(self._first_weights, digest_size=16)
        digest.update(self.tokenizer.tokenizer.to_str().encode())
        for examples in (self.examples, self.valid):
            digest.update(len(examples).to_bytes(8, "little"))
            for ids, labels, toxic in examples:
                digest.update(len(ids).to_bytes(8, "little") + bytes([toxic]))
                digest.update(ids.astype("<i4").tobytes() + labels.astype("i1").tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def _count(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Toxic segments that were found, those said to be and those that are; texts judged right.

        The segments with `[CLS]` and `[SEP]` are not of the text.
        """
        with self.optimizer.autocast():
            found = self.model(batch["input_ids"], attention_mask=batch["attention_mask"])
        assert found.logits is not None
        assert found.span_logits is not None
        size = self.config.segment_size
        lengths = batch["attention_mask"].sum(1, keepdim=True)
        places = torch.arange(batch["span_labels"].shape[1], device=self.device)
        is_own = (places > 0) & (places < lengths - size)
        said = (found.span_logits.argmax(-1) == 1) & is_own
        toxic = (batch["span_labels"] == 1) & is_own
        right = (found.logits.argmax(-1) == batch["labels"]).sum()
        return torch.stack([(said & toxic).sum(), said.sum(), toxic.sum(), right])

    def _put(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in batch.items()}

    def _give_back(self) -> None:
        """Divides sharded weights again, which stay whole after a pass that has no backward one."""
        sharded: Any = self.model
        if hasattr(sharded, "reshard"):
            sharded.reshard()


def _make_model(config: SpanTrainConfig, tokenizer: SegmentTokenizer) -> SegmentCNNModel:
    """The model that is trained, as it starts."""
    settings: dict[str, Any] = {
        "segment_size": config.segment_size, "span_loss": config.span_loss,
        "toxic_weight": config.toxic_weight, "max_length": config.max_length,
    }  # fmt: skip
    if config.model is None:
        shape = config.shape
        sizes: dict[str, Any] = {
            "vocab_size": tokenizer.vocabulary_size, "hidden_size": shape.hidden_size,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "intermediate_size": shape.ffn_size, "max_position_embeddings": shape.positions,
            "hidden_dropout_prob": shape.dropout, "attention_probs_dropout_prob": shape.dropout,
            "pad_token_id": tokenizer.pad,
        }  # fmt: skip
        return SegmentCNNModel(SegmentCNNConfig(**sizes, **settings))
    model, _ = load_weights(config.model, segment_size=config.segment_size)
    own = model.config
    if own.segment_size != config.segment_size:
        raise ValueError(
            f"segment_size must be {own.segment_size}, as that of the model: "
            f"got {config.segment_size}"
        )
    check_fit(model, tokenizer, config.max_length)
    for name, value in settings.items():
        setattr(own, name, value)
    return model


def check_fit(model: SegmentCNNModel, tokenizer: SegmentTokenizer, max_length: int) -> None:
    """Checks that a model has an embedding for each token and each position.

    Args:
        model: a Segment-CNN.
        tokenizer: of the texts.
        max_length: L, positions of a row.

    Raises:
        ValueError: it has not.

    Example:
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = SegmentCNNModel(SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes))
        >>> check_fit(model, make_tokenizer(["a"]), 128)
    """
    config = model.config
    if tokenizer.vocabulary_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has ids up to {tokenizer.vocabulary_size - 1}, and the model knows "
            f"those below {config.vocab_size}"
        )
    if max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length must be at most the {config.max_position_embeddings} positions of the "
            f"model: got {max_length}"
        )


def _check_batch(config: SpanTrainConfig, count: int) -> None:
    is_sharded = config.device.sharding != "none"
    if config.batch_size < count or (is_sharded and config.batch_size % count):
        raise ValueError(
            f"batch_size must be {'a multiple of' if is_sharded else 'at least'} the {count} "
            f"processes: got {config.batch_size}"
        )


def _check_labels(examples: Sequence[SpanExample], size: int) -> None:
    for index, (ids, labels, _) in enumerate(examples):
        count = max(0, len(ids) - size + 1)
        if len(labels) != count:
            raise ValueError(
                f"examples[{index}] must have a label for each of its {count} segments of {size} "
                f"tokens: got {len(labels)}"
            )


def _count_labels(examples: Sequence[SpanExample], size: int) -> tuple[int, int]:
    """Toxic segments of a batch, and others: with `[CLS]` and `[SEP]` there are k + 3 - n."""
    toxic = sum(int(example.labels.sum()) for example in examples)
    return toxic, sum(max(0, len(example.ids) + 3 - size) for example in examples) - toxic


def find_tokenizer(
    tokenizer: str | os.PathLike[str] | SegmentTokenizer | None, model: str | None
) -> SegmentTokenizer:
    """Returns a tokenizer: one that is given, that of a file, or that of a model.

    Args:
        tokenizer: or its file; None: that of the model.
        model: its folder.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no tokenizer, or neither is given.

    Example:
        >>> find_tokenizer(None, None)
        Traceback (most recent call last):
        ValueError: tokenizer must be given where no model is: got none
    """
    if isinstance(tokenizer, SegmentTokenizer):
        return tokenizer
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    if model is None:
        raise ValueError("tokenizer must be given where no model is: got none")
    return load_tokenizer(find_model(model))
