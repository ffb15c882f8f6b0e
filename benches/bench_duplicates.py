"""Texts that stood before: tables of hashes against Python's set of texts, time and memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.duplicates import Duplicates
from lmcore.reference.duplicates import find_duplicates
from timing import Row, compare, print_conditions, save

LINES = 10**6
AT_ONCE = 10**5
#: Peak of a whole process that looks at 10^7 short lines, of which a tenth stand twice.
PEAK = """
import resource, sys
import numpy as np
{imports}
known, total = {empty}, 0
for start in range(0, 10**7, 10**5):
    lines = [f"a short line, number {{k % (9 * 10**6)}}" for k in range(start, start + 10**5)]
    total += {add}
assert total == 10**6, total
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
OURS = {
    "imports": "from lmcore.ops.duplicates import Duplicates",
    "empty": "Duplicates()",
    "add": "int(known.add(lines, threads=1).sum())",
}
SET = {
    "imports": "from lmcore.ops.duplicates import Duplicates",
    "empty": "set()",
    "add": "sum(line in known or known.add(line) is not None for line in lines)",
}


def make_lines(count: int) -> list[str]:
    """Returns lines of which a tenth stand twice."""
    return [f"a short line, number {k % (count * 9 // 10)}" for k in range(count)]


def add_all(lines: list[str]) -> NDArray[np.bool_]:
    """Returns which lines stood before."""
    seen = Duplicates()
    parts = range(0, len(lines), AT_ONCE)
    return np.concatenate([seen.add(lines[start : start + AT_ONCE], threads=1) for start in parts])


def look_up(lines: list[str]) -> list[bool]:
    """The same by a set of texts."""
    known: set[str] = set()
    found = []
    for line in lines:
        found.append(line in known)
        known.add(line)
    return found


def measure(names: dict[str, str]) -> float:
    """Returns the peak of a process, in MB."""
    code = PEAK.format(**names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def time_lines() -> list[Row]:
    """Times a million lines against a set."""
    lines = make_lines(LINES)
    expected = look_up(lines)
    assert add_all(lines).tolist() == expected
    part = lines[: LINES // 500] * 2
    assert Duplicates().add(part).tolist() == find_duplicates(part)
    return compare(
        "duplicates",
        f"{LINES} short lines",
        ("a set of texts", lambda: look_up(lines)),
        ("hashes, 1 thread", lambda: add_all(lines), ""),
        rounds=5,
        repeats=1,
    )


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = time_lines()
    ours = measure(OURS)
    print(f"10^7 short lines: {ours:.0f} MB in all; goal 1024", flush=True)
    if "--full" in sys.argv[1:]:
        print(f"by a set of texts: {measure(SET):.0f} MB", flush=True)
    if "--dry" not in sys.argv[1:]:
        save("duplicates", rows)
    assert ours < 1024


if __name__ == "__main__":
    main()
