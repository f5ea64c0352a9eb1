"""The OpenMoji world holds what its packages say, and says it the same way twice."""

import hashlib

import polars as pl
import pytest

from kgclip.sources import openmoji
from kgclip.tables import GraphError


def facts(tables, relation):
    labels = tables.texts["text"]
    number = tables.relations["name"].to_list().index(relation)
    rows = tables.triples.filter(pl.col("relation") == number)
    return {(labels[h], labels[t]) for h, t in rows.select("head", "tail").iter_rows()}


def test_size_is_near_the_published_prototype(openmoji_tables):
    # The prototype counted 3,172 entities, 2,294 pictures and 6,396 triples.
    assert len(openmoji_tables.entities) == pytest.approx(3172, rel=0.02)
    assert len(openmoji_tables.images) == pytest.approx(2294, rel=0.02)
    assert len(openmoji_tables.triples) == pytest.approx(6396, rel=0.02)
    assert len(openmoji_tables.relations) == 14


def test_known_facts_are_there(openmoji_tables):
    assert ("Kenya", "Nairobi") in facts(openmoji_tables, "capital")
    assert ("Kenya", "Uganda") in facts(openmoji_tables, "borders")
    assert ("Kenya", "Kenyan Shilling") in facts(openmoji_tables, "currency")
    assert ("Kenya", "Swahili") in facts(openmoji_tables, "language")
    assert ("Kenya", "Eastern Africa") in facts(openmoji_tables, "subregion")
    assert ("woman astronaut", "rocket") in facts(openmoji_tables, "made_of")
    assert ("woman astronaut", "woman") in facts(openmoji_tables, "gender")
    assert ("dog", "animal mammal") in facts(openmoji_tables, "subgroup")


def test_every_variant_has_one_tone(openmoji_tables):
    tones = facts(openmoji_tables, "skin_tone")
    assert {head for head, _ in tones} == {head for head, _ in facts(openmoji_tables, "variant_of")}
    assert all(tone in label for label, tone in tones)


def test_pictures_are_what_the_table_says(openmoji_tables, openmoji_folder):
    for path, digest in openmoji_tables.images.select("path", "sha256").head(50).iter_rows():
        assert hashlib.sha256((openmoji_folder / path).read_bytes()).hexdigest() == digest


def test_second_reading_is_equal(openmoji_tables, tmp_path):
    again = openmoji.read_openmoji(tmp_path / "images", size=32)
    for name, frame in again.frames().items():
        assert frame.equals(getattr(openmoji_tables, name)), name


def test_unreadable_picture_names_the_file(tmp_path, monkeypatch):
    broken = tmp_path / "svg"
    broken.mkdir()
    (broken / "1F600.svg").write_text("<svg")
    with pytest.raises(GraphError, match=r"1F600\.svg.*cannot be rendered"):
        openmoji._render({"1F600": "emoji:1F600"}, broken, tmp_path / "out", 32)


@pytest.mark.parametrize("options", [{"size": 0}, {"tone_share": 0}])
def test_options_out_of_range(options, tmp_path):
    with pytest.raises(GraphError, match="1 or more"):
        openmoji.read_openmoji(tmp_path, **options)
