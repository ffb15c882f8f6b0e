"""The exact ranks of every user's targets: over the full catalogue, or among drawn candidates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from lmcore._json import read_json
from lmcore._manifest import find_model
from lmcore.ops.negatives import SequenceSampler
from lmcore.ops.ranking import rank_targets
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.baselines import BASELINES, Baseline, make_baseline
from lmcore.recsys.data import History, Split
from lmcore.recsys.lists import ListMeter, find_best
from lmcore.recsys.metrics import choose_metrics, measure_ranks, spread_ties
from lmcore.recsys.modeling_fmlp import FMLPModel
from lmcore.recsys.modeling_gru4rec import GRU4RecModel
from lmcore.recsys.modeling_ligr import LiGRModel
from lmcore.recsys.modeling_sasrec import SASRecModel, load_sasrec
from lmcore.recsys.scoring import iterate_scores
from lmcore.recsys.stretches import take_stretches, to_offsets
from lmcore.training.checkpoint import no_bars
from lmcore.training.processes import find_device

PROTOCOLS = ("full", "sampled")

_MODELS: dict[str, type[SequenceModel]] = {
    "sasrec": SASRecModel,
    "gru4rec": GRU4RecModel,
    "fmlp": FMLPModel,
    "ligr": LiGRModel,
}

# transformers makes a text for each of them, whether or not a model has any.
_MOST_LABELS = 10_000
# Scores of a block take about this many bytes: on a CPU, more would leave the cache.
_BLOCK_BYTES = {"cpu": 1 << 22, "other": 1 << 26}
# Users of a block, at least and at most.
_USERS = (64, 1024)


@dataclass(kw_only=True, slots=True, frozen=True)
class Evaluation:
    """How well targets were ranked."""

    protocol: str
    """`full` or `sampled`."""
    split: str
    """`valid` or `test`."""
    users: int
    """Users with a target."""
    ties: int
    """Users with a target that had exactly the score of another candidate."""
    metrics: dict[str, float]
    """HR@1, HR@5, HR@10, NDCG@5, NDCG@10 and MRR, or those asked for: means over the users."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, metrics as a dict of their own."""
        return {
            "protocol": self.protocol,
            "split": self.split,
            "users": self.users,
            "ties": self.ties,
            "metrics": dict(self.metrics),
        }


@torch.no_grad()
def evaluate(
    model: SequenceModel | Baseline,
    data: Split,
    *,
    split: str = "test",
    protocol: str = "full",
    metrics: Sequence[str] | None = None,
    ties: str = "average",
    candidates: int = 100,
    seed: int = 0,
    threads: int | None = None,
    block: int | None = None,
) -> Evaluation:
    """Returns the metrics of a model, or of a baseline, on the users' held-out items.

    `full` ranks a target among all items that are not in the user's history; of several targets
    each is a candidate for the others. `sampled` ranks it among the target and drawn items that
    are not in the user's training part, as the paper does: with replacement, so that an item may
    come twice and may be the target itself, which counts as a tie. Unlike the paper's, the draws
    depend on the seed alone, and all users are ranked.

    Metrics of lists look at what `recommend` would give for the same inputs: the best items that
    are not in the history, equal scores in the order of the items.

    Source: SASRec's and UFNRec's evaluation; `sampled` is spec section 2.2.

    Args:
        model: a backbone, whose mode is restored afterwards, or a baseline.
        data: the split; test inputs end with the validation items.
        split: `valid` or `test`.
        protocol: `full` or `sampled`.
        metrics: names as for `parse_metric`; None: HR@1, HR@5, HR@10, NDCG@5, NDCG@10 and MRR.
        ties: how equal scores count: half of them before the target, none or all.
        candidates: drawn for each user in the sampled protocol.
        seed: of these draws.
        threads: of the ranking; None: all.
        block: users scored at a time; by default 64 to 1,024, by the size of the catalogue.

    Raises:
        ValueError: an unknown split, protocol, metric or rule for ties, a K above the catalogue,
            a metric of lists in the sampled protocol, no user with a target, a model of another
            catalogue, a score that is not a number, or a user for whom no candidate is left to
            draw, or several targets of a user in the sampled protocol.

    Example:
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> data = leave_one_out(make_interactions([0, 3, 6], [1, 2, 3, 3, 2, 1]))
        >>> model = SASRecModel(SASRecConfig(item_count=3, max_length=4, hidden_size=8))
        >>> evaluate(model, data).users
        2
        >>> evaluate(model, data, metrics=["Recall@1", "Coverage@1"]).metrics["Recall@1"]
        1.0
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}: got {protocol!r}")
    wanted = choose_metrics(metrics, data.item_count, protocol=protocol)
    check_catalogue(model, data.item_count)
    length = model.config.max_length if isinstance(model, SequenceModel) else 1
    rows = data.sequences(split, length)
    if not len(rows.users):
        needs = f": that takes {data.rule.least} interactions" if data.rule.by != "time" else ""
        kind = "validation" if split == "valid" else split
        raise ValueError(f"no user has a {kind} item{needs}")
    history, offsets = data.history(split), rows.target_offsets
    drawn = None
    if protocol == "sampled":
        if len(rows.targets) > len(rows.users):
            raise ValueError(
                "protocol sampled ranks one target of each user, and here a user has several: "
                "use full"
            )
        check_histories(data)
        sampler = SequenceSampler(data.train_offsets, data.train_items, data.item_count, seed=seed)
        drawn = sampler.candidates(rows.users, candidates, seed=seed)
    width = data.item_count if drawn is None else 1 + candidates
    device = model.device.type if isinstance(model, SequenceModel) else "cpu"
    room = _BLOCK_BYTES.get(device, _BLOCK_BYTES["other"])
    size = block or max(_USERS[0], min(_USERS[1], room // (4 * width)))
    rule: dict[str, Any] = {"ties": ties, "threads": threads}
    meter = ListMeter(wanted, data)
    found: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    for part in iterate_scores(model, rows.sequences, history, size):
        users = part.users
        bounds = offsets[users.start : users.stop + 1]
        columns, bounds = rows.targets[bounds[0] : bounds[-1]] - 1, bounds - bounds[0]
        if drawn is not None:
            items = torch.from_numpy(np.concatenate([columns[:, None] + 1, drawn[users]], 1))
            scores, columns = part.items(items), np.zeros(len(columns), dtype=np.int64)
            found.append(rank_targets(scores, columns, **rule))
            continue
        scores = part.catalogue()
        known = _take(history, users)
        found.append(_rank(scores, columns, bounds, known, rule))
        if meter.count:
            meter.add(find_best(scores, *known, meter.count))
    ranks, tied = (np.concatenate(values) for values in zip(*found, strict=True))
    if len(ranks) > len(rows.users):
        ranks = spread_ties(ranks, tied, offsets, rule=ties)
    values = measure_ranks([m for m in wanted if not m.is_of_lists], ranks, offsets)
    values |= meter.result()
    return Evaluation(
        protocol=protocol,
        split=split,
        users=len(rows.users),
        ties=int(np.count_nonzero(np.add.reduceat(tied, offsets[:-1]))),
        metrics={metric.name: values[metric.name] for metric in wanted},
    )


def evaluate_baselines(data: Split, **options: Any) -> dict[str, Evaluation]:
    """Returns what the baselines reach on the same targets, by their names.

    Args:
        data: the split; its training part is what they know.
        options: those of `evaluate`.

    Raises:
        ValueError: as for `evaluate`.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 3, 6], [1, 2, 3, 3, 2, 1]))
        >>> list(evaluate_baselines(data, metrics=["HR@1"]))
        ['popularity', 'item-knn']
    """
    return {name: evaluate(make_baseline(name, data), data, **options) for name in BASELINES}


def load_model(
    path: str | os.PathLike[str], *, num_attention_heads: int = 1, device: str = "auto"
) -> SequenceModel:
    """Returns a trained backbone, ready for evaluation.

    Args:
        path: the folder of a run, whose best model it is, or of `save_pretrained`, or a file of
            SASRec weights in the names of pmixer's code (`.pth`, `.pt`, `.safetensors`).
        num_attention_heads: heads of the weights in such a file, which do not tell it.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no model of this package, or the device does not exist.

    Example:
        >>> import tempfile
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SASRecModel(SASRecConfig(item_count=3)).save_pretrained(folder)
        ...     load_model(folder).config.item_count
        3
    """
    source = find_model(path)
    found = find_device(device)
    if source.is_file():
        return _prepare(load_sasrec(source, num_attention_heads=num_attention_heads), found)
    file = source / "config.json"
    if not file.is_file():
        if (source / "recipe.json").is_file():
            raise ValueError(
                f"{source}: a run without a model yet: the first comes with its first validation"
            )
        raise ValueError(f"{source}: no such file, or a folder without config.json")
    content = _read_config(file)
    kind = content.get("model_type")
    made = _MODELS.get(kind) if isinstance(kind, str) else None
    if made is None:
        known = ", ".join(_MODELS)
        raise ValueError(f"{file}: model_type must be one of {known}: {kind!r:.100}")
    with _refusing(file):
        config = cast(Any, made).config_class.from_pretrained(source)
    if not isinstance(config.dtype, torch.dtype | None):
        raise ValueError(f"{file}: not the configuration of a model: dtype is {config.dtype!r}")
    return _prepare(_read_weights(made, config, source), found)


def check_catalogue(model: SequenceModel | Baseline, item_count: int) -> None:
    """Checks that a model scores a catalogue of this size.

    Args:
        model: a backbone or a baseline.
        item_count: items of the data.

    Raises:
        ValueError: it has another number of items.

    Example:
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> check_catalogue(SASRecModel(SASRecConfig(item_count=3)), 3)
    """
    scored = model.config.item_count if isinstance(model, SequenceModel) else model.item_count
    if scored != item_count:
        raise ValueError(
            f"the model has {scored} items and the data {item_count}: "
            "it was trained on other data or other ids"
        )


def check_histories(data: Split) -> None:
    """Checks that an item is left to draw for every user.

    Args:
        data: the split; its training part is looked at.

    Raises:
        ValueError: a user has all items; it is named by the id that the data has.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> check_histories(leave_one_out(make_interactions([0, 2], [1, 2], 3)))
    """
    bounds = data.train_offsets
    for row in np.flatnonzero(np.diff(bounds) >= data.item_count):
        if len(np.unique(data.train_items[bounds[row] : bounds[row + 1]])) == data.item_count:
            raise ValueError(
                f"user {data.interactions.user_ids[row]} has all {data.item_count} items: "
                "there are no negatives to draw"
            )


def _take(history: History, users: slice) -> History:
    """A block of a history, as a history of its own."""
    bounds = history.offsets[users.start : users.stop + 1]
    return History(bounds - bounds[0], history.columns[bounds[0] : bounds[-1]])


def _rank(
    scores: torch.Tensor,
    columns: NDArray[np.int64],
    offsets: NDArray[np.int64],
    known: History,
    rule: dict[str, Any],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ranks and ties of targets `[T]` of a block of users, in the catalogue less what is known."""
    users, width = scores.shape
    if len(columns) == users:
        return rank_targets(scores, columns, *known, **rule)
    # A user's targets are candidates for one another, also those that she had before.
    owners = np.repeat(np.arange(users), np.diff(offsets))
    having = np.repeat(np.arange(users), np.diff(known.offsets))
    out = np.isin(having * width + known.columns, owners * width + columns, invert=True)
    starts = to_offsets(np.bincount(having[out], minlength=users))
    excluded = known.columns[out]
    found = []
    for first in range(0, len(columns), users):  # as many rows at a time as are there already
        some = owners[first : first + users]
        bounds, out_of_each = take_stretches(excluded, starts[some], starts[some + 1])
        rows = scores[torch.from_numpy(some).to(scores.device)]
        found.append(
            rank_targets(rows, columns[first : first + users], bounds, out_of_each, **rule)
        )
    ranks, ties = (np.concatenate(values) for values in zip(*found, strict=True))
    return ranks, ties


def _read_config(file: Path) -> dict[str, Any]:
    """The configuration as it stands in its file, where it says one thing."""
    content = read_json(file, "the configuration of a model")
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not the configuration of a model: {type(content).__name__}")
    labels = content.get("num_labels")
    if isinstance(labels, int | float) and labels > _MOST_LABELS:  # each gets a name
        raise ValueError(f"{file}: not the configuration of a model: num_labels is {labels:.0f}")
    return content


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Yields while transformers reads a configuration: it looks into many keys without a check."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        reason = reason.removeprefix("TypeError: ").removeprefix("ValueError: ")
        raise ValueError(f"{file}: not the configuration of a model: {reason}") from error


def _read_weights(made: type[SequenceModel], config: Any, source: Path) -> SequenceModel:
    """The model of a folder; ValueError unless its weights are those of the configuration."""
    file = source / "model.safetensors"
    _check_shapes(made, config, file)
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # no table of what does not fit
    try:
        with no_bars():
            loader: Any = made
            model, report = loader.from_pretrained(
                source, config=config, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except SafetensorError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{file}: not the weights of a model: {reason}") from None
    finally:
        logging.set_verbosity(shown)
    wrong = [*report["missing_keys"], *(names[0] for names in report["mismatched_keys"])]
    if wrong:
        raise ValueError(f"{file}: {min(wrong)} is missing, or has another shape than config.json")
    return cast(SequenceModel, model)


def _check_shapes(made: type[SequenceModel], config: Any, file: Path) -> None:
    """Refuses weights that are not the configuration's, before memory is asked for either."""
    if not file.is_file():
        return
    with _refusing(file.with_name("config.json")), torch.device("meta"):
        loader: Any = made
        expected = {name: list(w.shape) for name, w in loader(config).state_dict().items()}
    try:
        with safe_open(file, "pt") as weights:
            names = set(weights.keys())
            found = {name: weights.get_slice(name).get_shape() for name in names & set(expected)}
    except SafetensorError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{file}: not the weights of a model: {reason}") from None
    wrong = [name for name, shape in expected.items() if found.get(name) != shape]
    if wrong:
        raise ValueError(f"{file}: {min(wrong)} is missing, or has another shape than config.json")


def _prepare(model: SequenceModel, device: torch.device) -> SequenceModel:
    torch.nn.Module.to(model, device)  # transformers' own `to` is untyped
    model.train(False)
    return model
