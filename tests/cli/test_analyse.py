import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from PIL import Image

from kgclip.graph import KnowledgeGraph
from kgclip.tables import build_tables
from tests.cli.test_cli import ROWS, fails_in_one_line, invoke


@pytest.fixture
def saved(tmp_path):
    return KnowledgeGraph.from_triples(ROWS).save(tmp_path / "africa")


def test_page_and_json(saved, tmp_path):
    result = invoke("analyse", saved, "-o", tmp_path / "report.html", "--json", "--entity", "Kenya")
    assert result.exit_code == 0, result.stderr
    findings = json.loads(result.stdout)
    assert findings["graph"]["num_triples"] == 4
    assert findings["entity"]["near"][0]["name"] == "Kenya"
    assert "africa" in (tmp_path / "report.html").read_text("utf-8")


def test_a_table_of_triples_needs_no_build(tmp_path):
    (tmp_path / "facts.csv").write_text("".join(",".join(row) + "\n" for row in ROWS))
    result = invoke("analyse", tmp_path / "facts.csv", "-o", tmp_path / "report.html")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "report.html").is_file()


def test_vectors_of_a_file(saved, tmp_path):
    names = ["Kenya", "Nairobi", "Uganda", "Kampala"]
    vectors = pl.Series("embedding", np.eye(4, 3, dtype=np.float32), pl.Array(pl.Float32, 3))
    pl.DataFrame({"name": names}).with_columns(vectors).write_parquet(tmp_path / "v.parquet")
    result = invoke("analyse", saved, "--json", "--embeddings", tmp_path / "v.parquet")
    assert result.exit_code == 0, result.stderr
    by_hops = json.loads(result.stdout)["embedding"]["by_hops"]
    assert sum(row["pairs"] for row in by_hops) == 3  # Kampala's vector is zero
    other = KnowledgeGraph.from_triples([("x", "r", "y")]).save(tmp_path / "other")
    assert "one vector" in fails_in_one_line(
        "analyse", other, "--json", "--embeddings", tmp_path / "v.parquet"
    )
    (tmp_path / "no.parquet").write_text("x")
    assert "kgclip embed" in fails_in_one_line(
        "analyse", saved, "--json", "--embeddings", tmp_path / "no.parquet"
    )


def test_vectors_of_a_model(saved):
    result = invoke("analyse", saved, "--json", "--model", "kgclip-grid")
    assert result.exit_code == 0, result.stderr
    embedding = json.loads(result.stdout)["embedding"]
    assert sum(row["pairs"] for row in embedding["by_hops"]) == 6


def test_pictures_are_looked_at(tmp_path):
    Image.new("RGB", (20, 20), "green").save(tmp_path / "a.png")
    tables = KnowledgeGraph.from_triples(ROWS).tables.frames()
    images = {"entity": [0, 1], "path": ["a.png", "a.png"]}
    KnowledgeGraph(build_tables({**tables, "images": images}), tmp_path).save(tmp_path / "g")
    result = invoke("analyse", tmp_path / "g", "--json", "--require", "image")
    missing = json.loads(result.stdout)["missing"]
    assert (missing["num_with_image"], missing["num_same_pictures"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--entity", "Kenia"], "the nearest is 'Kenya'"),
        (["--entity", "Kenya", "--to", "Nairoby"], "the nearest is 'Nairobi'"),
        (["--require", "text"], "no entity has any text"),
        (["--require", "image"], "no entity has any image"),
        (["--model", "ViT-B-33"], "ViT-B-32"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(saved, arguments, message):
    assert message in fails_in_one_line("analyse", saved, "--json", *arguments)


def test_graphs_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no graph" in fails_in_one_line("analyse", tmp_path / "empty", "--json")
    assert "no such file" in fails_in_one_line("analyse", tmp_path / "gone", "--json")
    KnowledgeGraph(build_tables({})).save(tmp_path / "nothing")
    assert "at least two" in fails_in_one_line("analyse", tmp_path / "nothing", "--json")
    one = KnowledgeGraph(build_tables({"entities": {"name": ["a"]}})).save(tmp_path / "one")
    assert "1 entities and 0 triples" in fails_in_one_line("analyse", one, "--json")


@pytest.mark.parametrize(
    "arguments", [[], ["--json", "--to", "Kenya"], ["--json", "--model", "x", "--embeddings", "y"]]
)
def test_options_that_make_no_sense(saved, arguments):
    assert invoke("analyse", saved, *arguments).exit_code == 2


def test_torch_is_never_loaded_without_a_model(saved, tmp_path):
    program = (
        "import sys; from kgclip.cli import app; "
        f"app(['analyse', {str(saved)!r}, '-o', {str(tmp_path / 'r.html')!r}], "
        "standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr or "torch was loaded"
