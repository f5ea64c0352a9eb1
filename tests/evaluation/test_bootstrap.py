"""The bootstrap's ratio is the ratio of macro means, and its interval covers as it says."""

import itertools

import numpy as np
import pytest

from kgclip.evaluation import bootstrap_ratio


def test_ratio_is_that_of_the_macro_means():
    above, below = [1.0, 0.5, 0.25, 0.2], [0.5, 0.5, 0.5, 0.1]
    found = bootstrap_ratio(above, below, ["a", "a", "b", "b"], num_samples=10)
    assert found["above"] == pytest.approx((0.75 + 0.225) / 2)
    assert found["below"] == pytest.approx((0.5 + 0.3) / 2)
    assert found["ratio"] == pytest.approx(found["above"] / found["below"])
    assert found["count"] == 4
    whole = bootstrap_ratio([1.0, 1.0, 0.0], [0.5, 0.5, 0.5])
    assert whole["above"] == pytest.approx(2 / 3)


def test_interval_equals_all_samples_there_are():
    """Three queries have 27 equally likely samples: the slow reference lists them."""
    above, below = np.array([0.2, 0.5, 1.0]), np.array([0.3, 0.3, 0.6])
    samples = [list(one) for one in itertools.product(range(3), repeat=3)]
    exact = [above[one].mean() / below[one].mean() for one in samples]
    low, high = np.quantile(exact, [0.1, 0.9], method="inverted_cdf")
    found = bootstrap_ratio(above, below, confidence=0.8, num_samples=20_000)
    assert found["low"] == pytest.approx(low, abs=0.02)
    assert found["high"] == pytest.approx(high, abs=0.02)


def test_groups_are_drawn_apart():
    """A group whose queries are all alike adds no spread, however large it is."""
    above = np.array([0.9] * 50 + [0.1, 1.0])
    below = np.full(52, 0.5)
    groups = np.array([0] * 50 + [1] * 2)
    found = bootstrap_ratio(above, below, groups, num_samples=4000)
    # The second group's mean is .1, .55 or 1 with chances 1/4, 1/2, 1/4.
    assert found["low"] == pytest.approx((0.9 + 0.1) / 2 / 0.5)
    assert found["high"] == pytest.approx((0.9 + 1.0) / 2 / 0.5)


def test_pairs_stay_together():
    """Two methods that differ by a factor have a ratio without any doubt."""
    below = np.random.default_rng(0).random(40)
    found = bootstrap_ratio(1.5 * below, below, num_samples=500)
    assert found["low"] == pytest.approx(1.5)
    assert found["high"] == pytest.approx(1.5)


def test_coverage():
    """95 % intervals hold the true ratio in about 95 % of the experiments."""
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        below = generator.random(60)
        above = below * 1.2 + 0.1 * generator.normal(size=60) + 0.3
        found = bootstrap_ratio(above, below, num_samples=400, seed=trial)
        held += found["low"] <= (0.6 + 0.3) / 0.5 <= found["high"]
    assert 0.90 <= held / 200 <= 0.99


def test_repeats_with_its_seed():
    values = np.random.default_rng(1).random((2, 30))
    assert bootstrap_ratio(*values, seed=3) == bootstrap_ratio(*values, seed=3)
    assert bootstrap_ratio(*values, seed=3) != bootstrap_ratio(*values, seed=4)


def test_one_query_and_nothing_right():
    assert bootstrap_ratio([0.5], [0.25], num_samples=5)["high"] == 2
    assert bootstrap_ratio([0.0], [0.0], num_samples=5)["ratio"] == 1
    assert bootstrap_ratio([0.5], [0.0], num_samples=5)["ratio"] == np.inf


@pytest.mark.parametrize(
    ("above", "below", "options", "message"),
    [
        ([], [], {}, "at least one"),
        ([1.0], [1.0, 0.5], {}, "above has 1 queries, below 2"),
        ([np.nan], [1.0], {}, "finite"),
        ([-0.1], [1.0], {}, "at least 0"),
        ([1.0], [1.0], {"groups": [1, 2]}, "groups: 2 given, 1 expected"),
        ([1.0], [1.0], {"confidence": 1.0}, "confidence=1.0"),
        ([1.0], [1.0], {"num_samples": 0}, "num_samples=0"),
    ],
)
def test_mistakes_are_named(above, below, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_ratio(above, below, **options)
