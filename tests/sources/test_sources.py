"""What holds for every source: it is found by name, checked, and loads what it needs alone."""

import subprocess
import sys

import pytest

from kgclip.sources import SOURCES, find_reader, guess_format, read_graph
from kgclip.tables import GraphError


@pytest.mark.parametrize("name", SOURCES)
class TestEverySource:
    def test_reader_exists_and_is_documented(self, name):
        reader = find_reader(name)
        assert "Raises:" in reader.__doc__

    def test_unknown_option_names_the_nearest(self, name):
        with pytest.raises(GraphError, match=rf"format '{name}' has no option 'x'; did you mean"):
            find_reader(name, ["x"])

    def test_loads_without_torch(self, name):
        code = (
            "import sys; from kgclip.sources import find_reader; "
            f"find_reader({name!r}); assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_format_names_the_nearest(tmp_path):
    (tmp_path / "a.foo").write_text("")
    with pytest.raises(GraphError, match="did you mean 'rdf'"):
        read_graph(tmp_path / "a.foo", format="rdff")
    with pytest.raises(GraphError, match="unknown suffix"):
        read_graph(tmp_path / "a.foo")


def test_format_wins_over_the_suffix(tmp_path):
    (tmp_path / "a.foo").write_text("x\tr\ty\n")
    graph = read_graph(tmp_path / "a.foo", format="delimited")
    assert graph.num_triples == 1
    assert graph.root == tmp_path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "/a/[/r/IsA/,/c/en/a/,/c/en/b/]\t/r/IsA", "conceptnet"),
        ("a.csv", "a,r,b", "delimited"),
        ("a.nt.gz", "", "rdf"),
        ("kg/data.noun", "", "wordnet"),
        ("kg/relationships.json.gz", "", "visual_genome"),
        ("kg/val_sceneGraphs.json", "", "gqa"),
        ("kg/annotations_test.json", "", "vrd"),
        ("kg/nodes.v2.json", "", "multimodal"),
        ("kg/facts.ttl", "", "rdf"),
        ("kg/train.txt", "", "delimited"),
        ("kg/train2id.txt", "", "delimited"),
    ],
)
def test_formats_are_guessed(tmp_path, name, content, expected):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    assert guess_format(file if file.parent == tmp_path else file.parent) == expected
