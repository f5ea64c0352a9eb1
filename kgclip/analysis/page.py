"""Findings as one self-contained page: what is this graph, can I trust it, what is missing?

The page needs nothing from outside, follows the reader's light or dark mode, prints in black on
white, and its bytes repeat.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from kgclip.analysis.findings import Section
from kgclip.charts import bar_chart, point_chart, themed

NUM_BARS = 15
TITLES = {
    "graph": "What is this graph?",
    "structure": "How does it hang together?",
    "trust": "Can I trust it?",
    "missing": "What is missing?",
    "entity": "One entity",
    "embedding": "Where does the embedding disagree with the graph?",
}
_KINDS = (
    "seen: the triple itself is in training; mirrored: with head and tail swapped; inverse: "
    "another relation backwards; same pair: another relation forwards; rule: two triples imply it"
)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What a section shows: sentences, charts by caption, and tables by title with a note."""

    sentences: list[str]
    charts: dict[str, Markup]
    tables: dict[str, tuple[pl.DataFrame, str]]


def write_page(path: str | Path, findings: Mapping[str, Section], title: str) -> None:
    """Write the page.

    Args:
        path: HTML file.
        findings: From :func:`kgclip.analysis.findings.analyse_graph`.
        title: Name of the graph.
    """
    source = resources.files("kgclip.analysis").joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    sections = []
    for name, found in findings.items():
        shown = _SECTIONS[name](found)
        sections.append(
            {
                "name": name,
                "title": TITLES[name],
                "sentences": shown.sentences,
                "charts": {caption: themed(chart) for caption, chart in shown.charts.items()},
                "tables": [
                    _table(caption, frame, note)
                    for caption, (frame, note) in shown.tables.items()
                    if len(frame)
                ],
            }
        )
    counts = findings["graph"]
    text = environment.from_string(source).render(
        title=title,
        intro=f"{counts['num_entities']:,} entities, {counts['num_relations']:,} relations, "
        f"{counts['num_triples']:,} triples.",
        sections=sections,
        footer="Made by kgclip analyse"
        + (f" from {', '.join(counts['origins'])}" if counts["origins"] else ""),
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def _table(title: str, frame: pl.DataFrame, note: str) -> dict[str, Any]:
    numeric = {name for name, kind in frame.schema.items() if kind.is_numeric()}
    return {
        "title": title,
        "note": note,
        "columns": [
            {"name": name.replace("_", " "), "number": name in numeric} for name in frame.columns
        ],
        "rows": [[_cell(value) for value in row] for row in frame.iter_rows()],
    }


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.001 or not value else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bars(name: str, frame: pl.DataFrame, key: str, values: tuple[str, ...], label: str) -> Markup:
    """A bar a row, or one for each of several values."""
    form = ",.0f" if all(frame[value].dtype.is_integer() for value in values) else ".3f"
    groups = {
        str(row[key]): {value.replace("_", " "): (float(row[value]), None) for value in values}
        for row in frame.head(NUM_BARS).to_dicts()
    }
    return bar_chart(name, groups, label, form)


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})" if whole else f"{part:,} of 0"


def _show_graph(found: Section) -> _Shown:
    relations = found["relations_by_triples"]
    parts = ", ".join(f"{n:,} {split or 'without a split'}" for split, n in found["splits"].rows())
    sentences = [
        f"Triples: {parts}.",
        f"{found['num_texts']:,} texts, {found['num_images']:,} pictures, "
        f"{found['num_literals']:,} literals and {found['num_links']:,} links describe the "
        f"entities; {found['num_entity_types']:,} different types.",
    ]
    charts = {"Triples by relation": _bars("relations", relations, "name", ("triples",), "triples")}
    columns = (
        *("name", "triples", "heads", "tails", "tails_per_head", "heads_per_tail"),
        *("cardinality", "loops", "symmetry"),
    )
    note = "cardinality from head to tail, symmetry: share whose mirror image is there too"
    return _Shown(
        sentences,
        charts,
        {
            "Relations": (relations.select(columns), note),
            "Types": (found["types"], "most frequent first"),
            "Which relation leads from what to what": (found["schema"], "most triples first"),
        },
    )


def _show_structure(found: Section) -> _Shown:
    total = int(found["degree_distribution"]["entities"].sum())
    sentences = [
        f"{_share(found['largest_component'], total)} entities are in the largest of "
        f"{found['num_components']:,} connected components; {found['num_isolated']:,} have no "
        "triple.",
        f"An entity has {found['mean_degree']:.1f} triples on average; the densest core asks for "
        f"{found['max_core']:,} neighbours of each member.",
        f"{found['num_communities']:,} communities, modularity {found['modularity']:.2f} (Leiden); "
        f"mean clustering coefficient {found['mean_clustering']:.3f}; {found['num_bridges']:,} "
        "bridges, without which a component falls in two.",
    ]
    points = [(float(x), float(y)) for x, y in found["degree_distribution"].rows()]
    charts = {
        "Entities by degree": point_chart(
            "degrees", points, "degree (triples of an entity)", "entities"
        )
    }
    return _Shown(
        sentences,
        charts,
        {
            "Most central entities": (found["central"], "betweenness estimated from 64 sources"),
            "Largest communities": (found["communities"], ""),
        },
    )


def _show_trust(found: Section) -> _Shown:
    sentences = [
        f"{part}: {_share(given, asked)} triples are given away by what is seen in training."
        for part, asked, given in found["asked"].rows()
    ] or ["No triple is held out; the rows of the part “all” could leak under a random split."]
    sentences += [*found["warnings"]]
    charts = {}
    leaking = found["leakage"].filter(pl.col("found") > 0)
    if len(leaking):
        parts = set(leaking["part"])
        first = next(part for part in ("test", "valid", "all") if part in parts)
        worst = leaking.filter(pl.col("part") == first).sort("found", descending=True)
        evidence = pl.when(pl.col("kind") == "rule").then(None).otherwise("evidence")
        named = worst.with_columns(
            row=pl.concat_str("kind", "relation", evidence, separator=" · ", ignore_nulls=True)
        )
        caption = f"What leaks, part “{first}”"
        charts[caption] = _bars("leakage", named, "row", ("found",), "triples given away")
    return _Shown(
        sentences,
        charts,
        {
            "Leakage": (found["leakage"], _KINDS),
            "Heads and tails that share a word": (found["shared_words"], "its first four letters"),
            "Rules": (found["rules"], "of the whole graph, surest first"),
        },
    )


def _show_missing(found: Section) -> _Shown:
    everything = found["by_type"].row(0, named=True)
    sentences = [
        f"{_share(found['num_with_text'], everything['entities'])} entities have a text"
        + (", so nothing can be encoded as text." if not found["num_with_text"] else "."),
        f"{_share(found['num_with_image'], everything['entities'])} entities have a picture"
        + (", so nothing can be encoded as a picture." if not found["num_with_image"] else "."),
    ]
    if "num_alike_pictures" in found:
        sentences.append(
            f"{found['num_unreadable_pictures']:,} pictures cannot be read; "
            f"{found['num_alike_pictures']:,} pairs look alike, "
            f"{found['num_same_pictures']:,} of them byte for byte."
        )
    columns = ("entities", "with_text", "with_image")
    charts = {
        "Entities with a text and with a picture, by type": _bars(
            "coverage", found["by_type"], "type", columns, "entities"
        )
    }
    return _Shown(
        sentences,
        charts,
        {
            "By relation": (found["by_relation"], "entities that are its head or tail"),
            "Texts by language": (found["languages"], "– where it is not said"),
            "Without a text": (found["without_text"], "most triples first"),
            "Without a picture": (found["without_image"], "most triples first"),
            "Pictures of different entities that look alike": (
                found.get("alike_pictures", pl.DataFrame()),
                "distance: of 64 bits, colours do not count",
            ),
        },
    )


def _show_entity(found: Section) -> _Shown:
    tables = {f"Near {found['entity']}": (found["near"], "personalised PageRank")}
    sentences = [f"A walker who starts anew at {found['entity']} is most often at these entities."]
    if "paths" in found:
        tables[f"From {found['entity']} to {found['other']}"] = (
            found["paths"],
            "at most 3 triples",
        )
        sentences.append(f"{len(found['paths'])} relation sequences lead to {found['other']}.")
    return _Shown(sentences, {}, tables)


def _show_embedding(found: Section) -> _Shown:
    correlation = found["correlation"]
    said = "cannot be computed" if math.isnan(correlation) else f"is {correlation:.3f}"
    labelled = found["by_hops"].with_columns(
        row=pl.concat_str(
            pl.col("hops").cast(pl.String()).fill_null("more"),
            pl.lit(" ("), pl.col("pairs"), pl.lit(" pairs)"),
        )
    )  # fmt: skip
    positive = labelled.with_columns(pl.col("similarity").clip(lower_bound=0))
    return _Shown(
        [f"Spearman's correlation of hops and cosine {said}; agreement is negative."],
        {
            "Mean cosine by distance in the graph": _bars(
                "hops", positive, "row", ("similarity",), "mean cosine (0 where negative)"
            )
        },
        {
            "By distance": (found["by_hops"], "hops –: further, or not connected"),
            "Strongest disagreements": (
                found["disagreements"],
                "apart: neighbours least alike; alike: far entities most alike",
            ),
            "Nearly the same vector": (found["alike"], "near duplicates by embedding"),
        },
    )


_SECTIONS: Mapping[str, Callable[[Section], _Shown]] = {
    "graph": _show_graph,
    "structure": _show_structure,
    "trust": _show_trust,
    "missing": _show_missing,
    "entity": _show_entity,
    "embedding": _show_embedding,
}
