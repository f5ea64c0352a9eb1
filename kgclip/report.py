"""From figures by run, key and seed to ``metrics.json``, a terminal table and one HTML page.

A key is ``<split>/<task>/<scoring>/<metric>``. The page needs nothing from outside and its
bytes repeat: charts are inline SVG without date or random ids, pictures are data URIs.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
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
from scipy.special import stdtrit

from kgclip.charts import bar_chart, line_chart
from kgclip.tables import GraphError

OPENMOJI_CREDIT = (
    "Pictures by OpenMoji (https://openmoji.org), the open-source emoji and icon project, "
    "rendered to PNG, licence CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)."
)
SPLITS = {
    "new_entities": "How often a model is right about countries it has never seen a fact about: "
    "it gets their borders, capital and demonym only when asked, and must find region, "
    "subregion, currency and language.",
    "new_entities_no_overlap": "The same questions, without facts whose words give the answer "
    "away, as Malaysia and the Malaysian ringgit do.",
    "known_facts": "How often a model connects a flag with a fact that it has read in the graph, "
    "though flag and fact never stood side by side.",
    "unseen_pictures": "How well a model names emoji, and finds their subgroup, when neither "
    "they nor their relatives were ever pictured in training.",
    "flags": "Whether a model still knows which flag has which name: all of these it has seen.",
}
RUNS = {
    "clip": "picture and name pairs only",
    "clip_matched": "clip with more steps, as much computing as knowledge",
    "verbalised": "clip + every fact as a pair of texts",
    "verbalised_matched": "verbalised with as much computing as knowledge",
    "propagation": "verbalised + the mean of the neighbours in the graph, not trained",
    "symbolic": "clip finds the entity, then the fact is looked up or the neighbours vote",
    "lexical": "letters that names share, no model of facts",
    "knowledge": "the graph method: facts, and a network over the graph",
    "knowledge_mean": "knowledge, its network replaced by the mean of the neighbours",
    "knowledge_rewired": "knowledge, its graph scrambled: shows whether the graph is used",
    "walk": "a random walk over facts and edges between like names and flags, not trained",
    "paths": "a trained model of paths over the same edges as walk",
}
TASKS = {
    "fact_to_image": "From a fact to the picture",
    "image_to_fact": "From the picture to a fact",
    "retrieval": "Between picture and name",
    "subgroup": "From the picture to its subgroup",
    "link": "From the picture to its entity",
}
SCORINGS = {
    "encoder": "no graph",
    "linked": "picture linked to the graph",
    "given": "entity told",
}
HEADLINE = ("new_entities/fact_to_image/encoder/mrr", "new_entities/fact_to_image/linked/mrr")
HEADLINE_SENTENCE = (
    "Each bar shows how near the top a method puts the right flag when it is asked for a fact "
    "about countries of which it read no fact in training: longer is better."
)
KEY_COLUMNS = {
    "flags R@1": "flags/retrieval/encoder/recall@1",
    "known f→i enc": "known_facts/fact_to_image/encoder/mrr",
    "known f→i link": "known_facts/fact_to_image/linked/mrr",
    "new f→i enc": "new_entities/fact_to_image/encoder/mrr",
    "new f→i link": "new_entities/fact_to_image/linked/mrr",
    "new f→i given": "new_entities/fact_to_image/given/mrr",
    "new i→f link": "new_entities/image_to_fact/linked/mrr",
    "new* f→i link": "new_entities_no_overlap/fact_to_image/linked/mrr",
    "emoji class": "unseen_pictures/subgroup/encoder/top1",
    "emoji R@10": "unseen_pictures/retrieval/encoder/recall@10",
}
_KEY_LEGEND = (
    "f→i: from a fact to the flag, i→f: back, MRR. enc: no graph; link: the model links the flag "
    "to the graph; given: the country is told. *: without facts whose words give them away. "
    "emoji: unseen pictures."
)
_METRICS = {"mrr": "MRR", "top1": "first right"}  # these columns come first
_CONFIDENCE = 0.95
_MIME = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".svg": "svg+xml"}


@dataclasses.dataclass(frozen=True)
class Summary:
    """One figure over the seeds.

    Attributes:
        mean: Their mean.
        sd: Sample standard deviation (n - 1); ``None`` with one seed.
        half_width: Half of the 95 % interval of the mean; ``None`` with one seed.
    """

    mean: float
    sd: float | None
    half_width: float | None


def summarise(values_by_seed: Sequence[float]) -> Summary:
    """Mean, spread and 95 % interval (Student's t) of a figure over the seeds.

    Raises:
        ValueError: If there is no value, or one is not finite.
    """
    if not values_by_seed or not all(math.isfinite(value) for value in values_by_seed):
        raise ValueError(f"values: {list(values_by_seed)} given, finite numbers expected")
    mean, count = statistics.fmean(values_by_seed), len(values_by_seed)
    if count == 1:
        return Summary(mean, None, None)
    sd = statistics.stdev(values_by_seed)
    quantile = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2))
    return Summary(mean, sd, quantile * sd / math.sqrt(count))


def write_metrics(
    path: str | Path,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    split_seed: int,
    seeds: Sequence[int],
    seconds: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``metrics.json``, at once or not at all.

    Args:
        path: The file.
        values: One value a seed, by run and key.
        split_seed: What was held out.
        seeds: Of the trainings.
        seconds: Process CPU seconds of training, by run: a number, or one a seed.
        extra: More top-level entries: versions, command, machine, date. Never part of
            ``results``, so that these repeat.

    Returns:
        What was written: ``split_seed``, ``seeds``, ``seconds``, ``results`` (``mean``, ``sd``
        and ``values`` by run and key; ``sd`` is null with one seed), and ``extra``.

    Raises:
        GraphError: If a figure is not finite or has not one value a seed.
    """
    results: dict[str, dict[str, Any]] = {}
    for run, figures in values.items():
        results[run] = {}
        for key, numbers in sorted(figures.items()):
            if not numbers or not all(math.isfinite(number) for number in numbers):
                raise GraphError(
                    f"{path}: {run}, {key}: {list(numbers)} given, finite numbers expected; "
                    "did the training diverge?"
                )
            summary = summarise(numbers)
            results[run][key] = {"mean": summary.mean, "sd": summary.sd, "values": [*numbers]}
    metrics = {
        "split_seed": split_seed,
        "seeds": list(seeds),
        "seconds": dict(seconds),
        **(extra or {}),
        "results": results,
    }
    check_metrics(metrics, str(path))
    _write(Path(path), json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics


def load_metrics(path: str | Path) -> dict[str, Any]:
    """Read and check a ``metrics.json``.

    Raises:
        GraphError: If it is no such file.
    """
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GraphError(f"{path}: no such file, metrics.json expected") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise GraphError(f"{path}: no JSON ({error}); write it again") from None
    check_metrics(metrics, str(path))
    return metrics  # type: ignore[no-any-return]  # checked above


def check_metrics(metrics: Any, where: str = "metrics") -> None:
    """Raise GraphError unless ``metrics`` has the shape that :func:`write_metrics` returns."""
    entries = {"split_seed": int, "seeds": list, "seconds": dict, "results": dict}
    for name, kind in entries.items():
        _check_kind(where, name, metrics.get(name) if isinstance(metrics, dict) else None, kind)
    for run, figures in metrics["results"].items():
        _check_kind(where, run, figures, dict)
        for key, figure in figures.items():
            _check_kind(where, f"{run}, {key}", figure, dict)
            if set(figure) != {"mean", "sd", "values"}:
                raise GraphError(
                    f"{where}: {run}, {key}: {sorted(figure)} given, mean, sd and values expected"
                )
            if len(figure["values"]) != len(metrics["seeds"]):
                raise GraphError(
                    f"{where}: {run}, {key}: {len(figure['values'])} values given, "
                    f"{len(metrics['seeds'])} expected, one a seed"
                )


def _check_kind(where: str, name: str, given: object, kind: type) -> None:
    if not isinstance(given, kind):
        raise GraphError(
            f"{where}: {name}: {type(given).__name__} given, {kind.__name__} expected; "
            "write it with kgclip.report.write_metrics"
        )


def print_table(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the most telling columns, mean ± sd, to the terminal.

    Args:
        metrics: As :func:`write_metrics` returns them.
        console: Where to; the default is standard output.
    """
    results = metrics["results"]
    keys = _all_keys(results)
    columns = {name: key for name, key in KEY_COLUMNS.items() if key in keys}
    legend = _KEY_LEGEND if columns else ""
    columns = columns or {key.replace("/", " "): key for key in keys[: len(KEY_COLUMNS)]}
    seeds = metrics["seeds"]
    spread = "mean" if len(seeds) == 1 else f"mean ± sd over {len(seeds)} seeds"
    table = Table(
        box=box.SIMPLE,
        padding=0,
        pad_edge=False,
        caption=f"{spread}, split seed {metrics['split_seed']}. {legend}",
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
    title: str = "What a knowledge graph adds to CLIP",
    intro: str = "",
    tables: Mapping[str, str] | None = None,
) -> None:
    """Write one HTML page that needs nothing else, at once or not at all.

    Args:
        path: The file.
        metrics: As :func:`write_metrics` returns them.
        curves: Training log by run: mappings with ``step`` and ``loss/…``.
        galleries: By fact: ``title``, and ``rows``: by run the pictures it puts first, each with
            ``path``, ``label`` and ``correct``.
        credit: Licence of the pictures, for the footer; addresses become links.
        title: Of the page.
        intro: A paragraph below the title.
        tables: Which splits have a table, in which order, and the sentence above each; the
            default is :data:`SPLITS`, then any other split of the results.

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
        title=title,
        intro=intro,
        headline=_headline(results),
        run_notes={run: RUNS.get(run, "") for run in results},
        num_seeds=len(metrics["seeds"]),
        tables=_lay_out_tables(results, SPLITS if tables is None else tables),
        curves=_curve_charts(curves or {}),
        facts=facts,
        pictures=pictures.uris,
        settings=_settings(metrics),
        credit=credit,
    )
    _write(Path(path), page)


def _lay_out_tables(
    results: Mapping[str, Any], sentences: Mapping[str, str]
) -> list[dict[str, Any]]:
    """By split, then task: columns grouped by scoring, and a row of cells for each run."""
    keys = _all_keys(results)
    others = [key.split("/")[0] for key in keys] if sentences is SPLITS else []
    splits = []
    for split in dict.fromkeys([*sentences, *others]):
        mine = [key for key in keys if key.startswith(f"{split}/")]
        tasks = dict.fromkeys([*TASKS, *(key.split("/")[1] for key in mine)])
        laid = [
            _lay_out_task(results, task, [key for key in mine if key.split("/")[1] == task])
            for task in tasks
        ]
        if mine:
            splits.append(
                {
                    "title": split.replace("_", " "),
                    "sentence": sentences.get(split, f"The figures of {split}."),
                    "tasks": [task for task in laid if task["rows"]],
                }
            )
    return splits


def _lay_out_task(results: Mapping[str, Any], task: str, keys: Sequence[str]) -> dict[str, Any]:
    keys = sorted(keys, key=lambda key: key.split("/")[-1] not in _METRICS)
    middles = ["/".join(key.split("/")[2:-1]) for key in keys]
    scorings = [name for name in dict.fromkeys([*SCORINGS, *middles]) if name in middles]
    groups = [
        (SCORINGS.get(name, name.replace("_", " ")), [keys[i] for i in _places(middles, name)])
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
        "title": TASKS.get(task, task.replace("_", " ")),
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
    rows = {
        "split seed": str(metrics["split_seed"]),
        "training seeds": ", ".join(map(str, metrics["seeds"])),
    }
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


def headline_chart(metrics: Mapping[str, Any]) -> str:
    """The page's first chart as an SVG file of its own.

    Raises:
        GraphError: If the metrics have another shape or hold no figure.
    """
    check_metrics(metrics)
    found = _headline(metrics["results"])
    if found is None:
        raise GraphError("metrics: no figure to draw")
    namespace = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = str(found[1])
    return svg if "xmlns=" in svg else svg.replace("<svg", f"<svg {namespace}", 1)


def _headline(results: Mapping[str, Any]) -> tuple[str, Markup] | None:
    """A sentence and bars by run; without the headline's keys, of the first key."""
    keys = _all_keys(results)
    shown = [key for key in HEADLINE if key in keys] or keys[:1]
    groups: dict[str, dict[str, tuple[float, float | None]]] = {}
    for run, figures in results.items():
        for key in shown:
            if key in figures:
                summary = summarise(figures[key]["values"])
                series = SCORINGS.get("".join(key.split("/")[-2:-1]), key)
                groups.setdefault(run, {})[series] = summary.mean, summary.half_width
    if not groups:
        return None
    if shown[0] not in HEADLINE:
        return f"Each bar shows {shown[0]} of one method.", bar_chart("headline", groups, shown[0])
    return HEADLINE_SENTENCE, bar_chart("headline", groups, "MRR (1 = the right flag always first)")


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


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
