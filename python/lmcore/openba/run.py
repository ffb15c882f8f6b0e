"""One run of training: model, optimizer, and samples of texts and pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmcore.openba.batches import SampleBatches
from lmcore.openba.data import Data, Source, TrainData
from lmcore.openba.mixture import Mixture, MixtureDraws
from lmcore.openba.models import (
    check_fit,
    find_blocks,
    find_denoisers,
    find_ids,
    find_prefixes,
    grow_positions,
    load_model,
    make_model,
    save_model,
    tie_head,
)
from lmcore.openba.objective import measure_losses, measure_pair_losses
from lmcore.openba.pairs import PairData
from lmcore.openba.recipes import TrainConfig
from lmcore.openba.sample_run import SampleRun, mean_of, measure_rows
from lmcore.openba.samples import PAIRS, PairSamples, Samples, TextSamples
from lmcore.openba.stages import write_stage
from lmcore.openba.tokenization_openba import OpenBATokenizer
from lmcore.ops.denoising import Denoiser
from lmcore.training.checkpoint import check_weights
from lmcore.training.processes import Processes, find_device
from lmcore.training.seeding import seed_torch


class OpenBARun(SampleRun):
    """One run of training: model, optimizer, and samples.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops.

    Args:
        config: the settings.
        data: what to train on, as for `train`.
        valid: what to validate with.
        tokenizer: of the texts.
        processes: those that share each batch; this one alone by default.

    Raises:
        OSError: as for `train`.
        ValueError: as for `train`.

    Example:
        >>> import tempfile
        >>> from lmcore.openba.recipes import tiny
        >>> from lmcore.training.config import change
        >>> from lmcore.worlds.openba import write_piece_file
        >>> sizes = {"shape.hidden_size": 8, "shape.ffn_hidden_size": 8, "encoder_length": 18}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> texts = np.arange(300, 332).reshape(2, 16)
        >>> run = OpenBARun(change(tiny(), sizes), texts, tokenizer=tokenizer)
        >>> run.step(1)["loss"].shape
        torch.Size([])
    """

    config: TrainConfig

    def __init__(
        self,
        config: TrainConfig,
        data: Data | Mixture | TrainData,
        valid: Data | None = None,
        *,
        tokenizer: OpenBATokenizer,
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.tokenizer = config, processes, tokenizer
        self.data = data if isinstance(data, TrainData) else TrainData(config, data, valid)
        self.ids = find_ids(tokenizer)
        self._prefix = find_prefixes(tokenizer)[1] if config.prefixes else None
        self.denoisers = self._find_denoisers(config.validation_denoisers)
        self.lengths = self._find_lengths()
        seed, mixture = config.loop.seed, self.data.mixture
        draws = None if mixture is None else MixtureDraws(mixture, seed)
        self.samples: list[Samples] = [
            self._make_samples(source, seed if draws is None else draws.seed_source(place))
            for place, source in enumerate(self.data.sources)
        ]
        # The authors' scripts ask for one more than the longest row of a text.
        more = any(not source.are_pairs for source in self.data.sources)
        self.batches = SampleBatches(
            self.samples,
            config.batch_size,
            config.micro_batch_size,
            draws=draws,
            grouped=config.grouping,
            widths=None if config.grouping else (self.lengths[0], self.lengths[1] + more),
        )
        self._check_metric()
        seed_torch(seed)
        if config.model is None:
            self.model = make_model(config.shape, tokenizer, self.lengths, tied=config.tied)
        else:
            self.model = load_model(config.model)
            grow_positions(self.model, self.lengths)
        check_fit(self.model, tokenizer)
        if config.tied and not self.model.config.tie_word_embeddings:
            tie_head(self.model)
        self.start_model(self.model, find_blocks(self.model))

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every text and pair has come at least once."""
        shares = [1.0] if self.data.mixture is None else self.data.mixture.shares.values()
        sizes = zip(self.samples, shares, strict=True)
        return max(-int(-len(own) // (share * self.config.batch_size)) for own, share in sizes)

    def count_cut(self) -> tuple[int, int]:
        """Returns how many sources and targets of pairs are longer than there is room for."""
        cut = [own.count_cut() for own in self.samples if isinstance(own, PairSamples)]
        return sum(sources for sources, _ in cut), sum(targets for _, targets in cut)

    def describe(
        self, sums: Tensor, labels: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        """Returns what the log says of a step; of a mixture `loss_of_` and `share_of_` each source.

        Args:
            sums: `[groups]` float64: cross entropies of all labels of each group.
            labels: `[groups]`: how many these are.
            rows: `[groups]`: samples of each.
        """
        found = super().describe(sums, labels, rows)
        groups, shares = self.batches.groups, {}
        for source, own in enumerate(self.data.mixture.sources if self.data.mixture else ()):
            places = [place for place, group in enumerate(groups) if group.source == source]
            found |= mean_of(f"loss_of_{own.name}", places, sums, labels)
            shares[f"share_of_{own.name}"] = torch.tensor(rows[places].sum() / rows.sum())
        return found | shares

    def validate(self) -> dict[str, float]:
        """Returns the loss under each denoiser and their mean, or that of pairs.

        Without anything to validate with it is empty.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        check_weights(self.model)
        valid = self.data.valid
        if valid is None:
            return {}
        nn.Module.eval(self.model)
        given: Any = {
            "batch_size": self.config.validation_batch_size,
            "processes": self.processes,
            "in_step": self.in_step,
        }
        with self.optimizer.autocast():
            if isinstance(valid.items, np.ndarray):
                return measure_losses(
                    self.model, valid.items, denoisers=self.denoisers, ids=self.ids, **given
                )
            pairs = self._make_pairs(valid.items, seed=0)
            return measure_pair_losses(
                self.model, pairs, count=self.config.validation_texts, **given
            )

    def save_model(self, folder: Path) -> None:
        """Writes the model and its tokenizer, for `from_pretrained`, and its stage.

        Args:
            folder: where to.
        """
        save_model(self.model, self.tokenizer, folder, is_first=self.processes.is_first)
        if self.processes.is_first and self.config.stage is not None:
            write_stage(folder, self.config.stage)

    def find_fingerprint(self) -> str:
        """Returns what tells the data, the tokenizer and the first weights from others.

        Raises:
            IndexError: an id outside of the vocabulary.
        """
        digest = hashlib.blake2b(self.first_weights, digest_size=16)
        for token, number in sorted(self.tokenizer.get_vocab().items()):
            digest.update(f"{number} {token}\n".encode())
        digest.update(self.data.hash(self.ids.vocabulary_size))
        return digest.hexdigest()

    def _find_denoisers(self, names: tuple[str, ...]) -> tuple[Denoiser, ...]:
        return find_denoisers(self.tokenizer, names, prefixes=self.config.prefixes)

    def _make_samples(self, source: Source, seed: int) -> Samples:
        if not isinstance(source.items, np.ndarray):
            return self._make_pairs(source.items, seed)
        return TextSamples(
            source.items,
            seed=seed,
            denoisers=self._find_denoisers(self.config.denoisers),
            ids=self.ids,
            threads=self.config.device.threads,
        )

    def _make_pairs(self, pairs: PairData, seed: int) -> PairSamples:
        return PairSamples(pairs, seed=seed, widths=self.lengths, ids=self.ids, prefix=self._prefix)

    def _find_lengths(self) -> tuple[int, int]:
        """Of encoder and decoder: what the settings say, if denoised texts find room in them."""
        config = self.config
        given = config.decoder_length
        items = [*self.data.sources, *([self.data.valid] if self.data.valid else [])]
        if all(source.are_pairs for source in items):
            if given is None:
                raise ValueError("decoder_length must be given where data are pairs: got none")
            return config.encoder_length, given
        names = dict.fromkeys((*config.denoisers, *config.validation_denoisers))
        length = config.text_length
        needed = measure_rows(length, self._find_denoisers(tuple(names)), self.ids)
        found = (config.encoder_length, needed[1] if given is None else given)
        for name, room, ids in zip(("encoder", "decoder"), found, needed, strict=True):
            if room < ids:
                raise ValueError(
                    f"{name}_length must be at least {ids} for texts of {length} tokens: got {room}"
                )
        return found

    def _check_metric(self) -> None:
        """Refuses a metric that validation will not have before a step is done."""
        valid, metric = self.data.valid, self.config.loop.metric
        if valid is None:
            return
        kinds = [PAIRS] if valid.are_pairs else [one.name for one in self.denoisers]
        known = ["loss", *(f"loss_{kind}" for kind in kinds)]
        if metric not in known:
            raise ValueError(f"loop.metric must be {' or '.join(known)}: got {metric!r}")
