import pytest

from kgclip.cli.overrides import parse_overrides
from kgclip.tables import GraphError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("true", True),
        ('"7"', "7"),
        ("[1, 2]", [1, 2]),
        ("cosine", "cosine"),
        ("runs/my run", "runs/my run"),
        ("a=b", "a=b"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_value_is_toml_or_else_a_string(text, value):
    assert parse_overrides([f"a.b={text}"]) == {"a.b": value}


def test_last_one_counts():
    assert parse_overrides(["a = 1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("setting", ["a.b", "=7", " =7"])
def test_no_key_or_no_value_is_an_error(setting):
    with pytest.raises(GraphError, match="expected KEY=VALUE"):
        parse_overrides([setting])
