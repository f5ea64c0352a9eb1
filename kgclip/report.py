"""From ``metrics.json`` to a table in the terminal and one HTML page.

The page needs nothing from outside and its bytes repeat: charts are inline SVG without date or
random ids, pictures are data URIs.
"""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.table import Table

from kgclip.charts import bar_chart, line_chart
from kgclip.metrics import check_metrics, summarise, write_at_once
from kgclip.report_text import WORLD, ReportText
from kgclip.tables import GraphError

_METRICS = {"mrr": "MRR", "top1": "first right"}  # these columns come first
_MIME = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".svg": "svg+xml"}


def print_table(
    metrics: Mapping[str, Any], console: Console | None = None, text: ReportText = WORLD
) -> None:
    """Print the most telling columns, mean ± sd, to the terminal.

    Args:
        metrics: As :func:`write_metrics` returns them.
        console: Where to; the default is standard output.
        text: The experiment's words.
    """
    results = metrics["results"]
    keys = _all_keys(results)
    columns = {name: key for name, key in text.columns.items() if key in keys}
    legend = text.legend if columns else ""
    columns = columns or {key.replace("/", " "): key for key in keys[: len(text.columns)]}
    seeds = metrics["seeds"]
    spread = "mean" if len(seeds) == 1 else f"mean ± sd over {len(seeds)} seeds"
    seed = metrics["split_seed"]
    split = "" if seed is None else f", split seed {seed}"
    table = Table(
        box=box.SIMPLE,
        padding=0,
        pad_edge=False,
        caption=f"{spread}{split}. {legend}",
    )
    table.add_column("run", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for run, figures in results.items():
        cells = []
        for key in columns.values():
            figure = figures.get(key)
            parts = [] if figure is None else [_short(figure["mean"])]
            if figure is not None and figure["sd"] is not None:
                parts.append("±" + _short(figure["sd"]))
            cells.append("\n".join(parts))
        table.add_row(run, *cells)
    (console or Console()).print(table)


def write_report(
    path: str | Path,
    metrics: Mapping[str, Any],
    *,
    curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    galleries: Sequence[Mapping[str, Any]] = (),
    credit: str = "",
    text: ReportText = WORLD,
    intro: str = "",
) -> None:
    """Write one HTML page that needs nothing else, at once or not at all.

    Args:
        path: The file.
        metrics: As :func:`write_metrics` returns them.
        curves: Training log by run: mappings with ``step`` and ``loss/…``.
        galleries: By fact: ``title``, and ``rows``: by run the pictures it puts first, each with
            ``path``, ``label`` and ``correct``.
        credit: Licence of the pictures, for the footer; addresses become links.
        text: The experiment's words; splits that it does not know come last.
        intro: A paragraph below the title.

    Raises:
        GraphError: If the metrics have another shape, or a picture cannot be read.
    """
    check_metrics(metrics)
    results = metrics["results"]
    pictures = _Pictures()
    facts = [
        {"title": gallery["title"], "rows": _gallery_rows(gallery["rows"], pictures)}
        for gallery in galleries
    ]
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(resources.files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    page = template.render(
        text=text,
        intro=intro,
        headline=_headline(results, text),
        run_notes={run: text.runs.get(run, "") for run in results},
        num_seeds=len(metrics["seeds"]),
        tables=_lay_out_tables(results, text),
        curves=_curve_charts(curves or {}),
        facts=facts,
        pictures=pictures.uris,
        settings=_settings(metrics),
        credit=credit,
    )
    write_at_once(Path(path), page)


def _lay_out_tables(results: Mapping[str, Any], text: ReportText) -> list[dict[str, Any]]:
    """By split, then task: columns grouped by scoring, and a row of cells for each run."""
    keys = _all_keys(results)
    splits = []
    for split in dict.fromkeys([*text.splits, *(key.split("/")[0] for key in keys)]):
        mine = [key for key in keys if key.startswith(f"{split}/")]
        tasks = dict.fromkeys([*text.tasks, *(key.split("/")[1] for key in mine)])
        laid = [
            _lay_out_task(results, task, [key for key in mine if key.split("/")[1] == task], text)
            for task in tasks
        ]
        if mine:
            splits.append(
                {
                    "title": split.replace("_", " "),
                    "sentence": text.splits.get(split, f"The figures of {split}."),
                    "tasks": [task for task in laid if task["rows"]],
                }
            )
    return splits


def _lay_out_task(
    results: Mapping[str, Any], task: str, keys: Sequence[str], text: ReportText
) -> dict[str, Any]:
    keys = sorted(keys, key=lambda key: key.split("/")[-1] not in _METRICS)
    middles = ["/".join(key.split("/")[2:-1]) for key in keys]
    scorings = [name for name in dict.fromkeys([*text.scorings, *middles]) if name in middles]
    groups = [
        (text.scorings.get(name, name.replace("_", " ")), [keys[i] for i in _places(middles, name)])
        for name in scorings
    ]
    ordered = [key for _, group in groups for key in group]
    best = {
        key: max(figures[key]["mean"] for figures in results.values() if key in figures)
        for key in ordered
    }
    rows = [
        (run, [_cell(figures.get(key), best[key]) for key in ordered])
        for run, figures in results.items()
        if any(key in figures for key in ordered)
    ]
    return {
        "title": text.tasks.get(task, task.replace("_", " ")),
        "groups": [(name, len(group)) for name, group in groups],
        "metrics": [_METRICS.get(key.split("/")[-1], key.split("/")[-1]) for key in ordered],
        "rows": rows,
    }


def _cell(figure: Mapping[str, Any] | None, best: float) -> dict[str, Any] | None:
    if figure is None:
        return None
    summary = summarise(figure["values"])
    half = None if summary.half_width is None else _short(summary.half_width)
    return {"mean": _short(summary.mean), "half": half, "best": summary.mean == best}


def _places(values: Sequence[str], value: str) -> list[int]:
    return [i for i, one in enumerate(values) if one == value]


def _all_keys(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every key of any run, in order of first appearance."""
    return list(dict.fromkeys(key for figures in results.values() for key in figures))


def _short(value: float) -> str:
    """Three digits: ``.307``, ``1.00``, ``12.3``."""
    text = f"{value:.3f}" if abs(value) < 0.9995 else f"{value:.3g}".ljust(4, "0")
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def _settings(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What the last section tells: seeds, training time by run, and all extra entries."""
    seed = metrics["split_seed"]
    rows = {} if seed is None else {"split seed": str(seed)}
    rows["training seeds"] = ", ".join(map(str, metrics["seeds"]))
    for run, seconds in metrics["seconds"].items():
        each = seconds if isinstance(seconds, list) else [seconds]
        rows[f"training {run}"] = f"{statistics.fmean(each):.0f} CPU seconds"
    for name, value in metrics.items():
        if name not in ("split_seed", "seeds", "seconds", "results"):
            rows[name.replace("_", " ")] = value if isinstance(value, str) else json.dumps(value)
    return rows


class _Pictures:
    """Each picture once, however often it is shown."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, path: Path) -> int:
        name = str(path)
        if name not in self._numbers:
            self._numbers[name] = len(self.uris)
            self.uris.append(_data_uri(path))
        return self._numbers[name]


def _data_uri(path: Path) -> str:
    kind = _MIME.get(path.suffix.lower())
    if kind is None:
        raise GraphError(f"{path}: no picture that a page can show, {', '.join(_MIME)} expected")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path}: picture cannot be read ({error.strerror})") from None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _gallery_rows(
    rows: Mapping[str, Iterable[Mapping[str, Any]]], pictures: _Pictures
) -> dict[str, list[dict[str, Any]]]:
    return {
        run: [
            {
                "number": pictures.number(Path(item["path"])),
                "label": item["label"],
                "correct": bool(item["correct"]),
            }
            for item in items
        ]
        for run, items in rows.items()
    }


def headline_chart(metrics: Mapping[str, Any], text: ReportText = WORLD) -> str:
    """The page's first chart as an SVG file of its own.

    Raises:
        GraphError: If the metrics have another shape or hold no figure.
    """
    check_metrics(metrics)
    found = _headline(metrics["results"], text)
    if found is None:
        raise GraphError("metrics: no figure to draw")
    namespace = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = str(found[1])
    return svg if "xmlns=" in svg else svg.replace("<svg", f"<svg {namespace}", 1)


def _headline(results: Mapping[str, Any], text: ReportText) -> tuple[str, Markup] | None:
    """A sentence and bars by run; without the headline's keys, of the first key."""
    keys = _all_keys(results)
    shown = [key for key in text.headline if key in keys] or keys[:1]
    groups: dict[str, dict[str, tuple[float, float | None]]] = {}
    for run, figures in results.items():
        for key in shown:
            if key in figures:
                summary = summarise(figures[key]["values"])
                series = _series(key, shown, text)
                groups.setdefault(run, {})[series] = summary.mean, summary.half_width
    if not groups:
        return None
    if shown[0] not in text.headline:
        return f"Each bar shows {shown[0]} of one method.", bar_chart("headline", groups, shown[0])
    return text.headline_sentence, bar_chart("headline", groups, text.headline_label)


def _series(key: str, shown: Sequence[str], text: ReportText) -> str:
    """What tells a key from the others of the chart: its scoring, else its task."""
    parts = [one.split("/") for one in shown]
    by_scoring = len({one[-2] for one in parts if len(one) > 1}) == len(shown)
    place = -2 if by_scoring else 1
    name = "".join(key.split("/")[place:][:1]) if "/" in key else key
    return text.scorings.get(name, name.replace("_", " ")) if by_scoring else name


def _curve_charts(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Markup]:
    """The losses of each run."""
    charts = {}
    for run, log in curves.items():
        names = dict.fromkeys(key for record in log for key in record if key.startswith("loss/"))
        lines = {
            name.removeprefix("loss/"): [(one["step"], one[name]) for one in log if name in one]
            for name in names
        }
        if lines:
            charts[run] = line_chart(f"curve-{run}", lines, "step", "loss")
    return charts
