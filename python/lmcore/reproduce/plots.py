"""Plots as SVG elements in the colours of the page around them."""

import html
import math
import re
from io import StringIO
from types import ModuleType
from typing import TYPE_CHECKING

from lmcore._extras import optional_imports
from lmcore.reproduce.claim import Panel, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
