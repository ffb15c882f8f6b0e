"""Full-catalogue ranking against the authors' loop, and against sorting and counting.

The authors rank among 101 candidates, one user at a time; ours ranks the same users among all
12,101 items with the same model, in batches and without computing on padding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import authors_ranking
from authors_ranking import Dataset, SASRec
from lmcore.ops.philox import random_below, random_uniform
from lmcore.ops.ranking import Ranks, rank_targets, ranking_metrics
from timing import compare, is_full, print_conditions, save

# Beauty 5-core.
USERS, ITEMS = 22_363, 12_101
LENGTH = 50
BLOCK = 256


def make_dataset(users: int) -> Dataset:
    """Returns histories with the lengths of Beauty: 5 and more, 8.9 in the mean."""
    lengths = 5 + (-3.4 * np.log1p(-random_uniform(1, 0, range(users), 1)[:, 0])).astype(np.int64)
    train, valid, test = {}, {}, {}
    for user in range(1, users + 1):
        items = 1 + random_below(1, 1, user, int(lengths[user - 1]), ITEMS).astype(np.int64)
        *train[user], valid[user], test[user] = [[i] for i in items.tolist()]
        train[user] = [item for (item,) in train[user]]
    return train, valid, test, users, ITEMS


class Evaluation:
    """A batched evaluation: users in the order of their lengths, arrays made once."""

    def __init__(self, dataset: Dataset) -> None:
        train, valid, test, users, _ = dataset
        histories = [[*train[user], *valid[user]] for user in range(1, users + 1)]
        lengths = np.array([min(len(history), LENGTH) for history in histories])
        self.order = lengths.argsort(kind="stable")
        histories = [histories[user] for user in self.order]
        self.lengths = torch.from_numpy(lengths[self.order])
        self.sequences = torch.zeros(users, LENGTH, dtype=torch.int64)
        for row, history in zip(self.sequences, histories, strict=True):
            row[-len(history[-LENGTH:]) :] = torch.tensor(history[-LENGTH:])
        self.targets = np.array([test[user + 1][0] for user in self.order]) - 1
        self.offsets = np.cumsum([0, *map(len, histories)])
        self.excluded = np.concatenate(histories) - 1

    def rank_all(self, model: SASRec, threads: int) -> NDArray[np.float64]:
        """Returns ranks in the whole catalogue without the history."""
        torch.set_num_threads(threads)
        table = model.item_emb.weight[1:].T
        ranks = np.empty(len(self.targets))
        for start in range(0, len(self.targets), BLOCK):
            rows = slice(start, start + BLOCK)
            scores = last_features(model, self.sequences[rows], self.lengths[rows]) @ table
            bounds = self.offsets[start : start + BLOCK + 1]
            part = self.excluded[bounds[0] : bounds[-1]]
            found = rank_targets(
                scores, self.targets[rows], bounds - bounds[0], part, threads=threads
            )
            ranks[self.order[rows]] = found.ranks
        return ranks

    def rank_drawn(self, model: SASRec, drawn: torch.Tensor, threads: int) -> NDArray[np.float64]:
        """Returns ranks among given candidates, of which the first is the target."""
        torch.set_num_threads(threads)
        ranks = np.empty(len(self.targets))
        for start in range(0, len(self.targets), BLOCK):
            rows = slice(start, start + BLOCK)
            features = last_features(model, self.sequences[rows], self.lengths[rows])
            candidates = model.item_emb(drawn[torch.from_numpy(self.order[rows])])
            scores = (candidates @ features[:, :, None])[:, :, 0]
            found = rank_targets(scores, np.zeros(len(scores), np.int64), threads=threads)
            ranks[self.order[rows]] = found.ranks
        return ranks


def last_features(model: SASRec, sequences: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Returns the features `[B, H]` of the last position, without computing on padding.

    Padding positions are zero vectors in every block, so their keys are all alike and their
    values too: one zero vector in front stands for n of them if log n joins its logits. The
    last block asks for the last position alone.
    """
    length, hidden = model.pos_emb.weight.shape
    kept_length = int(lengths.max())
    sequences = sequences[:, -kept_length:]
    kept = torch.nn.functional.pad(sequences != 0, (1, 0))
    x = model.item_emb(sequences) * math.sqrt(hidden) + model.pos_emb.weight[-kept_length:]
    x = torch.nn.functional.pad(x, (0, 0, 1, 0)) * kept[:, :, None]
    # Not minus infinity: a row of nothing else would give what is no number.
    weights = torch.where(kept, 0.0, -1e9)
    padding = (length - lengths).float()
    weights[:, 0] = torch.where(padding > 0, padding.log(), -1e9)
    causal = torch.full((kept_length + 1, kept_length + 1), -1e9).triu(1)
    mask = weights[:, None, :] + causal
    for block, attention in enumerate(model.attentions):
        is_last = block == len(model.attentions) - 1
        query = model.query_norms[block](x[:, -1:] if is_last else x)
        own, other = attention.in_proj_weight.split([hidden, 2 * hidden])
        own_bias, other_bias = attention.in_proj_bias.split([hidden, 2 * hidden])
        key, value = torch.nn.functional.linear(x, other, other_bias).chunk(2, dim=-1)
        found = torch.nn.functional.scaled_dot_product_attention(
            torch.nn.functional.linear(query, own, own_bias),
            key,
            value,
            attn_mask=mask[:, -1:] if is_last else mask,
        )
        x = model.norms[block](query + attention.out_proj(found))
        first, second = model.first[block], model.second[block]
        inner = torch.nn.functional.linear(x, first.weight[:, :, 0], first.bias).relu()
        x = x + torch.nn.functional.linear(inner, second.weight[:, :, 0], second.bias)
        x = x if is_last else x * kept[:, :, None]
    return model.last_norm(x[:, -1])


def compare_evaluations(users: int, rounds: int) -> list[Any]:
    """Times the authors' loop against batches, on the same users with the same model."""
    torch.set_num_threads(1)
    dataset = make_dataset(users)
    evaluation = Evaluation(dataset)
    torch.manual_seed(1)
    model = SASRec(ITEMS, LENGTH).eval()

    def authors() -> Any:
        torch.set_num_threads(1)
        return authors_ranking.evaluate(model, dataset, LENGTH)

    few = 1_000
    part = (*dataset[:3], few, ITEMS)
    metrics, ranks, candidates = authors_ranking.evaluate(model, part, LENGTH)
    drawn = torch.tensor(candidates)
    first = Evaluation(part)
    features = last_features(model, first.sequences, first.lengths)
    assert torch.allclose(features, model(first.sequences)[:, -1], atol=1e-5)
    batched = first.rank_drawn(model, drawn, 1)
    # A batch may round scores otherwise than a single row, and their sort orders ties by chance.
    assert np.mean(np.abs(batched - ranks) < 1) > 0.99
    mine = ranking_metrics(batched)
    assert all(abs(mine[name] - value) < 5e-3 for name, value in metrics.items())
    copies = drawn.repeat(-(-users // few), 1)[:users]

    count = f"{users:,} users" if users <= 10_000 else "10,000 users, as theirs takes at most"
    return compare(
        "ranking",
        f"evaluation of {users:,} users x {ITEMS:,} items with SASRec",
        (f"authors' loop: {count}, 101 candidates", authors),
        ("all items, 1 thread", lambda: evaluation.rank_all(model, 1), ""),
        ("all items, 2 threads", lambda: evaluation.rank_all(model, 2), "10"),
        ("101 candidates, 1 thread", lambda: evaluation.rank_drawn(model, copies, 1), ""),
        rounds=rounds,
        repeats=1,
    )


def compare_counts(users: int = 1_000) -> list[Any]:
    """Times ranking alone, on scores that are there."""
    source = np.random.default_rng(1)
    scores = source.standard_normal((users, ITEMS), dtype=np.float32)
    evaluation = Evaluation(make_dataset(users))
    targets, offsets, excluded = evaluation.targets, evaluation.offsets, evaluation.excluded
    rows = np.repeat(np.arange(users), np.diff(offsets))
    kept = excluded != targets[rows]
    rows, columns = rows[kept], excluded[kept]
    each = np.arange(users)

    def masked() -> NDArray[np.float32]:
        copy = scores.copy()
        copy[rows, columns] = -np.inf
        return copy

    def by_torch() -> NDArray[np.int64]:
        tensor = torch.from_numpy(masked())
        order = tensor.argsort(dim=1, descending=True).argsort(dim=1)
        return order[torch.from_numpy(each), torch.from_numpy(targets)].numpy()

    def by_numpy() -> NDArray[np.float64]:
        own = scores[each, targets][:, None]
        copy = masked()
        return (copy > own).sum(1) + ((copy == own).sum(1) - 1) / 2

    def by_numba() -> NDArray[np.float64]:
        return count_by_numba(scores, targets, offsets, excluded)

    def ours(threads: int) -> Ranks:
        return rank_targets(scores, targets, offsets, excluded, threads=threads)

    count_by_numba = compile_count()
    expected, ties = ours(1)
    for ranks in (by_numpy(), by_numba(), ours(2).ranks):
        assert np.array_equal(ranks, expected)
    untied = ties == 0
    assert untied.mean() > 0.9
    assert np.array_equal(by_torch()[untied], expected[untied])

    result = []
    for name, opponent in (
        ("torch argsort of argsort", by_torch),
        ("numpy counts, masked copy", by_numpy),
        ("numba, two counts a row", by_numba),
    ):
        result += compare(
            "ranking",
            f"ranks of {users:,} rows of {ITEMS:,} scores",
            (name, opponent),
            ("1 thread", lambda: ours(1), ""),
            ("2 threads", lambda: ours(2), ""),
        )
    return result


def compile_count() -> Any:
    """Returns counting in a compiled loop, which expects columns that are excluded once."""
    import numba

    @numba.njit
    def count(scores: Any, targets: Any, offsets: Any, excluded: Any) -> Any:
        ranks = np.empty(len(scores))
        for user in range(len(scores)):
            row, target = scores[user], targets[user]
            own, greater, equal = row[target], 0, -1
            for column in range(len(row)):
                greater += row[column] > own
                equal += row[column] == own
            history = np.unique(excluded[offsets[user] : offsets[user + 1]])
            for column in history:
                if column != target:
                    greater -= row[column] > own
                    equal -= row[column] == own
            ranks[user] = greater + equal / 2
        return ranks

    return count


def main() -> None:
    """Runs all cases."""
    print_conditions()
    with torch.no_grad():
        rows = compare_counts()
        rows += compare_evaluations(1_000, rounds=5)
        if is_full():
            rows += compare_evaluations(USERS, rounds=3)
    save("ranking", rows)


if __name__ == "__main__":
    main()
