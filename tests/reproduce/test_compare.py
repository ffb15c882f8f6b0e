"""What a change alters in the table of claims is shown, and nothing else."""

import dataclasses
import json

from claims import CLAIM, INFO, row
from lmcore.reproduce.claim import make_absent_row
from lmcore.reproduce.compare import format_difference
from lmcore.reproduce.report import format_json


def saved(*rows: object) -> dict[str, object]:
    return dict(json.loads(format_json(rows, INFO)))  # type: ignore[arg-type]


def test_equal_tables_differ_in_nothing() -> None:
    rows = [row(1.0, 1.2), make_absent_row(dataclasses.replace(CLAIM, id="other"), "no GPU")]
    assert format_difference(saved(*rows), rows) == "no claim differs"


def test_changed_lines_stand_below_their_claim() -> None:
    other = dataclasses.replace(row(1.0, 1.2), id="other")
    earlier = saved(row(1.0, 1.2), other, dataclasses.replace(other, id="gone"))
    new = dataclasses.replace(other, id="new")
    assert format_difference(earlier, [row(0.0, 0.2), other, new]).splitlines() == [
        "what differs from lmcore reproduce --seeds 2, 2024-01-01 00:00:00+00:00, a machine",
        "a_claim",
        "  - reproduced",
        "  + not reproduced",
        "  - 1.1 ± 0.1",
        "  + 0.1 ± 0.1",
        "new: new, reproduced",
        "gone: not among the claims of this run",
        "1 of 3 claims are the same",
    ]


def test_nothing_of_a_file_reaches_the_terminal_as_it_is() -> None:
    earlier = saved(row(1.0, 1.2))
    text = (
        json.dumps(earlier)
        .replace("second line", "\\u001b[31msecond")
        .replace("a machine", "\\u001b")
    )
    output = format_difference(json.loads(text), [row(1.0, 1.2)])
    assert "\x1b" not in output
    assert "[31msecond" in output
