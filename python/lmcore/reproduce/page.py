"""The results of claims as one HTML page that needs no other file."""

import html
import math
from collections.abc import Sequence

from lmcore.reproduce.claim import ResultRow, Verdict
from lmcore.reproduce.conditions import RunInfo
from lmcore.reproduce.plots import format_plot
from lmcore.reproduce.table import count_verdicts, describe_spread


def format_html(rows: Sequence[ResultRow], info: RunInfo) -> str:
    """Returns the results as one HTML page that needs no other file.

    Args:
        rows: one per claim.
        info: conditions of the run.

    Raises:
        ImportError: matplotlib, which draws the plots, is not installed.
    """
    kept = sum(row.kept for row in rows)
    facts = {
        "Command": f"<code>{html.escape(info.command)}</code>",
        "Seeds": ", ".join(map(str, info.seeds)),
        "Size": info.size,
        "Device": html.escape(info.device),
        "Versions": html.escape(", ".join(f"{k} {v}" for k, v in info.versions.items())),
        "Started": f"{html.escape(info.started.removesuffix('+00:00'))} UTC",
        "Time": f"{sum(row.seconds for row in rows):.0f} s of measuring, one after the other",
        "Earlier": f"{kept} of {sum(len(row.seeds) for row in rows)} measurements are those of an "
        "earlier run under the same conditions",
    }
    if not kept:
        del facts["Earlier"]
    run = [row for row in rows if row.verdict != "not run"]
    not_run = [row for row in rows if row.verdict == "not run"]
    return _PAGE.format(
        style=_STYLE,
        total=html.escape(count_verdicts(rows)),
        note=html.escape(describe_spread(len(info.seeds))),
        facts="".join(f"<dt>{k}</dt><dd>{v}</dd>" for k, v in facts.items()),
        summary="".join(map(_format_summary, [*run, *not_run])),
        claims="".join(map(_format_claim, run)),
    )


def _format_summary(row: ResultRow) -> str:
    statement, kind = html.escape(row.statement), ""
    measured = _lines(row.measured)
    if row.verdict == "not run":
        kind, measured = ' class="absent"', html.escape(row.reason)
    else:
        statement = f'<a href="#{row.id}">{statement}</a>'
    # On a narrow page each cell says its column, and the verdict comes first.
    return (
        f'<tr{kind}><td class="claim">{statement} <code>{row.id}</code></td>'
        f'<td data-column="paper">{_lines(row.paper)}</td>'
        f'<td data-column="measured here">{measured}</td>'
        f'<td class="verdict">{_badge(row.verdict)}</td></tr>'
    )


def _format_claim(row: ResultRow) -> str:
    facts = {
        "Paper": _lines(row.paper),
        "Source": html.escape(row.source),
        "Measured": _lines(row.measured),
        "Speed": _lines(row.speed),
        "Rule": html.escape(row.rule),
        "Setting": html.escape(row.setting),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts.items() if text)
    figures = "".join(
        f"<figure><figcaption>{html.escape(plot.title)}</figcaption>{format_plot(plot)}</figure>"
        for plot in row.plots
    )
    numbers = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{e.mean:.5g}</td>"
        f"<td>{'' if math.isnan(e.spread) else f'{e.spread:.2g}'}</td></tr>"
        for name, e in row.estimates.items()
    )
    return (
        f'<section id="{row.id}"><header><h2>{html.escape(row.statement)}</h2>'
        f"{_badge(row.verdict)}</header>"
        f"<dl>{listed}</dl>{figures}{_format_texts(row)}"
        f"<details><summary>All {len(row.estimates)} numbers, {row.seconds:.1f} s</summary>"
        '<div class="scroll"><table class="numbers"><thead><tr><th>name</th><th>mean</th>'
        f"<th>spread</th></tr></thead><tbody>{numbers}</tbody></table></div></details>"
        f'<p class="id"><code>{row.id}</code> of lmcore.{html.escape(row.system)}</p></section>'
    )


def _format_texts(row: ResultRow) -> str:
    """What was made of a few rows with the first seed, one below the other."""
    parts = []
    for name, texts in row.texts.items():
        listed = "".join(
            f"<dt>{html.escape(how)}</dt><dd>{html.escape(text)}</dd>"
            for how, text in {**row.originals[name], **texts}.items()
        )
        parts.append(f"<h3>{html.escape(name)}</h3><dl>{listed}</dl>")
    if not parts:
        return ""
    return (
        f"<details><summary>Texts to read, seed {row.seeds[0]}</summary>{''.join(parts)}</details>"
    )


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict.replace(" ", "-")}">{verdict}</span>'


def _lines(text: str) -> str:
    # Hard spaces keep a mean and its spread on one line.
    lines = (html.escape(line).replace(" ± ", "\u00a0±\u00a0") for line in text.splitlines())
    return "<br>".join(lines)


_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5a6675; --line: #dbe0e7;
  --link: #0b62a8;
  --good: #0f7b4f; --good-ground: #e0f4ea; --bad: #b3261e; --bad-ground: #fce8e6;
  --even: #47566b; --even-ground: #e8edf3;
  --series-1: #8a94a3; --series-2: #0b8f6a; --series-3: #0b62a8; --series-4: #d9730d;
  --series-5: #b5387a; --series-6: #6a4fc4; --series-7: #7a6a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #11151b; --card: #1a2029; --ink: #e4e9f0; --soft: #9aa7b8; --line: #323c4a;
    --link: #74b8f2;
    --good: #6fdcab; --good-ground: #12382a; --bad: #ff9b93; --bad-ground: #47201d;
    --even: #b6c3d4; --even-ground: #2a3441;
    --series-1: #9aa5b5; --series-2: #4fd1a5; --series-3: #6db3f2; --series-4: #f5a45c;
    --series-5: #ee86b7; --series-6: #b09cf5; --series-7: #d8c552;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1060px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 0; }
h3 { font-size: .95rem; margin: 1rem 0 .35rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .93em; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.lead { color: var(--soft); margin: 0 0 1.75rem; }
section, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.35rem 1.5rem; margin: 0 0 1.5rem;
}
section > header { display: flex; align-items: start; gap: 1rem; margin: 0 0 1rem; }
section > header .badge { margin-left: auto; flex: none; }
.id, .claim code { color: var(--soft); font-size: .82rem; overflow-wrap: anywhere; }
.id { margin: 1.25rem 0 0; }
.claim code { display: block; }
dl { display: grid; grid-template-columns: 6.5rem 1fr; gap: .45rem 1rem; margin: 0; }
dt { color: var(--soft); font-size: .9rem; padding-top: .08rem; }
dd { margin: 0; font-size: .95rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .85rem; }
th, td { padding: .6rem .75rem; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
.scroll { overflow-x: auto; }
.summary td:first-child { width: 26%; }
.summary td:nth-child(2) { width: 26%; }
.badge {
  display: inline-block; padding: .12rem .65rem; border-radius: 999px; white-space: nowrap;
  font-size: .83rem; font-weight: 600;
}
.reproduced { color: var(--good); background: var(--good-ground); }
.not-reproduced { color: var(--bad); background: var(--bad-ground); }
.measured { color: var(--even); background: var(--even-ground); }
.not-run { color: var(--soft); box-shadow: inset 0 0 0 1px var(--line); }
.absent td { color: var(--soft); }
figure { margin: 1.5rem 0 0; }
figcaption { font-weight: 600; margin-bottom: .25rem; }
figure svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
details { margin-top: 1.25rem; }
summary { cursor: pointer; color: var(--soft); font-size: .92rem; }
.numbers { margin-top: .75rem; font-variant-numeric: tabular-nums; }
.numbers th, .numbers td { padding: .2rem .75rem; }
.numbers td + td, .numbers th + th { text-align: right; }
@media (max-width: 640px) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .7rem; overflow-wrap: anywhere; }
  main { padding: 1.5rem .9rem 3rem; }
  section, .card { padding: 1rem; }
  section > header { flex-direction: column-reverse; gap: .5rem; }
  section > header .badge { margin-left: 0; }
  .summary thead { display: none; }
  .summary tr { display: flex; flex-direction: column; gap: .35rem; padding: .9rem 0;
    border-bottom: 1px solid var(--line); }
  .summary tr:last-child { border-bottom: 0; }
  .summary td, .summary td:first-child, .summary td:nth-child(2) { width: auto; padding: 0;
    border: 0; overflow-wrap: anywhere; }
  .summary .verdict { order: -2; }
  .summary .claim { order: -1; font-weight: 600; }
  .summary .claim code { font-weight: 400; }
  .summary [data-column]::before { content: attr(data-column) ": "; color: var(--soft); }
}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lmcore: claims, measured again</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>Published claims, measured again</h1>
<p class="lead">{total}. {note}</p>
<div class="card scroll"><table class="summary">
<thead><tr><th>claim</th><th>paper</th><th>measured here</th><th>verdict</th></tr></thead>
<tbody>{summary}</tbody></table></div>
<div class="card"><dl>{facts}</dl></div>
{claims}
</main>
</body>
</html>
"""
