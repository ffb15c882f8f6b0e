"""Profiles as a figure: errors, their gap, and distances between estimates, over the timesteps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore._files import whole_file
from lmcore._text import escape
from lmcore.diffusion.profile import Curve, Profile, find_gap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS = ("svg", "png")
# The light colours of the claim report.
_INK, _FAINT, _GROUND = "#1c2430", "#dbe0e7", "#ffffff"
_COLOURS = ("#0b8f6a", "#0b62a8", "#d9730d", "#b5387a", "#6a4fc4", "#7a6a00", "#8a94a3")
MOST = len(_COLOURS)
"""Profiles of a figure."""
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_SETTINGS = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "profile",
    # A name of a file may hold dollars, which would begin a formula.
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
}


def find_plot_form(path: str | os.PathLike[str]) -> str:
    """Returns the form of a figure, which its name ends with.

    Args:
        path: the file.

    Raises:
        ImportError: matplotlib, which draws it, is not installed.
        ValueError: the name ends with no known form.

    Example:
        >>> find_plot_form("profile.svg")
        'svg'
    """
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise ValueError(f"{os.fspath(path)}: a plot must be a .svg or a .png file")
    _import_matplotlib()
    return form


def plot_profiles(
    profiles: Mapping[str, Profile],
    path: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Writes a figure of profiles: a colour for each, a kind of line for each of its chains.

    Args:
        profiles: at least one and at most seven, by their names; of the same T and noise schedule.
        path: the file, `.svg` or `.png`; its folder must exist.
        inputs: files that it must not be.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
        ValueError: profiles cannot be compared, there are too many or none, or the name of the
            file is none of a figure.

    Example:
        >>> import tempfile
        >>> curve = Curve(steps=None, timesteps=(0, 9), loss=(0.1, 0.3), distance=(0.0, 0.1),
        ...               travel=None)
        >>> profile = Profile(
        ...     total=10, noise_schedule="sqrt", model="", data="", rows=1, length=8, seed=0,
        ...     tolerance=0.05, forward=curve, chains=())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_profiles({"a model": profile}, f"{folder}/profile.svg")
        ...     os.listdir(folder)
        ['profile.svg']
    """
    form = find_plot_form(path)
    if not 1 <= len(profiles) <= MOST:
        raise ValueError(f"profiles must be from 1 to {MOST}: got {len(profiles)}")
    check_alike({name: profile.process for name, profile in profiles.items()})
    matplotlib = _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(12.0, 4.4), layout="constrained", facecolor=_GROUND)
        FigureCanvasAgg(figure)
        errors, gaps, distances = figure.subplots(1, 3)
        for (name, profile), colour in zip(profiles.items(), _COLOURS, strict=False):
            _draw(escape(name), profile, colour, errors, gaps, distances)
        titles = {
            errors: "error of the estimates", gaps: "error in its own chain, less the former",
            distances: "distance to the neighbour by noise",
        }  # fmt: skip
        for axes, title in titles.items():
            _dress(axes, title)
        handles, names = errors.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False)
        with whole_file(path, inputs) as place:
            # Without a date, so that the same profiles give the same bytes.
            metadata = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
            figure.savefig(place, format=form, dpi=144, metadata=metadata)


def check_alike(processes: Mapping[str, tuple[int, str]]) -> None:
    """Checks that timesteps of profiles mean the same noise.

    Args:
        processes: T and noise schedule of each, by its name.

    Raises:
        ValueError: two differ; the text names one of them.

    Example:
        >>> check_alike({"a": (2000, "sqrt"), "b": (2000, "sqrt")})
    """
    first = next(iter(processes.values()), (0, ""))
    for name, process in processes.items():
        if process != first:
            raise ValueError(
                f"{name}: expected a profile of {first[0]} timesteps of {first[1]}, to compare "
                f"with: got one of {process[0]} of {process[1]}"
            )


def _draw(
    name: str, profile: Profile, colour: str, errors: Axes, gaps: Axes, distances: Axes
) -> None:
    curves: list[Curve] = [profile.forward, *profile.chains]
    for number, curve in enumerate(curves):
        style: dict[str, Any] = {"color": colour, "linewidth": 1.8}
        style["linestyle"] = _DASHES[number % len(_DASHES)]
        if curve.steps is not None and curve.steps <= 50:
            style |= {"marker": "o", "markersize": 3}
        kind = "noised texts" if curve.steps is None else f"chain of {curve.steps:,}"
        errors.plot(curve.timesteps, curve.loss, label=f"{name}: {kind}", **style)
        distances.plot(curve.timesteps, curve.distance, **style)
        if curve.steps is not None:
            gaps.plot(curve.timesteps, find_gap(profile, curve), **style)


def _dress(axes: Axes, title: str) -> None:
    axes.patch.set_alpha(0.0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("timestep, from little to much noise")
    axes.set_title(title, fontsize=10)


def _import_matplotlib() -> Any:
    with optional_imports():
        import matplotlib
    return matplotlib
