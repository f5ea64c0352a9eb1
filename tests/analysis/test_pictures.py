import numpy as np
import polars as pl
import pytest
from PIL import Image

from kgclip.analysis import duplicate_pictures, hash_pictures
from kgclip.analysis.pictures import _CHUNK
from kgclip.graph import KnowledgeGraph
from kgclip.tables import GraphError, build_tables


def noise(seed: int, size: int = 64) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((size, size))


@pytest.fixture
def graph(tmp_path) -> KnowledgeGraph:
    noise(0).save(tmp_path / "a.png")
    noise(0).save(tmp_path / "same.png")
    noise(0, size=150).save(tmp_path / "larger.jpg", quality=70)
    noise(1).save(tmp_path / "other.png")
    (tmp_path / "broken.png").write_text("no picture")
    wide = Image.new("RGB", (200, 64), "white")
    wide.paste(noise(1), (100, 0))
    wide.save(tmp_path / "wide.png")
    paths = ["a.png", "same.png", "larger.jpg", "other.png", "broken.png", "gone.png", "wide.png"]
    boxes = [None] * 6 + [[100.0, 0.0, 64.0, 64.0]]
    tables = build_tables(
        {
            "entities": {"name": paths},
            "images": pl.DataFrame({"entity": range(7), "path": paths, "box": boxes}),
        }
    )
    return KnowledgeGraph(tables, tmp_path)


def test_pictures_that_look_alike_are_found(graph):
    hashes = hash_pictures(graph)
    assert hashes["hash"].is_null().to_list() == [False] * 4 + [True, True, False]
    pairs = duplicate_pictures(hashes)
    found = {(row["image"], row["other"]): row["same"] for row in pairs.to_dicts()}
    assert found == {(0, 1): True, (0, 2): False, (1, 2): False, (3, 6): False}


@pytest.mark.parametrize("max_distance", [0, 5, 25, 64])
def test_pairs_equal_counting_bits(max_distance):
    generator = np.random.default_rng(0)
    values = generator.integers(0, 2**63, 70).tolist()
    values += [value ^ 0b101 for value in values[:5]]
    frame = {"image": range(75), "entity": range(75), "sha256": map(str, range(75)), "hash": values}
    hashes = pl.DataFrame(frame, schema_overrides={"hash": pl.UInt64})
    pairs = duplicate_pictures(hashes, max_distance)
    expected = {
        (i, j, (values[i] ^ values[j]).bit_count())
        for i in range(75)
        for j in range(i + 1, 75)
        if (values[i] ^ values[j]).bit_count() <= max_distance
    }
    assert set(pairs.select("image", "other", "distance").iter_rows()) == expected


def test_chunks_make_no_difference():
    hashes = pl.DataFrame(
        {"image": range(_CHUNK + 2), "hash": [7] * (_CHUNK + 2)},
        schema_overrides={"hash": pl.UInt64},
    ).with_columns(entity="image", sha256=pl.lit("x"))
    count = _CHUNK + 2
    assert len(duplicate_pictures(hashes, 0)) == count * (count - 1) // 2


def test_no_pictures_no_pairs():
    hashes = hash_pictures(KnowledgeGraph(build_tables({})))
    assert duplicate_pictures(hashes).is_empty()
    with pytest.raises(GraphError, match=r"in \[0, 64\]"):
        duplicate_pictures(hashes, 65)
