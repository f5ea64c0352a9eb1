"""Horn rules with one or two atoms in the body: what follows from what, and how surely.

A rule reads ``locatedin(x, y) ⇐ neighbor(x, z) ∧ locatedin(z, y)``. Every relation also counts
backwards, so that each rule has exactly one form. Variables may stand for the same entity, and
duplicate triples count once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from kgclip.analysis.adjacency import rows_of
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError

_CHUNK = 2_000_000  # paths that are looked at together: about 200 MB


def mine_rules(
    graph: KnowledgeGraph,
    *,
    min_support: int = 10,
    min_confidence: float = 0.1,
    max_length: int = 2,
) -> pl.DataFrame:
    """Find all rules that hold often enough.

    Args:
        graph: Any graph; all its triples count, whatever their split.
        min_support: Pairs (x, y) of which both body and head are known.
        min_confidence: Least PCA confidence. In [0, 1].
        max_length: Atoms in the body, 1 or 2.

    Returns:
        ``rule``, ``head``, ``body`` (relation names, an inverse one with "⁻¹" behind it) and
        ``length``; ``support``; ``head_coverage`` (support by pairs of the head); ``confidence``
        (support by pairs of the body) and ``pca_confidence`` (only pairs count against a rule
        whose x has some known y; what is unknown elsewhere may yet be true). Best PCA confidence
        first.

    Raises:
        GraphError: If a limit is outside its range.

    Reference:
        Galárraga et al., AMIE+, VLDB Journal 2015, for the measures.
    """
    if min_support < 1 or not 0 <= min_confidence <= 1 or max_length not in (1, 2):
        raise GraphError(
            f"min_support {min_support}, min_confidence {min_confidence}, max_length "
            f"{max_length}; expected at least 1, a share in [0, 1], and 1 or 2"
        )
    triples = graph.triples.select("head", "relation", "tail").unique(maintain_order=True)
    found = _supports(triples, graph.num_relations, max_length)
    found = found.filter(pl.col("support") >= min_support)
    measured = _measure(found, triples, graph)
    return (
        _named(measured.filter(pl.col("pca_confidence") >= min_confidence), graph)
        .sort(["pca_confidence", "support", "rule"], descending=[True, True, False])
        .select(
            *("rule", "head", "body", "length"),
            *("support", "head_coverage", "confidence", "pca_confidence"),
        )
    )


def follow_rules(graph: KnowledgeGraph, rules: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """Which of some triples are implied by which rules.

    Args:
        graph: What the bodies of the rules are looked up in.
        rules: As :func:`mine_rules` returns them, with any further columns.
        asked: ``triple`` (any number of its own), ``head``, ``relation`` and ``tail`` ids.

    Returns:
        ``triple`` and the columns of the rules, a row for each rule that implies the triple.
    """
    names = graph.relations["name"].to_list()
    step = {word: i for i, word in enumerate([*names, *(f"{name}⁻¹" for name in names)])}
    bodies = [[step[word] for word in body] for body in rules["body"]]
    known = rules.with_columns(
        relation=pl.Series([step[head] for head in rules["head"]], dtype=pl.Int64()),
        first=pl.Series([body[0] for body in bodies], dtype=pl.Int64()),
        second=pl.Series([(*body, -1)[1] for body in bodies], dtype=pl.Int64()),
    )
    triples = graph.triples.select("head", "relation", "tail").unique(maintain_order=True)
    pairs = asked.select("head", "tail").unique(maintain_order=True).with_row_index("pair")
    questions = asked.join(pairs, on=["head", "tail"]).select("triple", "relation", "pair")
    keys = ["relation", "first", "second"]
    found = [
        paths.join(questions, on="pair").join(known, on=keys).drop("pair", *keys)
        for paths in _bodies(pairs, _steps(triples, len(names)), len(names), 2)
    ]
    return pl.concat(found)


def _supports(triples: pl.DataFrame, num_relations: int, max_length: int) -> pl.DataFrame:
    """Number of pairs that a head and a body share: ``relation``, ``first``, ``second``."""
    pairs = triples.select("head", "tail").unique(maintain_order=True).with_row_index("pair")
    asked = triples.join(pairs, on=["head", "tail"]).select("pair", "relation")
    steps = _steps(triples, num_relations)
    counts = [
        paths.join(asked, on="pair")
        .filter((pl.col("first") != pl.col("relation")) | (pl.col("second") >= 0))
        .group_by("relation", "first", "second")
        .agg(support=pl.len())
        for paths in _bodies(pairs, steps, num_relations, max_length)
    ]
    columns = ("relation", "first", "second", pl.col("support").cast(pl.Int64))
    return (
        pl.concat([frame.select(columns) for frame in counts])
        .group_by("relation", "first", "second")
        .agg(pl.col("support").sum())
    )


def _steps(triples: pl.DataFrame, num_relations: int) -> pl.DataFrame:
    """Both directions of every triple; a step against relation r has the number R + r."""
    back = pl.col("relation") + num_relations
    return pl.concat(
        [
            triples.select(pl.col("head").alias("from"), step="relation", to="tail"),
            triples.select(pl.col("tail").alias("from"), step=back, to="head"),
        ]
    )


def _bodies(
    pairs: pl.DataFrame, steps: pl.DataFrame, num_relations: int, max_length: int
) -> Iterator[pl.DataFrame]:
    """Different (``pair``, ``first``, ``second``) that connect the pairs; second is -1 if alone."""
    one = pairs.join(steps, left_on=["head", "tail"], right_on=["from", "to"])
    yield one.select("pair", first="step", second=pl.lit(-1, pl.Int64()))
    if max_length == 2:
        yield from _paths(pairs, steps, num_relations)


def _paths(pairs: pl.DataFrame, steps: pl.DataFrame, num_relations: int) -> Iterator[pl.DataFrame]:
    """Different (``pair``, ``first``, ``second``) of two steps from head to tail, in chunks.

    Paths are followed from whichever end has fewer steps.
    """
    fan = steps.group_by("from").len("fan")
    sized = (
        pairs.join(fan, left_on="head", right_on="from")
        .join(fan, left_on="tail", right_on="from", suffix="_tail")
        .with_columns(turned=pl.col("fan_tail") < pl.col("fan"))
        .with_columns(
            near=pl.when("turned").then("tail").otherwise("head"),
            far=pl.when("turned").then("head").otherwise("tail"),
            chunk=pl.min_horizontal("fan", "fan_tail").cum_sum() // _CHUNK,
        )
    )
    turned = pl.col("turned")
    for part in sized.select("pair", "turned", "near", "far", "chunk").partition_by("chunk"):
        paths = part.join(steps.rename({"to": "middle"}), left_on="near", right_on="from").join(
            steps.rename({"step": "last"}), left_on=["middle", "far"], right_on=["from", "to"]
        )
        step, last = (_turn(pl.col(c), num_relations) for c in ("step", "last"))
        yield paths.select(
            "pair",
            first=pl.when(turned).then(last).otherwise("step"),
            second=pl.when(turned).then(step).otherwise("last"),
        ).unique()


def _turn(step: pl.Expr, num_relations: int) -> pl.Expr:
    return pl.when(step < num_relations).then(step + num_relations).otherwise(step - num_relations)


def _measure(found: pl.DataFrame, triples: pl.DataFrame, graph: KnowledgeGraph) -> pl.DataFrame:
    """Add head coverage and both confidences; each body is multiplied out once."""
    matrices = _matrices(triples, graph)
    heads = {r: np.diff(matrices[r].indptr) > 0 for r in found["relation"].unique()}
    rows = []
    for (first, second), rules in found.group_by("first", "second", maintain_order=True):
        counts = _pairs_by_row(matrices, first, second)
        for relation, support in rules.select("relation", "support").iter_rows():
            rows.append(
                (
                    *(relation, first, second, support),
                    support / matrices[relation].nnz,
                    support / counts.sum(),
                    support / counts[heads[relation]].sum(),
                )
            )
    schema = dict.fromkeys(("relation", "first", "second", "support"), pl.Int64())
    shares = ("head_coverage", "confidence", "pca_confidence")
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(shares, pl.Float64()), orient="row")


def _matrices(triples: pl.DataFrame, graph: KnowledgeGraph) -> list[csr_array]:
    """Each relation forwards, then each backwards. 2 R of float64 [N, N]."""
    parts = triples.partition_by("relation", as_dict=True)
    empty = triples.clear()
    forwards = []
    for relation in range(graph.num_relations):
        part = parts.get((relation,), empty)
        ends = (part["head"].to_numpy(), part["tail"].to_numpy())
        forwards.append(rows_of(*ends, np.ones(len(part)), graph.num_entities))
    return [*forwards, *(matrix.T.tocsr() for matrix in forwards)]


def _pairs_by_row(matrices: list[csr_array], first: int, second: int) -> np.ndarray:
    """Number of different y that a body connects with each x. Int64 [N]."""
    if second < 0:
        return np.diff(matrices[first].indptr)
    left, right = matrices[first], matrices[second]
    fan = np.diff(right.indptr)[left.indices]
    paths = np.concatenate([[0], np.cumsum(fan)])[left.indptr]  # before each row
    counts = np.zeros(left.shape[0], dtype=np.int64)
    start = 0
    while start < len(counts):  # some rows at a time, so that no product fills the memory
        limit = paths[start] + _CHUNK
        stop = max(int(np.searchsorted(paths, limit, side="right")) - 1, start + 1)
        counts[start:stop] = np.diff((left[start:stop] @ right).indptr)
        start = stop
    return counts


def _named(rules: pl.DataFrame, graph: KnowledgeGraph) -> pl.DataFrame:
    names = graph.relations["name"].to_list()
    words = [*names, *(f"{name}⁻¹" for name in names)]

    def atom(step: int, x: str, y: str) -> str:
        backwards = step >= len(names)
        return f"{names[step % len(names)]}({y}, {x})" if backwards else f"{words[step]}({x}, {y})"

    texts, bodies = [], []
    for relation, first, second in rules.select("relation", "first", "second").iter_rows():
        body = atom(first, "x", "y" if second < 0 else "z")
        if second >= 0:
            body += " ∧ " + atom(second, "z", "y")
        texts.append(f"{names[relation]}(x, y) ⇐ {body}")
        bodies.append([words[step] for step in (first, second) if step >= 0])
    return rules.with_columns(
        rule=pl.Series(texts, dtype=pl.String()),
        head=pl.Series([names[r] for r in rules["relation"]], dtype=pl.String()),
        body=pl.Series(bodies, dtype=pl.List(pl.String())),
        length=pl.Series([len(body) for body in bodies], dtype=pl.Int64()),
    )
