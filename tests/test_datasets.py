import pytest

from kgclip import KnowledgeGraph
from kgclip.datasets import find_data, open_dataset
from kgclip.tables import GraphError


def test_data_lie_here_or_in_the_data_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (there / "a.tsv").write_text("x\tr\ty\n")
    monkeypatch.chdir(here)
    monkeypatch.delenv("KGCLIP_DATA", raising=False)
    with pytest.raises(GraphError, match=r"a\.tsv: no such file .* KGCLIP_DATA may name"):
        find_data("a.tsv")
    monkeypatch.setenv("KGCLIP_DATA", str(there))
    assert find_data("a.tsv") == there / "a.tsv"
    (here / "a.tsv").write_text("x\tr\tz\n")
    assert find_data("a.tsv").resolve() == here / "a.tsv"
    with pytest.raises(GraphError, match="or in KGCLIP_DATA="):
        find_data("b.tsv")


def test_saved_graphs_and_foreign_files_open(tmp_path):
    graph = KnowledgeGraph.from_triples([("a", "r", "b")])
    graph.save(tmp_path / "saved")
    assert open_dataset(tmp_path / "saved") == graph
    with pytest.raises(GraphError, match="read as it is"):
        open_dataset(tmp_path / "saved", {"literals": "nodes"})
    (tmp_path / "facts.csv").write_text("a,r,b\n")
    assert open_dataset(tmp_path / "facts.csv", {"header": False}).num_triples == 1
