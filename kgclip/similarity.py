"""Edges between entities that are alike: by what they are called, or by how they look.

Names and pictures come in, weighted edges go out. Such edges need no fact, so that a new entity
gets them too; what they are worth is for a model to learn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

WORD_COUNT = 2  # a whole word counts as much as two of its n-grams
SIZES = (3, 4)


def text_vectors(texts: Sequence[str]) -> csr_array:
    """TF-IDF of the words and letter n-grams of texts.

    Args:
        texts: Names or descriptions. N strings.

    Returns:
        Unit rows; a text without letters has a row of zeros. Float64 [N, V].
    """
    counts = [_grams(text) for text in texts]
    vocabulary = {gram: i for i, gram in enumerate(sorted({g for one in counts for g in one}))}
    rows = [row for row, one in enumerate(counts) for _ in one]
    columns = [vocabulary[gram] for one in counts for gram in one]
    values = np.array([count for one in counts for count in one.values()], dtype=np.float64)
    shape = (len(texts), len(vocabulary))
    matrix = csr_array((values, (rows, columns)), shape=shape)
    used = np.bincount(columns, minlength=len(vocabulary)) if columns else np.ones(0)
    weighted = matrix.multiply(1 + np.log(len(texts) / np.maximum(used, 1))).tocsr()
    norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    return weighted.multiply(1 / np.maximum(norms, 1e-12)[:, None]).tocsr()


def _grams(text: str) -> Counter[str]:
    words = re.findall(r"\w+", text.casefold())
    grams = Counter({f" {word}": 0 for word in words})  # the space tells words from n-grams
    for word in words:
        grams[f" {word}"] += WORD_COUNT
        marked = f"<{word}>"
        grams.update(marked[i : i + n] for n in SIZES for i in range(len(marked) - n + 1))
    return grams


def nearest_edges(
    similarity: np.ndarray,
    sources: np.ndarray,
    targets: np.ndarray,
    *,
    k: int,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Each source's most similar targets.

    Args:
        similarity: Of sources (rows) and targets (columns). Float [S, T].
        sources: Entity of each row. Int64 [S].
        targets: Entity of each column. Int64 [T].
        k: Targets a source, at most.
        threshold: Similarities up to it make no edge.

    Returns:
        ``edge_index`` int64 [2, M], from source to target and never to itself, and the
        similarities, float64 [M].
    """
    masked = np.where(sources[:, None] == targets[None, :], -np.inf, similarity)
    # Stable, so that ties are decided by the targets' order on every machine.
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(masked, order, axis=1)
    row, place = np.nonzero(values > threshold)
    edge_index = np.stack([sources[row], targets[order[row, place]]])
    return edge_index.astype(np.int64), values[row, place].astype(np.float64)
