"""The command `lmcore recsys evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import count_noun
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    SkipBadRows,
    Threads,
    limit_threads,
    plain_text,
    whole,
)
from lmcore.cli.recsys.data_options import (
    Data,
    Format,
    ItemColumn,
    TimeColumn,
    UserColumn,
    make_form,
)
from lmcore.cli.recsys.model_options import Heads, Model, load_model_run
from lmcore.cli.recsys.split_options import (
    ColdItems,
    Last,
    SplitBy,
    TestFrom,
    TestQuantile,
    ValidFrom,
    ValidQuantile,
    make_rule,
    say_split,
)
from lmcore.cli.terminal import show, show_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import Split
    from lmcore.recsys.evaluation import Evaluation
    from lmcore.recsys.folder import TrainedRun
    from lmcore.recsys.rules import SplitRule


def evaluate_command(
    model: Model,
    data: Data,
    protocol: Annotated[
        str,
        typer.Option(metavar="full|sampled", help="Rank among all items, or among 100 drawn ones."),
    ] = "full",
    split: Annotated[
        str, typer.Option(metavar="valid|test", help="Which of each user's last items.")
    ] = "test",
    ties: Annotated[
        str,
        typer.Option(
            metavar="average|optimistic|pessimistic", help="How items of equal scores count."
        ),
    ] = "average",
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of the 100 drawn items; 0 by default.")
    ] = None,
    heads: Heads = None,
    device: Device = None,
    threads: Threads = None,
    data_format: Format = "auto",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    skip_bad_rows: SkipBadRows = False,
    split_by: SplitBy = None,
    last: Last = None,
    valid_from: ValidFrom = None,
    test_from: TestFrom = None,
    valid_quantile: ValidQuantile = None,
    test_quantile: TestQuantile = None,
    cold_items: ColdItems = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            parser=plain_text,
            help="HR, Recall, Precision, NDCG, MAP, MRR, Coverage, Popularity or Novelty with a K, "
            "such as NDCG@20, or MRR, any number of times, in place of the usual six.",
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines/--no-baselines", help="Measure what a model must beat, too."),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Rank each user's held-out items: HR, NDCG and MRR, or other metrics.

    Beside the model stand popularity and item-kNN, which know the training part alone. Item ids
    are read by DIR's id_map.json; without one, as with weights of others, they are the rows of
    the model's table. A run's data are filtered and split as for its training; options of the
    split are for weights of others.
    """
    times = (valid_from, test_from, valid_quantile, test_quantile)
    rule = make_rule(split_by, last, *times, cold_items)
    form = make_form(data_format, user_column, item_column, time_column, skip_bad_rows)
    asked = _measures(split, protocol, ties, seed, metric, threads)
    run = load_model_run(model, data, form, heads, device, quiet=as_json)
    held_out = _split_run(run, rule, quiet=as_json)
    _print_evaluation(_evaluate(run.model, held_out, asked, baselines), as_json)


def _measures(
    split: str,
    protocol: str,
    ties: str,
    seed: int | None,
    metric: list[str] | None,
    threads: int | None,
) -> dict[str, Any]:
    """How the held-out items are ranked and what is made of it."""
    if seed is not None and protocol == "full":
        raise ValueError("seed (--seed) is of drawn items: --protocol full draws none")
    return {
        "split": split,
        "protocol": protocol,
        "ties": ties,
        "seed": seed or 0,
        "metrics": metric,
        "threads": limit_threads(threads),
    }


def _split_run(run: TrainedRun, rule: SplitRule | None, *, quiet: bool) -> Split:
    """The interactions as the training split them; another split would test what it has seen."""
    from lmcore.recsys.splits import split_interactions

    other = (
        f"the run was trained on another split, {run.rule.describe()}: without options of the "
        "split, that one is taken"
    )
    # By the kind of split first: one that cannot be made of these data is another one, too.
    if run.has_recipe and rule is not None and rule.by != run.rule.by:
        raise ValueError(other)
    split = split_interactions(run.interactions, rule or run.rule)
    if run.has_recipe and split.rule != run.rule:
        raise ValueError(other)
    if not quiet:
        say_split(split)
    return split


def _evaluate(
    model: SequenceModel, data: Split, asked: dict[str, Any], baselines: bool
) -> dict[str, Evaluation]:
    """The model's result, and those of what it must beat."""
    with starting():
        from lmcore.recsys.evaluation import evaluate, evaluate_baselines

    found = {"model": evaluate(model, data, **asked)}
    return found | evaluate_baselines(data, **asked) if baselines else found


def _print_evaluation(found: Mapping[str, Evaluation], as_json: bool) -> None:
    """A table or an object; of a model alone as it was before there were baselines."""
    from lmcore._tables import format_table

    result, *_ = found.values()
    if as_json:
        others = {
            name: {"ties": other.ties, "metrics": other.metrics}
            for name, other in found.items()
            if other is not result
        }
        show_json(result.to_dict() | ({"baselines": others} if others else {}))
        return
    users = count_noun(result.users, "user")
    show(f"{result.split}, {result.protocol}: {users}, {result.ties:,} with ties")
    rows = [
        (name, *(f"{column.metrics[name]:.4f}" for column in found.values()))
        for name in result.metrics
    ]
    head = ("", *found) if len(found) > 1 else None
    show("\n".join(format_table(rows, head, gap=2 if head else 1)))
