"""Anchors of a run: sampled for the steps of a window at once, by the model at its beginning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lmcore.detox.anchors import Anchors, sample_anchors
from lmcore.detox.chain_collator import ChainCollator, EncodedChain
from lmcore.detox.recipes import TrainConfig
from lmcore.detox.token_sampling import draw_noise
from lmcore.ops.philox import Stream
from lmcore.training.batches import ExampleBatches, divide_rows, share_rows
from lmcore.training.processes import Processes


class AnchorWindow:
    """What the model goes on with, for each row of the batches of some steps.

    A window begins every `contrastive.refresh_every_steps` steps. Its anchors are functions of
    (seed, step, row) and of the weights at its beginning; a state holds them, so that a run goes
    on within a window.

    Args:
        config: of the run.
        collator: of its chains.
        batches: of `EncodedChain`.
        processes: those that share each batch.

    Example:
        >>> from lmcore.detox.recipes import tiny
        >>> from lmcore.detox.training import ChainRun
        >>> from lmcore.training.config import change
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> rows = [{"output": text, "cont_generation": ["oh", "blorp"]}]
        >>> sizes = {"scratch.hidden_size": 8, "scratch.heads": 1, "batch_size": 1}
        >>> run = ChainRun(change(tiny(), {**sizes, "loop.steps": 2}), rows)
        >>> run.anchors.refresh(1, run.model, run.optimizer.autocast)
        >>> sorted(run.anchors.known)  # steps and rows
        [(1, 0), (2, 0), (3, 0), (4, 0)]
    """

    def __init__(
        self,
        config: TrainConfig,
        collator: ChainCollator,
        batches: ExampleBatches,
        processes: Processes,
    ) -> None:
        self.config, self.collator = config, collator
        self.batches, self.processes = batches, processes
        self.begin = 0
        """The first step of the window; 0 before there is one."""
        self.known: dict[tuple[int, int], tuple[list[int], int]] = {}
        """By step and row of its batch: ids, padded, and how many of them are tokens."""

    @property
    def spare(self) -> EncodedChain:
        """A chain with a group, for passes that count nothing."""
        found: EncodedChain = next(item for item in self.batches.examples if item.has_group)
        return found

    def refresh(
        self, step: int, model: Any, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """Samples the anchors of a window, if the step is in another one than before.

        Args:
            step: from 1.
            model: as it is before this step.
            autocast: gives the context of its passes.
        """
        config, term = self.config, self.config.contrastive
        begin = (step - 1) // term.refresh_every_steps * term.refresh_every_steps + 1
        if self.begin == begin:
            return
        self.begin, self.known = begin, {}
        rows = share_rows(config.batch_size, self.processes)
        examples = self.batches.examples
        wanted = [
            (one, row, examples[index])
            for one in range(begin, begin + term.refresh_every_steps)
            for row, index in enumerate(self.batches.find(one, rows), rows.start)
            if examples[index].has_group
        ]
        # Templates of about one length stand together.
        wanted.sort(key=lambda place: -len(place[2].template))
        is_sharded = config.device.sharding != "none"
        tokenizer = self.collator.tokenizer
        ends = {"pad": tokenizer.pad_token_id, "end": tokenizer.eos_token_id}
        shared = self.processes if is_sharded else None
        for part in divide_rows(wanted, config.anchor_batch_size, shared):
            batch = self.pad([item for *_, item in part] or [self.spare])
            numbers = [one << 20 | row for one, row, _ in part] or [0]
            noise = draw_noise(config.loop.seed, Stream.CHAIN_ANCHORS, numbers, term.anchor_tokens)
            with autocast():
                found = sample_anchors(model, batch, noise, term, in_step=is_sharded, **ends)
            lengths = found.mask.sum(1).tolist()
            for (one, row, _), ids, length in zip(part, found.ids.tolist(), lengths, strict=False):
                self.known[one, row] = ids, length

    def find(self, places: Sequence[tuple[int, int] | None]) -> Anchors:
        """Returns the anchors of some places, as tensors.

        Args:
            places: steps and rows of their batches; None for one that does not count.
        """
        width = self.config.contrastive.max_continuation_tokens
        pad = self.collator.tokenizer.pad_token_id
        known = [([pad] * width, 1) if place is None else self.known[place] for place in places]
        mask = [[1] * length + [0] * (width - length) for _, length in known]
        device = self.processes.device
        ids = [row for row, _ in known]
        return Anchors(torch.tensor(ids, device=device), torch.tensor(mask, device=device))

    def pad(self, items: Sequence[EncodedChain]) -> dict[str, Tensor]:
        """Returns what the contrastive term needs of some chains, on the device.

        Args:
            items: encoded chains.
        """
        batch = self.collator.pad_groups(items)
        if self.collator.is_encoder_decoder:
            batch |= self.collator.pad_sources([item.input_ids for item in items])
        return {name: value.to(self.processes.device) for name, value in batch.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns the anchors of all processes; every process calls it."""
        together: dict[tuple[int, int], tuple[list[int], int]] = {}
        for other in self.processes.gather(self.known):
            together.update(other)
        rows = [[*place, *ids, length] for place, (ids, length) in sorted(together.items())]
        return {"begin": self.begin, "rows": torch.tensor(rows, dtype=torch.int64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings, at any number of processes.

        Raises:
            ValueError: an anchor has another length than those of this run.
        """
        width = self.config.contrastive.max_continuation_tokens
        rows = state["rows"].tolist()
        if any(len(row) != width + 3 or not 0 < row[-1] <= width for row in rows):
            raise ValueError(f"anchors must have {width} ids")
        self.begin = int(state["begin"])
        self.known = {(row[0], row[1]): (row[2:-1], row[-1]) for row in rows}
