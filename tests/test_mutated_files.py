"""A few mutated files of every reader; `make fuzz` tries many more."""

import subprocess
import sys
from pathlib import Path

import mutate_files

FILE = Path(mutate_files.__file__)


def test_mutated_files() -> None:
    counts, failures = mutate_files.drive(240, 0, None)
    assert failures == []
    assert sum(counts.values()) == 240
    # A reader that took everything, or nothing, would not have been tried.
    names = {key.partition(":")[0] for key in counts}
    assert names == set(mutate_files.make_targets())
    outcomes = [key.rpartition(" ")[2] for key in counts]
    assert outcomes.count("result") > 6
    assert outcomes.count("refused") > 6


FAULTS = """
import contextlib
import os
import socket
import sys
sys.path.insert(0, {folder!r})
import lmcore.ner.report as report
import mutate_files
mutate_files.__file__ = __file__
render, calls = report.render_html, []
def fail(*given):
    calls.append(1)
    if len(calls) == 2:  # the first file is whole
        raise KeyError("a bug")
    if len(calls) == 3:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), 1)
    if len(calls) == 4:
        open(__file__, "a").close()
    if len(calls) == 5:
        os.abort()
    return render(*given)
report.render_html = fail
sys.exit(mutate_files.main())
"""


def test_failures_are_seen(tmp_path: Path) -> None:
    """A reader that does what none may; that others swallow its error does not hide it."""
    script = tmp_path / "faults.py"
    script.write_text(FAULTS.format(folder=str(FILE.parent)))
    done = subprocess.run(
        [sys.executable, script, "--examples", "16", "--seed", "5", "--only", "rows.jsonl"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    seen = ["KeyError: 'a bug'", "socket.connect (", f"open '{script}'", "ended with -6"]
    places = [done.stderr.find(text) for text in seen]
    assert places == sorted(places), done.stderr
    assert places[0] > 0, done.stderr
    assert "rows.jsonl: failed" in done.stdout
