"""Reading 10^7 interactions from CSV, against pandas' read_csv and grouping.

The file is a log: users, items, a rating and a time, in no order. Both sides give the same
compressed rows: each user's items in the order of time. What is asked is three times the speed and
less than 1 GB of memory in all, of a process that does nothing else. Seconds of processor time
stand beside: they say more where the machine does other work, too. `--small` takes a tenth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmcore.recsys.reading import read_interactions
from timing import compare, print_conditions, save

ROWS, USERS, ITEMS = 10_000_000, 138_000, 27_000
FIRST, LAST = 800_000_000, 1_700_000_000

# `ru_maxrss` starts with what the parent had; this is the new process's own.
PEAK = """
import sys
from pathlib import Path
from {module} import {name}
{name}(sys.argv[1])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def write_log(path: Path, rows: int, *, texts: bool) -> None:
    """Writes rows of which some items are far more frequent than others.

    Args:
        path: the file.
        rows: how many.
        texts: whether ids are texts of Amazon's length in place of numbers.
    """
    draw = np.random.default_rng(0)
    columns = {
        "user_id": draw.integers(1, USERS, rows),
        "item_id": 1 + (ITEMS * draw.random(rows) ** 2).astype(np.int64),
        "rating": draw.integers(1, 6, rows),
        "timestamp": draw.integers(FIRST, LAST, rows),
    }
    table = pd.DataFrame(columns)
    if texts:
        table["user_id"] = "A" + table["user_id"].astype(str).str.zfill(13)
        table["item_id"] = "B" + table["item_id"].astype(str).str.zfill(9)
    table.to_csv(path, index=False)


def read_with_pandas(path: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns offsets and items; ids are numbered as ours, in the quickest way that we found."""
    table = pd.read_csv(path, usecols=["user_id", "item_id", "timestamp"])
    by_number = pd.api.types.is_integer_dtype(table["user_id"])
    users, _ = pd.factorize(table["user_id"], sort=by_number)
    items, _ = pd.factorize(table["item_id"], sort=by_number)
    order = np.argsort(table["timestamp"].to_numpy(), kind="stable")
    order = order[np.argsort(users[order], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(users))])
    return offsets, items[order] + 1


def measure(module: str, name: str, path: Path) -> float:
    """Megabytes that a process has at most that only reads the file, its imports with it."""
    code = PEAK.format(module=module, name=name)
    command, here = [sys.executable, "-c", code, str(path)], Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6


def counting(seconds: list[float], call: Callable[[], object]) -> Callable[[], object]:
    """The call, which then adds its seconds of processor time."""

    def count() -> None:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)

    return count


def main() -> None:
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tenth of the rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the rows in results/")
    options = parser.parse_args()
    print_conditions()
    rows = ROWS // 10 if options.small else ROWS
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for texts in (False, True):
            path = Path(folder, "log.csv")
            write_log(path, rows, texts=texts)
            ours = read_interactions(path)
            for mine, theirs in zip(
                (ours.offsets, ours.items), read_with_pandas(str(path)), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)
            peak = measure("lmcore.recsys.reading", "read_interactions", path)
            other = measure("bench_interactions", "read_with_pandas", path)
            kind = "texts" if texts else "numbers"
            print(f"{rows} rows, ids are {kind}: peak {peak:.0f} MB, pandas {other:.0f} MB")
            assert peak < 1000
            theirs_used: list[float] = []
            ours_used: list[float] = []
            theirs_read = counting(theirs_used, partial(read_with_pandas, str(path)))
            ours_read = counting(ours_used, partial(read_interactions, path))
            found += compare(
                "interactions",
                f"{rows} rows of CSV, ids are {kind}",
                ("pandas, read_csv and sorting", theirs_read),
                ("lmcore", ours_read, "3"),
                rounds=options.rounds,
                repeats=1,
            )
            used, other_used = median(ours_used), median(theirs_used)
            print(f"processor: pandas {other_used:.2f} s, lmcore {used:.2f} s")
    if options.save:
        save("interactions", found)


if __name__ == "__main__":
    main()
