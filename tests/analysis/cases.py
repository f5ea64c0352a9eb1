"""Graphs that every analysis must bear, the odd ones first."""

import numpy as np

from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables


def random_graph(seed: int, num_entities: int = 30, num_triples: int = 60) -> KnowledgeGraph:
    """With self loops, duplicates, isolated entities and a relation without triples."""
    generator = np.random.default_rng(seed)
    ends = generator.integers(0, num_entities, (2, num_triples))
    return KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": [f"e{i}" for i in range(num_entities + 3)]},
                "relations": {"name": ["r", "s", "t", "unused"]},
                "triples": {
                    "head": ends[0],
                    "relation": generator.integers(0, 3, num_triples),
                    "tail": ends[1],
                },
            }
        )
    )


def isolated(count: int) -> KnowledgeGraph:
    return KnowledgeGraph(build_tables({"entities": {"name": [f"e{i}" for i in range(count)]}}))


CASES = {
    "empty": isolated(0),
    "one entity": isolated(1),
    "self loop": KnowledgeGraph.from_triples([("a", "r", "a")]),
    "duplicate": KnowledgeGraph.from_triples([("a", "r", "b"), ("a", "r", "b")]),
    "both ways": KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "s", "a"), ("b", "r", "c")]),
    "chain": KnowledgeGraph.from_triples([(str(i), "next", str(i + 1)) for i in range(12)]),
    "ring": KnowledgeGraph.from_triples([(str(i), "next", str((i + 1) % 9)) for i in range(9)]),
    **{f"random {seed}": random_graph(seed) for seed in range(4)},
    "dense": random_graph(5, num_entities=12, num_triples=90),
}
