"""Every script under graphs/analysis runs on the OpenMoji world and writes what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from kgclip.graph import KnowledgeGraph

FOLDER = Path(__file__).parent.parent.parent / "graphs" / "analysis"
# Script: what stands between the graph and the files that it writes, its files, a word it prints.
SCRIPTS = {
    "central_entities.py": ([], ["central.csv", "central.png"], "pagerank"),
    "leakage.py": ([], ["leakage.csv"], "mirrored"),
    "rules.py": ([], ["rules.csv"], "variant_of(x, z)"),
    "missing_modalities.py": ([], ["missing.csv", "coverage.png"], "with_image"),
    "communities.py": ([], ["communities.csv"], "modularity"),
    "neighbourhood.py": (["country:KE"], ["near.png"], "currency:KES"),
    "versions.py": (["OLD"], ["changes.csv"], "borders"),
}


@pytest.fixture(scope="module")
def world(openmoji_tables, openmoji_folder, tmp_path_factory) -> Path:
    graph = KnowledgeGraph(openmoji_tables, openmoji_folder)
    return graph.save(tmp_path_factory.mktemp("world") / "openmoji")


def test_every_script_is_listed_and_short():
    files = {file.name: file.read_text("utf-8") for file in FOLDER.glob("*.py")}
    assert files.keys() == SCRIPTS.keys()
    assert 5 <= len(files) <= 8
    assert [name for name, text in files.items() if text.count("\n") >= 60] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_writes_what_it_promises(script, world, tmp_path):
    middle, files, word = SCRIPTS[script]
    if middle == ["OLD"]:
        old = KnowledgeGraph.from_triples([("Kenya", "borders", "Uganda")])
        middle = [str(old.save(tmp_path / "old"))]
    run = subprocess.run(
        [sys.executable, str(FOLDER / script), str(world), *middle, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert run.returncode == 0, run.stderr
    assert word in run.stdout
    for file in files:
        if file.endswith(".csv"):
            assert len(pl.read_csv(tmp_path / file)) > 0
        else:
            assert Image.open(tmp_path / file).size[0] > 500
