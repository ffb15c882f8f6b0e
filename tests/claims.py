"""A made-up claim, and rows of it."""

import dataclasses
from typing import Any

from lmcore.reproduce.claim import Claim, Measurement, Panel, Plot, ResultRow, Series, make_row
from lmcore.reproduce.conditions import RunInfo

INFO = RunInfo(
    command="lmcore reproduce --seeds 2",
    seeds=(0, 1),
    size="quick",
    versions={"lmcore": "0", "<b>": "1 & 2"},
    device="a machine",
    started="2024-01-01 00:00:00+00:00",
)


PLOTS = tuple(
    Plot(
        title=f"Scores & {kind}",
        kind=kind,
        x_label="x",
        y_label="y",
        x=("1", "2"),
        panels=(
            Panel(
                title="left",
                series=(
                    Series(name="a < b", y=(1.0, 2.0), spread=(0.1, 0.0)),
                    Series(name="c", y=(2.0, 1.5), spread=(0.0, 0.0), reference=True),
                ),
            ),
        ),
        logarithmic=kind == "bars",
    )
    for kind in ("lines", "bars")
)


CLAIM = Claim(
    id="a_claim",
    system="ner",
    statement="A statement that is long enough to be wrapped, with <angle> brackets & more.",
    source="a paper",
    paper="1.0",
    setting="as it is",
    measure=lambda seed, size: Measurement(values={"score": seed + (size == "quick")}),
    describe=lambda estimates: f"{estimates['score'].format()}\nsecond line",
    rule="The score is at least 1.",
    expected="reproduced",
    holds=lambda estimates: estimates["score"].mean >= 1.0,
    describe_speed=lambda _: "twice as fast as before",
    plot=lambda _: PLOTS,
)


def row(*scores: float, **changes: Any) -> ResultRow:
    claim = dataclasses.replace(CLAIM, **changes)
    measurements = [Measurement(values={"score": score}) for score in scores]
    return make_row(claim, measurements, range(len(scores)), seconds=1.5)
