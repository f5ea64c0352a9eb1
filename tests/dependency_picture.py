"""Draw ``docs/dependencies.svg`` from LAYOUT: which part of kgclip may import which.

The pages' build runs it (``hooks`` in ``mkdocs.yml``), so that the picture is never out of date.

A package stands for its modules. Parts stand on the first row that is above all they import.
"""

from __future__ import annotations

import graphlib
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tests.test_layout import LAYOUT, TENSOR, allowed, reachable

TARGET = Path(__file__).parent.parent / "docs" / "dependencies.svg"
WIDTH, ROW, BOX, GAP, PER_ROW = 1040, 74, 104, 11, 9


def parts() -> dict[str, set[str]]:
    """Part: the parts that it may import; a package's cycles inside do not count."""
    modules = {module: module.partition(".")[0] for module in LAYOUT if module != "kgclip"}
    found: dict[str, set[str]] = {part: set() for part in modules.values()}
    for module, part in modules.items():
        found[part] |= {modules[name] for name in allowed(module) if name in modules} - {part}
    return found


def rows(found: dict[str, set[str]]) -> list[list[str]]:
    """Parts by height, each above all that it imports; wide rows are cut."""
    groups = merged(found)
    height: dict[str, int] = {}
    for part in graphlib.TopologicalSorter(groups).static_order():
        height[part] = max((height[other] + 1 for other in groups[part]), default=0)
    levels: list[list[str]] = [[] for _ in range(max(height.values()) + 1)]
    for part in sorted(height):
        levels[height[part]].append(part)
    return [level[i : i + PER_ROW] for level in levels for i in range(0, len(level), PER_ROW)]


def merged(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Parts whose modules import each other both ways are ordered by the busier direction."""
    count = {
        (a, b): sum(
            name.partition(".")[0] == b
            for module in LAYOUT
            if module.partition(".")[0] == a
            for name in allowed(module)
        )
        for a in found
        for b in found[a]
    }
    return {
        a: {b for b in others if count[a, b] > count.get((b, a), 0) or (b, a) not in count}
        for a, others in found.items()
    }


def draw() -> str:
    """The picture as SVG; the same LAYOUT gives the same bytes."""
    found = parts()
    levels = rows(found)
    place = {
        part: (
            (WIDTH - len(level) * (BOX + GAP) + GAP) / 2 + column * (BOX + GAP) + BOX / 2,
            (len(levels) - 1 - height) * ROW + 40,
        )
        for height, level in enumerate(levels)
        for column, part in enumerate(level)
    }
    lines, boxes = [], []
    for part, others in sorted(found.items()):
        x, y = place[part]
        for other in sorted(others):
            u, v = place[other]
            curve = f"M{x:g} {y + 15:g}C{x:g} {y + 40:g} {u:g} {v - 40:g} {u:g} {v - 15:g}"
            lines.append(f'<path d="{curve}"/>')
        modules = [m for m in LAYOUT if m.partition(".")[0] == part]
        tensor = any(reachable(module) & TENSOR for module in modules)
        boxes.append(
            f'<rect x="{x - BOX / 2:g}" y="{y - 15:g}" width="{BOX}" height="30" rx="5" '
            f'class="{"tensor" if tensor else "graph"}"/>'
            f'<text x="{x:g}" y="{y + 4:g}">{escape(part)}</text>'
        )
    height = len(levels) * ROW + 40
    legend = (
        f'<text x="{WIDTH / 2:g}" y="{height - 12}">green: graph half, no torch · '
        "blue: some of its modules need torch · a line leads down to what may be imported</text>"
    )
    style = (
        "text{font:11px sans-serif;text-anchor:middle;fill:#1a1a1a}"
        "path{fill:none;stroke:#888;stroke-opacity:.35}"
        ".graph{fill:#d9ead3;stroke:#38761d}.tensor{fill:#d5e4f2;stroke:#1f4e79}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>Which part of kgclip may import which</title><style>{style}</style>"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join([*lines, *boxes, legend])
        + "\n</svg>\n"
    )


def on_pre_build(**_: Any) -> None:
    """Write the picture before the pages are built; mkdocs calls this."""
    picture = draw()
    if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != picture:
        TARGET.write_text(picture, encoding="utf-8")
