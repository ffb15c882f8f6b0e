"""Training of models that write chains: cross entropy and the contrastive term (section 4)."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmcore.detox.anchor_window import AnchorWindow
from lmcore.detox.anchors import contrast
from lmcore.detox.chain_collator import ChainCollator, ChainCounts, EncodedChain
from lmcore.detox.models import make_model
from lmcore.detox.recipes import TrainConfig
from lmcore.training.batches import ExampleBatches, divide_rows, share_rows
from lmcore.training.checkpoint import (
    check_weights,
    gather_weights,
    hash_weights,
    take_weights,
)
from lmcore.training.config import LoopConfig
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.models import (
    add_lora,
    check_fit,
    find_blocks,
    load_model,
    load_tokenizer,
    make_tokenizer,
    recompute_layers,
    save_model,
)
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    start_processes,
    use_threads,
)
from lmcore.training.seeding import seed_torch

# What may change when a run goes on. Files and the model may move: a fingerprint of the tokens and
# of the first weights tells what they are.
_FREE = (
    "config.model", "config.epochs", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "config.device.sharding", "config.device.recompute",
    "data.path", "data.valid",
)  # fmt: skip
# Where the length of the run changes what each step does.
_OF_LENGTH = ("config.epochs", "config.loop.steps")


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainResult:
    """What a training run left behind."""

    folder: Path
    """Holds everything; `best` in it is the folder of the best model and its tokenizer."""
    steps: int
    """Those trained, in this and earlier calls."""
    best_step: int
    """After which the model was the best one."""
    best_value: float | None
    """Its validation loss; None without validation rows, where the last model is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    steps_per_epoch: int
    """Steps after which every row has come at least once."""
    groups: int
    """Training rows that the contrastive term uses."""
    counts: ChainCounts
    """Training rows that did not fit, or have nothing to contrast."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def train(
    config: TrainConfig,
    rows: Sequence[Mapping[str, Any]],
    out: str | os.PathLike[str],
    *,
    valid: Sequence[Mapping[str, Any]] = (),
    model: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = False,
    data_path: str | os.PathLike[str] | None = None,
    valid_path: str | os.PathLike[str] | None = None,
) -> TrainResult:
    """Returns the result of a training run, whose files stand in a folder.

    The folder gets `recipe.json` (settings and data), `log.jsonl`, `states`, `models`, and `best`:
    the model that was best in validation and its tokenizer, or its adapter. A killed run, started
    again, goes on from the last saved step and ends with the same weights as an unbroken one, at
    the same number of processes and threads.

    The loss is the mean cross entropy over the tokens of the chains, plus the mean contrastive
    term over the rows that have a toxic continuation, times its weight. Each of both passes is
    followed by its own backward pass, so that no two forward passes of a sharded model wait for
    one.

    Source: Detox-Chain (arXiv 2308.08295), section 4 of the specification.

    Args:
        config: the settings.
        rows: in a form of `lmcore.detox.chain_rows`.
        out: the folder; it is made if it does not exist.
        valid: such rows; without them the last model is the best.
        model: takes the place of `config.model`.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar, a line for each validation, and what did not fit, on
            standard error.
        data_path: where the rows came from, for `recipe.json`; no file of the run.
        valid_path: where the validation rows came from.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        ImportError: LoRA is asked for, and peft is not installed.
        OSError: a file cannot be written.
        ValueError: there are no rows, or one cannot be used; none has a toxic continuation, and
            the contrastive term is asked for; the model cannot be loaded, or does not fit its
            tokenizer or the settings; the device does not exist; the data would be overwritten;
            or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> from lmcore.detox.recipes import tiny
        >>> from lmcore.training.config import change
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> rows = [{"output": text, "cont_generation": ["oh", "blorp"]}] * 2
        >>> sizes = {"scratch.hidden_size": 8, "scratch.heads": 1, "batch_size": 2}
        >>> config = change(tiny(), {**sizes, "loop.steps": 2})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(config, rows, folder).groups
        2
    """
    if model is not None:
        config = replace(config, model=os.fspath(model))
    paths = {"data": data_path, "valid": valid_path}
    shown = {k: None if v is None else os.path.abspath(v) for k, v in paths.items()}  # noqa: PTH100
    keep_apart(out, [path for path in (*paths.values(), config.model) if path is not None])
    config = replace(config, device=choose_precision(config.device, progress=progress))
    with (
        use_threads(config.device.threads),
        start_processes(config.device.device) as processes,
    ):
        run = ChainRun(config, rows, valid, processes)
        if progress and str(run.counts):
            print(f"lmcore: {run.counts}", file=sys.stderr)
        record = DataRecord(
            path=shown["data"],
            options={"valid": shown["valid"]},
            sizes={"rows": len(run.encoded), "valid_rows": len(run.valid)},
            fingerprint=processes.first(run.find_fingerprint),
        )
        is_fixed = run.schedule.needs_steps or config.warmup_share > 0
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
    return TrainResult(
        folder=Path(out),
        steps=result.steps,
        best_step=result.best_step,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        steps_per_epoch=run.batches.steps_per_epoch,
        groups=sum(item.has_group for item in run.encoded),
        counts=run.counts,
        history=result.history,
    )


class ChainRun:
    """One run of training: tokenizer, model, optimizer, encoded rows and anchors.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops, which
    seed dropout as they like.

    Args:
        config: the settings.
        rows: to train on.
        valid: to validate with.
        processes: those that share each batch; this one alone by default.

    Raises:
        ImportError: LoRA is asked for, and peft is not installed.
        ValueError: as for `train`.

    Example:
        >>> from lmcore.detox.recipes import tiny
        >>> from lmcore.training.config import change
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> rows = [{"output": text, "cont_generation": ["oh", "blorp"]}]
        >>> sizes = {"scratch.hidden_size": 8, "scratch.heads": 1, "batch_size": 1}
        >>> config = change(tiny(), {**sizes, "loop.steps": 2})
        >>> sorted(ChainRun(config, rows).step(1))
        ['contrastive', 'cross_entropy', 'groups', 'loss', 'tokens']
    """

    def __init__(
        self,
        config: TrainConfig,
        rows: Sequence[Mapping[str, Any]],
        valid: Sequence[Mapping[str, Any]] = (),
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.device = config, processes, processes.device
        is_sharded = config.device.sharding != "none"
        # Those with which all passes are made together.
        self._shared = processes if is_sharded else None
        count = processes.data_count
        if config.batch_size < count or (is_sharded and config.batch_size % count):
            raise ValueError(
                f"batch_size must be {'a multiple of' if is_sharded else 'at least'} the "
                f"{count} processes: got {config.batch_size}"
            )
        if not len(rows):
            raise ValueError("rows must not be empty: there is nothing to train on")
        seed_torch(config.loop.seed)
        self.tokenizer, self.model = _make(config, rows)
        self.collator = ChainCollator(
            self.tokenizer,
            self.model,
            grammar=config.grammar,
            max_chain_tokens=config.max_chain_tokens,
            max_template_tokens=config.max_template_tokens,
            max_continuation_tokens=config.contrastive.max_continuation_tokens,
            long_chains=config.long_chains,
            end_token=config.end_token,
        )
        self.encoded = self._encode("rows", rows)
        self.counts = replace(self.collator.counts)
        if not config.contrastive.weight:  # nothing is contrasted, so nothing is missing
            unused = ("without_negatives", "long_templates", "cut_continuations")
            self.counts = replace(self.counts, **dict.fromkeys(unused, 0))
        self.valid = self._encode("valid", valid) if valid else []
        self._check_rows()
        self.batches = ExampleBatches(
            self.encoded, config.batch_size, config.loop.seed, self.collator.pad
        )
        self._first_weights = hash_weights(self.model) if processes.is_first else b""
        if config.lora.rank:
            self.model = add_lora(self.model, config.lora)
        nn.Module.to(self.model, self.device)  # transformers' own `to` is untyped
        if config.device.recompute:
            recompute_layers(self.model)
        processes.shard(
            self.model, find_blocks(self.model), replace(config.device, recompute=False)
        )
        self.optimizer = Optimizer(
            self.model,
            config.optimizer,
            self.schedule,
            config.device,
            processes,
            steps=self.loop.steps,
        )
        self.anchors = AnchorWindow(config, self.collator, self.batches, processes)

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

    @property
    def schedule(self) -> Any:
        """Of the step size, with the share of the warm-up as a number of steps."""
        share, steps = self.config.warmup_share, self.loop.steps
        assert steps is not None
        if not share:
            return self.config.schedule
        # At least one step is behind it, however short the run is.
        warmup = min(math.ceil(share * steps), steps - 1)
        return replace(self.config.schedule, warmup_steps=warmup)

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of it, a micro-batch at a time.

        Args:
            step: from 1.

        Returns:
            `loss` and what it consists of, `cross_entropy` and, where the batch has groups,
            `contrastive`, each a mean over the whole batch; `groups` of the batch; `tokens`, those
            of this process that are learnt.
        """
        config, term = self.config, self.config.contrastive
        self.model.train()
        whole = [self.encoded[index] for index in self.batches.find(step, slice(config.batch_size))]
        groups = sum(item.has_group for item in whole) if term.weight else 0
        if term.weight:
            self.anchors.refresh(step, self.model, self.optimizer.autocast)
        rows = share_rows(config.batch_size, self.processes)
        own = list(zip(range(rows.start, rows.stop), whole[rows], strict=True))
        found = {"cross_entropy": self._learn_chains([item for _, item in own], whole)}
        found["loss"] = found["cross_entropy"]
        if groups:
            found["contrastive"] = self._learn_contrast(step, own, groups)
            found["loss"] = found["loss"] + term.weight * found["contrastive"]
        self.optimizer.update(step)
        tokens = sum(item.label_count for _, item in own)
        counts = {"groups": torch.tensor(groups), "tokens": torch.tensor(tokens)}
        return {**found, **counts}

    def validate(self) -> dict[str, float]:
        """Returns the cross entropy of the validation rows; empty without such rows.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        check_weights(self.model)
        if not self.valid:
            return {}
        self.model.eval()
        own = self.valid[self.processes.data_rank :: self.processes.data_count]
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        for part in divide_rows(own, self.config.micro_batch_size, self._shared):
            with torch.no_grad(), self.optimizer.autocast():
                mean = self._find_loss(part or self.valid[:1])
            total += mean.double() * sum(item.label_count for item in part)
        tokens = sum(item.label_count for item in self.valid)
        return {"loss": float(self.processes.sum(total)) / tokens}

    def save_model(self, folder: Path) -> None:
        """Writes the model, or its adapter, and its tokenizer.

        Args:
            folder: where to.
        """
        save_model(
            self.model,
            self.tokenizer,
            folder,
            save=self.config.lora.save,
            is_first=self.processes.is_first,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        return {
            "model": gather_weights(self.model, trained=True),
            "optimizer": self.optimizer.state_dict(),
            "anchors": self.anchors.state_dict(),
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
        self.anchors.load_state_dict(state["anchors"])

    def find_fingerprint(self) -> str:
        """Returns what tells the rows, their tokens and the first weights from others."""
        digest = hashlib.blake2b(self._first_weights, digest_size=16)
        for item in [*self.encoded, *self.valid]:
            for ids in (item.input_ids, item.labels, item.template, *item.continuations):
                digest.update(len(ids).to_bytes(8, "little"))
                digest.update(ids.astype("<i4").tobytes())
            digest.update(b"\n")
        return digest.hexdigest()

    def _encode(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[EncodedChain]:
        try:
            encoded = [item for item in self.collator.encode(rows) if item is not None]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if not encoded:
            raise ValueError(
                f"{name}: all of {len(rows)} chains are longer than max_chain_tokens, "
                f"{self.config.max_chain_tokens}"
            )
        return encoded

    def _check_rows(self) -> None:
        """The term that is lost in silence in the released scripts is an error here."""
        sequences = (
            ids for item in [*self.encoded, *self.valid] for ids in (item.input_ids, item.labels)
        )
        check_fit(self.model, sequences, "max_chain_tokens")
        term = self.config.contrastive
        if not term.weight:
            return
        groups = [item for item in self.encoded if item.has_group]
        if not groups:
            raise ValueError(
                "rows: none has a clean and a toxic continuation under cont_generation that the "
                "contrastive term can use; without the term contrastive.weight is 0"
            )
        longest = max(len(item.template) for item in groups) + term.anchor_tokens
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and longest > positions:
            raise ValueError(
                f"max_template_tokens must be less: a template and its anchor have {longest} "
                f"tokens, and the model has {positions} positions"
            )

    def _find_loss(self, items: Sequence[EncodedChain]) -> Tensor:
        """The mean cross entropy over the tokens of some chains."""
        batch = self.collator.pad_sources([item.input_ids for item in items])
        batch["labels"] = self.collator.pad_labels([item.labels for item in items])
        loss: Tensor = self.model(**self._put(batch), use_cache=False).loss
        return loss.float()

    def _learn_chains(self, items: Sequence[EncodedChain], whole: Sequence[EncodedChain]) -> Tensor:
        count = sum(item.label_count for item in whole)
        total = torch.zeros((), device=self.device)
        # Rows of about one length stand together; the longest come first, where memory may end.
        order = sorted(items, key=lambda item: -len(item.input_ids))
        for first in range(0, len(order), self.config.micro_batch_size):
            part = order[first : first + self.config.micro_batch_size]
            with self.optimizer.autocast():
                mean = self._find_loss(part)
            loss = mean * (sum(item.label_count for item in part) / count)
            self.optimizer.backward(loss)
            total += loss.detach()
        return self.processes.sum(total)

    def _learn_contrast(
        self, step: int, own: Sequence[tuple[int, EncodedChain]], groups: int
    ) -> Tensor:
        term = self.config.contrastive
        total = torch.zeros((), device=self.device)
        chosen = [(row, item) for row, item in own if item.has_group]
        for part in divide_rows(chosen, self.config.micro_batch_size, self._shared):
            # Where weights are sharded, all processes make as many passes; some count nothing.
            items = [item for _, item in part] or [self.anchors.spare]
            batch = self.anchors.pad(items)
            anchors = self.anchors.find([(step, row) for row, _ in part] or [None])
            with self.optimizer.autocast():
                losses = contrast(self.model, batch, anchors, term)
            loss = losses.sum() * ((1 if part else 0) / groups)
            self.optimizer.backward(term.weight * loss)
            total += loss.detach()
        return self.processes.sum(total)

    def _put(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in batch.items()}


def _make(config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """The tokenizer and the model, loaded or made of nothing."""
    if config.model is not None:
        return load_tokenizer(config.model), load_model(config.model)
    texts = (text for row in rows for text in _list_texts(row))
    tokenizer = make_tokenizer(texts, config.scratch.vocabulary)
    return tokenizer, make_model(config.scratch, tokenizer)


def _list_texts(row: Mapping[str, Any]) -> list[str]:
    values = [row.get("input"), row.get("output"), *(row.get("cont_generation") or ())]
    return [value for value in values if isinstance(value, str)]
