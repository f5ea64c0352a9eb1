import pytest
import torch

from kgclip.weights import interpolate_weights


def states():
    torch.manual_seed(0)
    start = {"a": torch.randn(3, 2), "n": torch.tensor(3), "scale": torch.tensor(0.1)}
    tuned = {name: value + 1 for name, value in start.items()} | {"graph": torch.ones(2)}
    return start, tuned


def test_ends_are_bit_exact():
    start, tuned = states()
    begin, end = interpolate_weights(start, tuned, 0.0), interpolate_weights(start, tuned, 1.0)
    assert all(torch.equal(begin[name], start[name]) for name in start)
    assert all(torch.equal(end[name], tuned[name]) for name in tuned)
    assert torch.equal(begin["graph"], tuned["graph"])  # the start model has none


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_between_them_against_the_formula(alpha):
    start, tuned = states()
    mixed = interpolate_weights(start, tuned, alpha)
    for name in ("a", "scale"):
        torch.testing.assert_close(mixed[name], (1 - alpha) * start[name] + alpha * tuned[name])
    assert mixed["n"] == (4 if alpha >= 0.5 else 3)


def test_memory_is_its_own():
    start, tuned = states()
    mixed = interpolate_weights(start, tuned, 1.0)
    mixed["a"].zero_()
    assert tuned["a"].any()


@pytest.mark.parametrize(
    ("change", "alpha", "message"),
    [
        ({}, 1.5, "alpha: 1.5"),
        ({"a": torch.ones(2, 2)}, 0.5, r"a: shapes \[3, 2\] and \[2, 2\]"),
        ({"a": None}, 0.5, "1 tensors.*a"),
    ],
)
def test_what_does_not_fit(change, alpha, message):
    start, tuned = states()
    tuned = {name: value for name, value in (tuned | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        interpolate_weights(start, tuned, alpha)
