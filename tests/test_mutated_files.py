"""A few mutated files of every reader; `make fuzz` tries many more."""

import subprocess
import sys
from pathlib import Path

import pytest

import mutate_files

FILE = Path(mutate_files.__file__)


@pytest.mark.parametrize("seed", [0])
def test_mutated_files(seed: int) -> None:
    counts, failures = mutate_files.drive(130, seed, None)
    assert failures == []
    assert sum(counts.values()) == 130
    # A reader that took everything, or nothing, would not have been tried.
    names = {key.partition(":")[0] for key in counts}
    assert names == set(mutate_files.make_targets())
    outcomes = [key.rpartition(" ")[2] for key in counts]
    assert outcomes.count("result") > 6
    assert outcomes.count("refused") > 6


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise KeyError('a bug')", "KeyError: 'a bug'"),
        ("__import__('os').abort()", "the process ended with -6"),
    ],
)
def test_failures_are_seen(tmp_path: Path, fault: str, message: str) -> None:
    """A reader that raises, or that takes the interpreter with it, after the first whole file."""
    patch = f"""
import sys
sys.path.insert(0, {str(FILE.parent)!r})
import lmcore.ner.report as report
import mutate_files
mutate_files.__file__ = __file__
format_scores, calls = report.render_html, []
def render(scores):
    calls.append(1)
    if len(calls) > 1:
        {fault}
    return format_scores(scores)
report.render_html = render
sys.exit(mutate_files.main())
"""
    script = tmp_path / "patched.py"
    script.write_text(patch)
    done = subprocess.run(
        [sys.executable, script, "--examples", "5", "--seed", "5", "--only", "rows.jsonl"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert "rows.jsonl: failed" in done.stdout
