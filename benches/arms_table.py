"""The tables of `arms_recsys.py`: means over the seeds, and what differs within a seed."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]

#: HR@10 and NDCG@10 over the full catalogue, leave-one-out, in percent: what others published.
PUBLISHED: dict[str, list[tuple[str, float, float]]] = {
    "beauty": [
        ("SASRec, as reported", 6.05, 3.18),
        ("DuoRec, as reported", 8.45, 4.43),
        ("HSTU, eSASRec's run", 7.88, 4.39),
        ("SASRec, softmax of 256 negatives, eSASRec's run", 9.21, 5.31),
        ("eSASRec", 9.28, 5.23),
    ],
    "sports": [("eSASRec", 5.60, 3.23)],
}


def format_tables(lines: Sequence[Line], name: str = "") -> str:
    """All tables of which there are lines, with titles.

    Args:
        lines: as they stand in the file of results.
        name: of the data; published figures of it stand beside.
    """
    tables = {
        "Metrics, percent": _format_metrics(lines, PUBLISHED.get(name, [])),
        "NDCG@10 minus another arm's of the same seed and loss, percent": _format_gains(lines),
        "Reversed pairs that are held out": _format_mined(lines),
        "How many times chance, by how often the training part has the item": _format_lifts(lines),
        "NDCG@10 minus plain's, percent, by how often the training part has the target": (
            _format_bands(lines, "by_popularity")
        ),
        "NDCG@10 minus plain's, percent, by how many items the user trains on": (
            _format_bands(lines, "by_history")
        ),
    }
    return "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items() if table)


def format_missing(lines: Sequence[Line], planned: Iterable[tuple[int, str, str]]) -> str:
    """What of the planned (seed, loss, arm) has no line, in a sentence; empty where all has.

    Args:
        lines: as they stand in the file of results.
        planned: the arms that give lines of their own.
    """
    made = {(line["seed"], line.get("loss", "bce"), line["arm"]) for line in lines}
    seeds: dict[tuple[str, str], list[str]] = {}
    for seed, loss, arm in planned:
        if (seed, loss, arm) not in made:
            seeds.setdefault((loss, arm), []).append(str(seed))
    # Arms of a loss that lack the same seeds are said together.
    together: dict[tuple[str, str], list[str]] = {}
    for (loss, arm), some in seeds.items():
        together.setdefault((loss, ", ".join(some)), []).append(arm)
    parts = [
        f"`{loss}` with seeds {some} ({'; '.join(arms)})" for (loss, some), arms in together.items()
    ]
    return f"Not run yet: {', '.join(parts)}." if parts else ""


def fill_in(text: str, name: str, tables: str) -> str:
    """Returns a document with other tables between its marks.

    Args:
        text: the document.
        name: of the data.
        tables: what shall stand there.

    Raises:
        ValueError: the document has no pair of marks, or several.
    """
    mark = f"table:arms_{name}"
    pattern = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", re.DOTALL)
    filled, count = pattern.subn(lambda _: f"\n{tables}\n\n", text)
    if count != 1:
        raise ValueError(f"the document has one pair of marks {mark}: got {count}")
    return filled


def find_gains(
    lines: Sequence[Line], loss: str, arm: str, other: str, ranking: str = "full"
) -> list[float]:
    """NDCG@10 of an arm minus another arm's of the same seed and loss, percent, by seeds.

    Args:
        lines: as they stand in the file of results.
        loss: of both arms.
        arm: what gains.
        other: what it is compared with.
        ranking: among all items (`full`) or 100 drawn ones (`sampled`).
    """
    own = [line for line in lines if (line.get("loss", "bce"), line["arm"]) == (loss, arm)]
    pairs = [(line, _find(lines, line, other)) for line in own]
    return [
        100 * (line[ranking]["NDCG@10"] - found[ranking]["NDCG@10"])
        for line, found in pairs
        if found is not None
    ]


def _format_metrics(lines: Sequence[Line], published: list[tuple[str, float, float]]) -> str:
    columns: dict[str, Callable[[Line], float]] = {
        "valid NDCG@10": lambda line: 100 * line["valid"]["NDCG@10"],
        "HR@1": lambda line: 100 * line["full"]["HR@1"],
        "HR@5": lambda line: 100 * line["full"]["HR@5"],
        "NDCG@5": lambda line: 100 * line["full"]["NDCG@5"],
        "HR@10": lambda line: 100 * line["full"]["HR@10"],
        "NDCG@10": lambda line: 100 * line["full"]["NDCG@10"],
        "sampled HR@10": lambda line: 100 * line["sampled"]["HR@10"],
        "sampled NDCG@10": lambda line: 100 * line["sampled"]["NDCG@10"],
        "best epoch": lambda line: line["best_epoch"],
    }
    rows = [
        [*arm, str(len(some)), *(_average(map(value, some)) for value in columns.values())]
        for arm, some in _by_arm(lines)
    ]
    for who, hits, gain in published:
        figures = {"HR@10": f"{hits:.2f}", "NDCG@10": f"{gain:.2f}"}
        rows.append(["published", who, "", *(figures.get(column, "") for column in columns)])
    return _format(["loss", "arm", "seeds", *columns], rows)


def _format_gains(lines: Sequence[Line]) -> str:
    """Against training without mining, and against the moving average of its weights."""
    rows = []
    for (loss, arm), _ in _by_arm(lines):
        cells = []
        for ranking, other in itertools.product(("full", "sampled"), ("plain", "ema")):
            gains = find_gains(lines, loss, arm, other, ranking)
            won = sum(gain > 0 for gain in gains)
            same = other == arm or not gains
            cells.append("" if same else f"{_average(gains, '+')} ({won} of {len(gains)})")
        if any(cells):
            rows.append([loss, arm, *cells])
    head = ["minus plain (seeds won)", "minus ema (seeds won)"]
    return _format(["loss", "arm", *head, *(f"sampled, {one}" for one in head)], rows)


def _format_mined(lines: Sequence[Line]) -> str:
    rows = []
    for arm, some in _by_arm(lines):
        parts = [part for part in map(_mined, some) if part and part["pairs"]]
        if parts:
            rows.append([
                *arm,
                f"{statistics.fmean(part['pairs'] for part in parts):,.0f}",
                f"{100 * statistics.fmean(part['held_out'] for part in parts):.3f} %",
                f"{100 * statistics.fmean(part['by_chance'] for part in parts):.3f} %",
                _average(part["held_out"] / part["by_chance"] for part in parts),
                f"{statistics.fmean(line['reversed_last_epoch'] for line in some):.2f}",
            ])  # fmt: skip
    head = ["loss", "arm", "pairs", "held out", "by chance", "times"]
    head.append("labels of a window in the last epoch")
    return _format(head, rows)


def _format_lifts(lines: Sequence[Line]) -> str:
    """By bands of popularity: share of the pairs, what of them is held out, times chance."""
    rows, head = [], ["loss", "arm"]
    for arm, some in _by_arm(lines):
        mined = [part for part in map(_mined, some) if part and part["pairs"] and "bands" in part]
        if not mined:
            continue
        head = ["loss", "arm", *(_name_band(band) for band in mined[0]["bands"])]
        cells = []
        for at in range(len(mined[0]["bands"])):
            bands = [part["bands"][at] for part in mined]
            share = statistics.fmean(
                band["pairs"] / part["pairs"] for band, part in zip(bands, mined, strict=True)
            )
            known = [band for band in bands if band["by_chance"]]
            times = [band["held_out"] / band["by_chance"] for band in known]
            held_out = statistics.fmean(band["held_out"] or 0 for band in bands)
            cells.append(
                f"{100 * share:.1f} % of pairs, {100 * held_out:.3f} % held out, "
                f"{_average(times)} times"
            )
        rows.append([*arm, *cells])
    return _format(head, rows)


def _format_bands(lines: Sequence[Line], key: str) -> str:
    """Plain's own metric, and of other arms the differences within a seed."""
    rows: list[list[str]] = []
    head = ["loss", "arm"]
    for (loss, arm), some in _by_arm(lines):
        pairs = [(line, _find(lines, line, "plain")) for line in some if key in line]
        known = [(line, other) for line, other in pairs if other is not None and key in other]
        if not known:
            continue
        bands = known[0][0][key]
        head = ["loss", "arm", *map(_name_ends, bands["low"], bands["high"])]
        if not rows:
            rows.append(["", "targets", *(f"{number:,}" for number in bands["targets"])])
        cells = []
        for at, number in enumerate(bands["targets"]):
            ours = [line[key]["NDCG@10"][at] for line, _ in known]
            theirs = [other[key]["NDCG@10"][at] for _, other in known]
            if not number:
                cells.append("")
            elif arm == "plain":
                cells.append(_average(100 * value for value in ours))
            else:
                gains = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
                cells.append(_average(gains, "+"))
        rows.append([loss, arm, *cells])
    return _format(head, rows)


def _by_arm(lines: Sequence[Line]) -> list[tuple[tuple[str, str], list[Line]]]:
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        found.setdefault((line.get("loss", "bce"), line["arm"]), []).append(line)
    losses = list(dict.fromkeys(loss for loss, _ in found))
    return sorted(found.items(), key=lambda entry: losses.index(entry[0][0]))


def _find(lines: Sequence[Line], line: Line, arm: str) -> Line | None:
    """Another arm's line with the same seed, loss, epochs and settings."""
    for other in lines:
        if other["arm"] == arm and all(
            other.get(name) == line.get(name)
            for name in ("seed", "loss", "warm_epochs", "epochs", "settings")
        ):
            return other
    return None


def _mined(line: Line) -> Line | None:
    if "reversed_pairs" in line:  # lines of before 2026-12-01
        return {
            "pairs": line["reversed_pairs"],
            "held_out": line["reversed_held_out"],
            "by_chance": line["random_held_out"],
        }
    found: Line | None = line.get("mined")
    return found


def _name_band(band: Line) -> str:
    return _name_ends(band["low"], band["high"])


def _name_ends(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _average(values: Iterable[float], sign: str = "") -> str:
    known = list(values)
    if not known:
        return ""
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):{sign}.2f}{spread}"


def _format(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    ruler = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ruler, *rows])
