"""Like names are near, and each entity has the edges it should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.similarity import nearest_edges, text_vectors


def cosines(texts):
    vectors = text_vectors(texts)
    return (vectors @ vectors.T).toarray()


def test_like_names_are_near():
    found = cosines(["Kenya", "Kenyan Shilling", "Tanzanian Shilling", "Peso"])
    assert found[0, 1] > found[0, 2] == 0
    assert found[1, 2] > 0.2, "a word in common"
    assert found[0, 3] == 0


@given(st.lists(st.text(max_size=8), max_size=6))
@settings(max_examples=50, deadline=None)
def test_rows_are_unit_or_zero(texts):
    squares = np.diag(cosines(texts)) if texts else np.zeros(0)
    assert np.all(np.isclose(squares, 1) | (squares == 0))


def test_case_and_order_of_texts_mean_nothing():
    assert cosines(["KENYA", "kenya"])[0, 1] == pytest.approx(1)
    texts = ["a b", "b c", "abc"]
    assert np.allclose(cosines(texts)[::-1, ::-1], cosines(texts[::-1]))


def test_edges_equal_the_loop():
    generator = np.random.default_rng(0)
    sources, targets = np.array([3, 5, 8]), np.array([5, 1, 8, 2])
    similarity = generator.random((3, 4))
    edges, values = nearest_edges(similarity, sources, targets, k=2, threshold=0.3)
    expected = []
    for row, source in enumerate(sources):
        pairs = [
            (-similarity[row, column], column)
            for column, target in enumerate(targets)
            if target != source and similarity[row, column] > 0.3
        ]
        expected += [(source, targets[column], -minus) for minus, column in sorted(pairs)[:2]]
    assert [(h, t, v) for (h, t), v in zip(edges.T.tolist(), values, strict=True)] == expected


def test_fewer_targets_than_asked():
    edges, _ = nearest_edges(np.ones((1, 1)), np.array([0]), np.array([0]), k=5, threshold=0)
    assert edges.shape == (2, 0), "nobody is like itself"
