from __future__ import annotations

import re
from xml.etree import ElementTree

from kgclip.charts import bar_chart, line_chart, point_chart, themed

BARS = {"a<b": {"one": (0.25, None), "two": (0.5, 0.6)}, "$x$": {"two": (0.125, 0.0)}}
LINES = {"e2e & co": [(1, 2.0), (5, 1.0)], "kd": [(1, 1.0)]}


def parse(svg: str) -> tuple[str, list[str]]:
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    return "".join(root.itertext()), ids


def test_bars_show_their_numbers_and_names():
    svg = bar_chart("head line", BARS, "MRR")
    text, ids = parse(svg)
    for word in ("a<b", "$x$", "one", "two", "0.250", "0.500", "0.125", "MRR"):
        assert word in text, word
    assert "a&lt;b, two: 0.500" in re.search('aria-label="([^"]*)"', svg)[1]
    assert ids
    assert all(name.startswith("head-line-") for name in ids)
    assert set(re.findall(r"url\(#([^)]*)\)", svg)) <= set(ids)


def test_series_differ_without_colour():
    assert "<pattern" in bar_chart("a", BARS, "MRR")  # a hatch
    assert "<pattern" not in bar_chart("a", {"x": {"two": (0.1, None)}}, "MRR")
    dashes = re.findall(r"stroke-dasharray: ([^;]*);", line_chart("b", LINES, "step", "loss"))
    assert dashes


def test_lines_show_their_names():
    text, _ = parse(line_chart("c", LINES, "step", "loss"))
    for word in ("e2e & co", "kd", "step", "loss"):
        assert word in text, word


def test_charts_repeat_byte_for_byte():
    assert bar_chart("a", BARS, "x") == bar_chart("a", BARS, "x")
    assert line_chart("a", LINES, "x", "y") == line_chart("a", LINES, "x", "y")


def test_points_at_zero_are_named():
    text, _ = parse(point_chart("p", [(0, 7), (1, 1000), (100, 1)], "degree", "entities"))
    assert "not shown: 7 at 0" in text
    assert "1,000" in text
    assert "mathdefault" not in text


def test_themed_charts_take_the_colours_of_their_page():
    plain = bar_chart("t", BARS, "MRR", ",.0f")
    chart = themed(plain)
    assert parse(chart)[0] == parse(plain)[0]
    assert "#000000" in plain
    assert not re.findall(r": (#000000|#ffffff)", chart)
    assert "var(--chart-ink" in chart
    assert chart.count("<text fill=") == plain.count("<text ")
