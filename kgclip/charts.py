"""Charts as inline SVG: numbers go in, an element for an HTML page comes out.

The same numbers give the same bytes: no date, no random ids. Every chart carries its numbers as
text for those who do not see it, and tells its series apart by hatches or dashes as well.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

_STYLE: Any = [
    "default",
    # fonttype none: text stays text, to be searched and read aloud.
    {
        "svg.hashsalt": "kgclip",
        "svg.fonttype": "none",
        "font.size": 9.0,
        "hatch.linewidth": 0.6,
        "text.parse_math": False,
    },
]
_DASHES: Any = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_INK, _PALE = "#1f4e79", "#d5e4f2"


def bar_chart(
    name: str,
    groups: Mapping[str, Mapping[str, tuple[float, float | None]]],
    label: str,
    form: str = ".3f",
) -> Markup:
    """Horizontal bars in groups, with intervals.

    Args:
        name: Of the chart, unique in the page.
        groups: By group, by series: length, at least 0, and half of its interval or ``None``.
        label: What the bars measure.
        form: How lengths are written, as in ``format``.
    """
    series = list(dict.fromkeys(one for bars in groups.values() for one in bars))
    styles = {one: _bar_style(i, len(series)) for i, one in enumerate(series)}
    num_bars = sum(len(bars) for bars in groups.values())
    with matplotlib.style.context(_STYLE):
        figure = Figure(
            figsize=(4.2, 0.9 + 0.1 * len(groups) + 0.17 * num_bars), layout="constrained"
        )
        axes = figure.add_subplot()
        place, ticks = 0.0, []
        for bars in groups.values():
            ticks.append(place + (len(bars) - 1) / 2)
            for one, (length, half) in bars.items():
                _draw_bar(axes, place, (length, half), styles[one], form)
                place += 1
            place += 0.6
        axes.set_yticks(ticks, list(groups))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(place - 1.1, -0.6)
        axes.margins(x=0.14)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        if len(series) > 1:
            handles = [Patch(label=one, **styles[one]) for one in series]
            figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
        texts = [
            f"{group}, {one}: {bar[0]:{form}}"
            for group in groups
            for one, bar in groups[group].items()
        ]
        return _inline_svg(figure, name, f"{label}. " + "; ".join(texts))


def _bar_style(number: int, count: int) -> dict[str, Any]:
    """The last series is full, the ones before it are pale and hatched."""
    edge = {"edgecolor": _INK, "linewidth": 0.6}
    if number == count - 1:
        return {"facecolor": _INK, **edge}
    return {"facecolor": _PALE, "hatch": "/" * 3 * (number + 1), **edge}


def _draw_bar(
    axes: Any, place: float, bar: tuple[float, float | None], style: Mapping[str, Any], form: str
) -> None:
    length, half = bar
    axes.barh(place, length, height=0.85, **style)
    if half is not None:
        low = min(half, length)  # no bar is shorter than 0
        axes.errorbar(length, place, xerr=[[low], [half]], color="black", capsize=2, linewidth=1)
    end = length + (half or 0.0)
    axes.annotate(
        f"{length:{form}}",
        (end, place),
        (3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
    )


def line_chart(
    name: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str
) -> Markup:
    """Lines over one axis, told apart by their dashes; both axes are linear, y starts at 0.

    Args:
        name: Of the chart, unique in the page.
        lines: By series: at least one (x, y).
        x_label: What x is.
        y_label: What y is.
    """
    with matplotlib.style.context(_STYLE):
        figure = Figure(figsize=(3.6, 2.3), layout="constrained")
        axes = figure.add_subplot()
        for number, (line, points) in enumerate(lines.items()):
            axes.plot(
                *zip(*points, strict=True),
                linestyle=_DASHES[number % len(_DASHES)],
                color=f"C{number % 10}",
                linewidth=1.4,
                label=line,
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, handlelength=3)
        texts = [
            f"{line}: {points[0][1]:.3g} to {points[-1][1]:.3g}" for line, points in lines.items()
        ]
        return _inline_svg(figure, name, f"{y_label} over {x_label}. " + "; ".join(texts))


def point_chart(
    name: str, points: Sequence[tuple[float, float]], x_label: str, y_label: str
) -> Markup:
    """Points over two logarithmic axes; those at 0 or below cannot be shown and are named.

    Args:
        name: Of the chart, unique in the page.
        points: (x, y) each.
        x_label: What x is.
        y_label: What y is.
    """
    shown = [(x, y) for x, y in points if x > 0 and y > 0]
    note = "; ".join(f"{y:,.0f} at {x:,.0f}" for x, y in points if x <= 0 or y <= 0)
    with matplotlib.style.context(_STYLE):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.loglog(*zip(*shown, strict=True), "o", color=_INK, markersize=3)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,.0f}")  # plain numbers: powers would need parsed maths
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(x_label + (f" (not shown: {note})" if note else ""))
        axes.set_ylabel(y_label)
        axes.spines[["top", "right"]].set_visible(False)
        texts = [f"{y:,.0f} at {x:,.0f}" for x, y in (shown[:: max(len(shown) // 8, 1)])]
        return _inline_svg(figure, name, f"{y_label} over {x_label}. " + "; ".join(texts))


def themed(chart: Markup) -> Markup:
    """A chart that takes the colours of its page: text and lines, and no white behind them.

    The page gives ``--chart-ink`` and ``--chart-pale``; its text colour is that of the axes.

    Args:
        chart: From this module.
    """
    colours = {
        "#ffffff": "none",
        "#000000": "currentColor",
        _INK: f"var(--chart-ink, {_INK})",
        _PALE: f"var(--chart-pale, {_PALE})",
    }
    for fixed, flexible in colours.items():
        chart = Markup(str(chart).replace(f": {fixed}", f": {flexible}"))
    return Markup(str(chart).replace("<text ", '<text fill="currentColor" '))


def _inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """A figure as an element of the page; its ids start with its name, so that none clash."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    # The metadata hold the date and addresses.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", name)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    attributes = f'class="chart" role="img" aria-label="{html.escape(description)}"'
    return Markup(svg.replace("<svg", f"<svg {attributes}", 1))
