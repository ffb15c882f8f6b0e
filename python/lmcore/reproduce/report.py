"""The results of claims as a table for the terminal, as JSON and as one HTML page."""

import dataclasses
import html
import json
import math
import os
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore._files import write_text
from lmcore.reproduce.claim import Panel, Plot, ResultRow, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPREAD_NOTE = "Numbers are mean ± sample standard deviation over {count} seeds."
_ONE_SEED_NOTE = "Measured with one seed: no spread, and therefore no verdict."

# Colours that no plot uses otherwise; the page's own colours take their place, so that a plot
# follows the reader's light or dark theme.
_INK, _FAINT, _GROUND = "#010203", "#040506", "#070809"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06", "#0a0b07")
_THEMED = {
    _INK: "var(--ink)",
    _FAINT: "var(--line)",
    _GROUND: "var(--card)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(_SERIES, start=1)},
}
_MARKERS = "osD^vPX"


@dataclass(kw_only=True, slots=True, frozen=True)
class RunInfo:
    """Under which conditions a report's numbers were measured."""

    seeds: tuple[int, ...]
    quick: bool
    versions: Mapping[str, str]
    """Version of each package that took part."""
    device: str
    started: str
    """Date and time in UTC."""


def format_table(rows: Sequence[ResultRow], width: int | None = None) -> str:
    """Returns the results as an aligned plain-text table.

    Args:
        rows: one per claim.
        width: columns of the table, 100 to 120; those of the terminal if None.

    Example:
        >>> format_table([], width=100).split()
        ['claim', 'paper', 'measured', 'here', 'verdict']
    """
    if width is None:
        width = shutil.get_terminal_size((120, 24)).columns
    width = min(max(width, 100), 120)
    gap, claim, verdict = 2, 24, len("not reproduced")
    left = width - claim - verdict - 3 * gap
    widths = [claim, left * 2 // 5, left - left * 2 // 5, verdict]

    def lay_out(cells: Sequence[str]) -> list[str]:
        columns = [_wrap(cell, size) for cell, size in zip(cells, widths, strict=True)]
        height = max(map(len, columns))
        padded = [column + [""] * (height - len(column)) for column in columns]
        return [
            (" " * gap)
            .join(f"{cell:<{size}}" for cell, size in zip(line, widths, strict=True))
            .rstrip()
            for line in zip(*padded, strict=True)
        ]

    lines = lay_out(["claim", "paper", "measured here", "verdict"])
    rule = (" " * gap).join("-" * size for size in widths)
    for row in rows:
        lines.append(rule)
        lines += lay_out([f"{row.id}\n{row.statement}", row.paper, row.measured, row.verdict])
        for name, content in (("speed", row.speed), ("rule", row.rule)):
            if content:
                first, *others = _wrap(content, width - 7)
                lines += ["", f"{name:<7}{first}", *[" " * 7 + line for line in others]]
    if rows:
        lines += [rule, _note(len(rows[0].seeds))]
    return "\n".join(lines)


def format_html(rows: Sequence[ResultRow], info: RunInfo) -> str:
    """Returns the results as one HTML page that needs no other file.

    Args:
        rows: one per claim.
        info: conditions of the run.

    Raises:
        ImportError: matplotlib, which draws the plots, is not installed.
    """
    counts = {
        verdict: sum(row.verdict == verdict for row in rows)
        for verdict in ("reproduced", "not reproduced", "measured")
    }
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    facts = {
        "Seeds": ", ".join(map(str, info.seeds)),
        "Size": "quick" if info.quick else "full",
        "Device": info.device,
        "Versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
        "Started": f"{info.started.removesuffix('+00:00')} UTC",
        "Time": f"{sum(row.seconds for row in rows):.0f} s",
    }
    return _PAGE.format(
        style=_STYLE,
        total=html.escape(total or "no claims"),
        note=html.escape(_note(len(info.seeds))),
        facts="".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items()),
        summary="".join(_format_summary(row) for row in rows),
        claims="".join(_format_claim(row) for row in rows),
    )


def format_json(rows: Sequence[ResultRow], info: RunInfo) -> str:
    """Returns the conditions of the run and every number of every row.

    Args:
        rows: one per claim.
        info: conditions of the run.

    Returns:
        An object with `run` and `rows`; a number that is not finite is null.
    """
    content = {"run": dataclasses.asdict(info), "rows": [dataclasses.asdict(row) for row in rows]}
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(rows: Sequence[ResultRow], info: RunInfo, folder: str | os.PathLike[str]) -> None:
    """Writes `results.json` and `index.html` into an existing folder.

    Args:
        rows: one per claim.
        info: conditions of the run.
        folder: where; each file replaces its predecessor as a whole.

    Raises:
        ImportError: matplotlib, which draws the plots, is not installed.
        OSError: the folder cannot be written to.
    """
    files = {"results.json": format_json(rows, info), "index.html": format_html(rows, info)}
    for name, content in files.items():
        write_text(Path(folder) / name, content)


def import_matplotlib() -> ModuleType:
    """Returns matplotlib.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    with optional_imports():
        import matplotlib
    return matplotlib


def format_plot(plot: Plot) -> str:
    """Returns a plot as an SVG element in the colours of the page around it.

    Args:
        plot: what to draw.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: more series than there are colours.
    """
    most = max(len(panel.series) for panel in plot.panels)
    if most > len(_SERIES):
        raise ValueError(f"a panel must have at most {len(_SERIES)} series: got {most}")
    matplotlib = import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.fonttype": "none",
        # Names of clip paths hang on the salt: those of two plots on a page must differ.
        "svg.hashsalt": plot.title,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _FAINT,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _FAINT,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9.2, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        figure.patch.set_alpha(0.0)
        _draw(plot, figure)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _embed(buffer.getvalue(), plot.title)


def _draw(plot: Plot, figure: "Figure") -> None:
    grid = figure.subplots(1, len(plot.panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, plot.panels, strict=True):
        axes.patch.set_alpha(0.0)
        axes.set_axisbelow(True)
        axes.grid(axis="y", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
        if plot.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
            axes.tick_params(which="minor", length=0)
        if plot.kind == "bars":
            _draw_bars(plot, panel, axes)
            if plot.logarithmic:
                # Bars of a logarithmic axis have no natural foot: take the power of ten below.
                heights = [y for series in panel.series for y in series.y if 0 < y < math.inf]
                axes.set_ylim(bottom=10 ** math.floor(math.log10(min(heights, default=1.0))))
        else:
            _draw_lines(panel, axes)
        axes.set_xticks(range(len(plot.x)), plot.x)
        axes.set_xlabel(plot.x_label)
        axes.set_title(panel.title, fontsize=10)
    grid[0].set_ylabel(plot.y_label)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False, fontsize=9.5)


def _draw_lines(panel: Panel, axes: "Axes") -> None:
    for series, colour, marker in zip(panel.series, _SERIES, _MARKERS, strict=False):
        x = range(len(series.y))
        if series.reference:
            axes.plot(x, series.y, color=colour, alpha=0.45, linewidth=8, label=series.name)
            continue
        axes.plot(
            x, series.y, color=colour, marker=marker, markersize=5, linewidth=1.8, label=series.name
        )
        low = [y - spread for y, spread in zip(series.y, series.spread, strict=True)]
        high = [y + spread for y, spread in zip(series.y, series.spread, strict=True)]
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_bars(plot: Plot, panel: Panel, axes: "Axes") -> None:
    width = 0.86 / len(panel.series)
    for k, (series, colour) in enumerate(zip(panel.series, _SERIES, strict=False)):
        places = [x + (k - (len(panel.series) - 1) / 2) * width for x in range(len(plot.x))]
        bars = axes.bar(
            places,
            series.y,
            width * 0.9,
            color=colour,
            alpha=0.45 if series.reference else 1.0,
            label=series.name,
            yerr=series.spread if any(spread > 0 for spread in series.spread) else None,
            ecolor=_INK,
            error_kw={"linewidth": 0.9},
        )
        axes.bar_label(bars, [f"{y:.3g}" for y in series.y], padding=3, fontsize=8)


def _embed(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    for colour, variable in _THEMED.items():
        svg = svg.replace(colour, variable)
    # matplotlib numbers the groups of each figure from 1, and an id must be unique on a page.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg, count=2)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def _format_summary(row: ResultRow) -> str:
    return (
        f'<tr><td><a href="#{row.id}"><code>{row.id}</code></a><br>'
        f"{html.escape(row.statement)}</td>"
        f"<td>{_lines(row.paper)}</td><td>{_lines(row.measured)}</td>"
        f"<td>{_badge(row.verdict)}</td></tr>"
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
        f'<section id="{row.id}"><header><h2><code>{row.id}</code></h2>'
        f'<span class="system">lmcore.{html.escape(row.system)}</span>'
        f"{_badge(row.verdict)}</header>"
        f'<p class="statement">{html.escape(row.statement)}</p>'
        f"<dl>{listed}</dl>{figures}"
        f"<details><summary>All {len(row.estimates)} numbers, {row.seconds:.1f} s</summary>"
        '<div class="scroll"><table class="numbers"><thead><tr><th>name</th><th>mean</th>'
        f"<th>spread</th></tr></thead><tbody>{numbers}</tbody></table></div></details></section>"
    )


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict.replace(" ", "-")}">{verdict}</span>'


def _lines(text: str) -> str:
    # Hard spaces keep a mean and its spread on one line.
    lines = (html.escape(line).replace(" ± ", "\u00a0±\u00a0") for line in text.splitlines())
    return "<br>".join(lines)


def _note(seed_count: int) -> str:
    return _ONE_SEED_NOTE if seed_count == 1 else _SPREAD_NOTE.format(count=seed_count)


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        # A mean and its spread stay together.
        joined = line.replace(" ± ", "\0±\0")
        wrapped = textwrap.wrap(joined, width, subsequent_indent="  ", break_on_hyphens=False)
        lines += wrapped or [""]
    return [line.replace("\0", " ") for line in lines] or [""]


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


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
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .93em; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.lead { color: var(--soft); margin: 0 0 1.75rem; }
section, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.35rem 1.5rem; margin: 0 0 1.5rem;
}
section > header { display: flex; align-items: center; gap: .75rem; flex-wrap: wrap; }
section > header .badge { margin-left: auto; }
.system { color: var(--soft); font-size: .88rem; }
.statement { font-size: 1.08rem; margin: .55rem 0 1rem; }
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
.summary { min-width: 46rem; }
.summary td:first-child { width: 26%; }
.summary td:nth-child(2) { width: 26%; }
.badge {
  display: inline-block; padding: .12rem .65rem; border-radius: 999px; white-space: nowrap;
  font-size: .83rem; font-weight: 600;
}
.reproduced { color: var(--good); background: var(--good-ground); }
.not-reproduced { color: var(--bad); background: var(--bad-ground); }
.measured { color: var(--even); background: var(--even-ground); }
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
  dd { margin-bottom: .7rem; }
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
<div class="card"><dl>{facts}</dl></div>
<div class="card scroll"><table class="summary">
<thead><tr><th>claim</th><th>paper</th><th>measured here</th><th>verdict</th></tr></thead>
<tbody>{summary}</tbody></table></div>
{claims}
</main>
</body>
</html>
"""
