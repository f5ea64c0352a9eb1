"""Pictures of a source are copied, pointed to, kept by name, dropped or missed."""

import pytest

from kgclip.pictures import place_pictures
from kgclip.tables import GraphError, build_tables


def tables(*paths):
    return build_tables(
        {"entities": {"name": ["a"]}, "images": {"entity": [0] * len(paths), "path": list(paths)}}
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "root" / "in" / "a.png").write_bytes(b"a")
    return tmp_path / "root"


def test_copies(root, tmp_path):
    given = tables("in/a.png", "in/a.png", "/else/b.png", "https://x.org/c.png")
    placed = place_pictures(given, root, copy_to=tmp_path / "to", prefix="images/3")
    assert placed.images["path"].to_list() == [
        "images/3/in/a.png", "images/3/in/a.png", "/else/b.png", "https://x.org/c.png",
    ]  # fmt: skip
    assert (tmp_path / "to" / "in" / "a.png").read_bytes() == b"a"


def test_points_to_them(root):
    placed = place_pictures(tables("in/a.png"), root, copy_to=None, prefix="")
    assert placed.images["path"].to_list() == [str(root / "in" / "a.png")]


@pytest.mark.parametrize(("missing", "left"), [("keep", ["gone.png"]), ("drop", [])])
def test_missing_ones_are_counted(root, missing, left):
    with pytest.warns(UserWarning, match="1 pictures are not there"):
        placed = place_pictures(tables("gone.png"), root, copy_to=None, prefix="", missing=missing)
    assert placed.images["path"].to_list() == left


def test_missing_ones_and_paths_outside_are_refused(root):
    with pytest.raises(GraphError, match=r"gone\.png: no such picture, 1 in all"):
        place_pictures(tables("gone.png"), root, copy_to=None, prefix="", missing="error")
    with pytest.raises(GraphError, match="leaves its folder"):
        place_pictures(tables("../a.png"), root, copy_to=None, prefix="")
