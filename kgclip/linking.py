"""Captions to entities: which entities of a graph does a text mention?

The longest label that matches wins, from left to right; what several entities are called is
reported with its number of candidates, never guessed silently.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np
import polars as pl

from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables

MENTIONS = {
    "caption": pl.Int64(),
    "entity": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "num_candidates": pl.Int64(),
}
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_Key = tuple[str, ...]


def link_captions(
    captions: Sequence[str],
    graph: KnowledgeGraph,
    kinds: Sequence[str] = ("label", "alias"),
    plurals: bool = True,
    stop_words: Sequence[str] = (),
) -> pl.DataFrame:
    """Find the entities that captions mention.

    Args:
        captions: Texts.
        graph: Its texts are what is looked for; an entity without one is its readable name.
        kinds: Kinds of texts that name an entity.
        plurals: Also match a last word with an English "s" or "es" too many or too few.
        stop_words: Labels that are never matched, such as "a".

    Returns:
        One row a mention and candidate: ``caption`` (row), ``entity`` (id), ``start`` and ``end``
        (characters of the caption), ``num_candidates`` (1 = unambiguous). Mentions do not
        overlap.

    Raises:
        ValueError: If a kind is unknown to the graph's texts table.
    """
    names = _names(graph, kinds, plurals, {word.casefold() for word in stop_words})
    longest = max(map(len, names), default=0)
    rows: list[tuple[int, int, int, int, int]] = []
    for number, caption in enumerate(captions):
        found = list(_WORD.finditer(caption))
        words = [match.group().casefold() for match in found]
        place = 0
        while place < len(words):
            length, entities = _longest_match(words, place, longest, names, plurals)
            if not length:
                place += 1
                continue
            start, end = found[place].start(), found[place + length - 1].end()
            rows += [(number, entity, start, end, len(entities)) for entity in entities]
            place += length
    return pl.DataFrame(rows, schema=MENTIONS, orient="row")


def add_mentions(
    graph: KnowledgeGraph,
    relation: str = "mentions",
    types: Sequence[str] | None = None,
    kinds: Sequence[str] = ("label", "alias"),
    stop_words: Sequence[str] = (),
) -> KnowledgeGraph:
    """Join each entity that has captions with the entities that they mention.

    Then whatever reads triples knows what a caption speaks of: messages carry the facts about a
    dog to the pictures of dogs, and ``similarity = "neighbors"`` finds pictures of like things.

    Args:
        graph: With texts of kind "caption".
        relation: Name of the new triples' relation; it is their ``source`` too.
        types: Only entities of these types are looked for; ``None`` = all that belong to no
            scene and are no captions themselves.
        kinds: Kinds of texts that name an entity.
        stop_words: Labels that are never matched, such as "a".

    Returns:
        The graph with one triple more for each entity and each other that it mentions. What
        several entities are called is left out, and counted in a warning.
    """
    captions = graph.texts.filter(pl.col("kind") == "caption")
    is_candidate = (
        pl.col("scene").is_null() & pl.col("type").is_in(["caption", "scene", "image"]).not_()
        if types is None
        else pl.col("type").is_in(list(types))
    )
    wanted = graph.entities.select(is_candidate.fill_null(types is None)).to_series().to_numpy()
    named = graph.restrict(wanted)
    ids = pl.Series(np.flatnonzero(wanted), dtype=pl.Int64())
    found = link_captions(captions["text"].to_list(), named, kinds, stop_words=stop_words)
    ambiguous = found.filter(pl.col("num_candidates") > 1).unique(["caption", "start"])
    if len(ambiguous):
        warnings.warn(
            f"{len(ambiguous)} mentions left out: several entities are called so", stacklevel=2
        )
    sure = found.filter(pl.col("num_candidates") == 1)
    pairs = pl.DataFrame(
        {"head": captions["entity"].gather(sure["caption"]), "tail": ids.gather(sure["entity"])}
    ).unique(maintain_order=True)
    names = graph.entities["name"]
    new = KnowledgeGraph.from_triples(
        (names[head], relation, names[tail]) for head, tail in pairs.iter_rows()
    )
    triples = new.triples.with_columns(source=pl.lit(relation))
    frames = {**new.tables.frames(), "triples": triples}
    return graph.merge(KnowledgeGraph(build_tables(frames)))


def _names(
    graph: KnowledgeGraph, kinds: Sequence[str], plurals: bool, stop_words: set[str]
) -> dict[_Key, list[int]]:
    known = {"label", "alias", "description", "caption"}
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"kinds: {kind!r} given, of {', '.join(sorted(known))} expected")
    texts = graph.texts.filter(pl.col("kind").is_in(list(kinds))).select("entity", "text")
    named = set(texts["entity"])
    labels = enumerate(graph.labels())
    pairs = [*texts.iter_rows(), *((e, label) for e, label in labels if e not in named)]
    names: dict[_Key, dict[int, None]] = {}
    for entity, text in pairs:
        key = tuple(match.group().casefold() for match in _WORD.finditer(text))
        if key and " ".join(key) not in stop_words:
            names.setdefault(_singular(key) if plurals else key, {})[entity] = None
    return {key: list(entities) for key, entities in names.items()}


def _longest_match(
    words: Sequence[str], place: int, longest: int, names: dict[_Key, list[int]], plurals: bool
) -> tuple[int, list[int]]:
    for length in range(min(longest, len(words) - place), 0, -1):
        key = tuple(words[place : place + length])
        entities = names.get(_singular(key) if plurals else key)
        if entities:
            return length, entities
    return 0, []


def _singular(key: _Key) -> _Key:
    """The key with its last word in one form for singular and plural."""
    last = key[-1]
    for ending, least in (("ies", 5), ("es", 5), ("s", 4)):
        if len(last) >= least and last.endswith(ending) and not last.endswith("ss"):
            last = last.removesuffix(ending) + ("y" if ending == "ies" else "")
            break
    return (*key[:-1], last.removesuffix("e"))
