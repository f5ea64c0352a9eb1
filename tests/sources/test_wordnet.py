"""WordNet's folders and Global WordNet's LMF, on small files made by hand."""

import gzip

import polars as pl
import pytest

from kgclip.sources import read_graph
from kgclip.sources.wordnet import RELATIONS
from kgclip.sources.wordnet_wndb import POINTERS
from kgclip.tables import GraphError

# Synthetic; the offsets mean nothing.
WNDB = {
    "data.noun": (
        "  1 This software and database is licensed\n"
        "00000010 05 n 02 dog 0 domestic_dog 0 003 @ 00000020 n 0000 + 00000040 v 0101 "
        '%m 00000030 n 0000 | a tame animal; "the dog | barked"  \n'
        "00000020 05 n 01 Animal 0 001 ~ 00000010 n 0000 | a living thing  \n"
        "00000030 14 n 01 pack 1 001 #m 00000010 n 0000 | a group  \n"
    ),
    "index.noun": (
        "  1 This software\n"
        "animal n 1 1 ~ 1 0 00000020  \n"
        "dog n 1 3 @ + %m 1 1 00000010  \n"
        "domestic_dog n 1 1 @ 1 0 00000010  \n"
        "pack n 2 1 #m 2 1 00000010 00000030  \n"
    ),
    "data.verb": "00000040 30 v 01 dog 0 001 + 00000010 n 0101 01 + 08 00 | go after  \n",
    "index.verb": "dog v 1 1 + 1 1 00000040  \n",
    "data.adj": (
        "00000050 00 a 01 tame(p) 0 001 & 00000060 a 0000 | not wild  \n"
        "00000060 00 s 01 docile 0 001 & 00000050 a 0000 | easily led  \n"
    ),
    "index.adj": "docile a 1 1 & 1 0 00000060  \ntame a 1 1 & 1 1 00000050  \n",
}
LMF = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">
<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">
  <Lexicon id="x" label="made" language="en" email="" license="" version="1">
    <LexicalEntry id="w1"><Lemma writtenForm="dog" partOfSpeech="n"/>
      <Sense id="s1" synset="x-1-n"><SenseRelation relType="derivation" target="s3"/></Sense>
    </LexicalEntry>
    <LexicalEntry id="w2"><Lemma writtenForm="domestic dog" partOfSpeech="n"/>
      <Sense id="s2" synset="x-1-n"/>
    </LexicalEntry>
    <LexicalEntry id="w3"><Lemma writtenForm="dog" partOfSpeech="v"/>
      <Sense id="s3" synset="x-2-v"/>
    </LexicalEntry>
    <Synset id="x-1-n" ili="i46360" partOfSpeech="n" lexfile="noun.animal">
      <Definition>a tame &amp; useful
        animal</Definition>
      <SynsetRelation relType="hypernym" target="x-3-n"/><Example>the dog barked</Example>
    </Synset>
    <Synset id="x-2-v" ili="" partOfSpeech="v"><Definition>go after</Definition></Synset>
    <Synset id="x-3-n" ili="in" partOfSpeech="n"/>
  </Lexicon>
</LexicalResource>
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in WNDB.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def named(graph):
    entities, relations = graph.entities["name"], graph.relations["name"]
    rows = graph.triples.select("head", "relation", "tail").iter_rows()
    return {(entities[h], relations[r], entities[t]) for h, r, t in rows}


def texts(graph, name):
    rows = graph.texts.filter(pl.col("entity") == graph.entity_id(name))
    return rows.select("text", "kind").rows()


def test_a_folder_of_wordnet(folder):
    graph = read_graph(folder, format="wordnet")
    assert graph.entities.select("name", "type").rows() == [
        ("dog.n.01", "noun"), ("animal.n.01", "noun"), ("pack.n.02", "noun"), ("dog.v.01", "verb"),
        ("tame.a.01", "adjective"), ("docile.s.01", "adjective"),
    ]  # fmt: skip
    assert named(graph) == {
        ("dog.n.01", "hypernym", "animal.n.01"), ("animal.n.01", "hyponym", "dog.n.01"),
        ("dog.n.01", "mero_member", "pack.n.02"), ("pack.n.02", "holo_member", "dog.n.01"),
        ("dog.n.01", "derivation", "dog.v.01"), ("dog.v.01", "derivation", "dog.n.01"),
        ("tame.a.01", "similar", "docile.s.01"), ("docile.s.01", "similar", "tame.a.01"),
    }  # fmt: skip
    assert texts(graph, "dog.n.01") == [
        ("dog", "label"), ("domestic dog", "alias"),
        ('a tame animal; "the dog | barked"', "description"),
    ]  # fmt: skip
    assert texts(graph, "tame.a.01")[0] == ("tame", "label")
    hypernym = graph.relations.row(graph.relation_id("hypernym"), named=True)
    assert (hypernym["label"], hypernym["inverse"]) == ("is a kind of", "hyponym")
    assert graph.relations.row(graph.relation_id("similar"), named=True)["symmetric"] is True
    assert "noun.animal" in graph.types["type"].to_list()
    assert graph.links["url"].to_list()[:2] == ["n00000010", "n00000020"]
    assert len(graph.origins) == 6


def test_names_by_offset_need_no_index(folder):
    for file in folder.glob("index.*"):
        file.unlink()
    graph = read_graph(folder, format="wordnet", names="offset")
    assert ("n00000010", "hypernym", "n00000020") in named(graph)


def test_words_as_entities(folder):
    graph = read_graph(folder, format="wordnet", words=True)
    facts = named(graph)
    assert ("dog.n.01.dog", "derivation", "dog.v.01.dog") in facts
    assert ("dog.n.01", "has_word", "dog.n.01.domestic_dog") in facts
    assert ("dog.n.01", "derivation", "dog.v.01") not in facts
    assert texts(graph, "dog.n.01.domestic_dog") == [("domestic dog", "label")]


@pytest.mark.parametrize("name", ["wn.xml", "wn.xml.gz"])
def test_an_lmf_file(tmp_path, name):
    data = LMF.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    graph = read_graph(tmp_path / name, format="wordnet")
    assert graph.entities["name"].to_list() == ["x-1-n", "x-2-v", "x-3-n"]
    assert named(graph) == {("x-1-n", "hypernym", "x-3-n"), ("x-1-n", "derivation", "x-2-v")}
    assert texts(graph, "x-1-n") == [
        ("dog", "label"), ("domestic dog", "alias"), ("a tame & useful animal", "description"),
        ("the dog barked", "description"),
    ]  # fmt: skip
    assert graph.links.rows() == [(0, "i46360")]
    words = read_graph(tmp_path / name, format="wordnet", words=True)
    assert ("x-1-n.dog", "derivation", "x-2-v.dog") in named(words)


BOMB = (
    '<!DOCTYPE LexicalResource [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    "<LexicalResource>&b;</LexicalResource>"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"wn\.xml:1: no XML"),
        (LMF[:-40], r"wn\.xml:\d+: no XML"),
        (LMF.replace("UTF-8", "UT-8"), r"wn\.xml:1: unknown encoding: UT-8; convert"),
        ("<html/>", r"wn\.xml:1: <html>, <LexicalResource>"),
        (BOMB, r"wn\.xml:1: declares the entity 'a'"),
        (LMF.replace('target="x-3-n"', 'target="x-9-n"'), r"wn\.xml:\d+: hypernym leads to x-9-n"),
        (
            LMF.replace('target="s3"', 'target="s9"'),
            r"wn\.xml:6: derivation leads to the sense 's9'",
        ),
        (LMF.replace('synset="x-2-v"', 'synset="x-9-v"'), r"wn\.xml:12: the sense 's3' is of no"),
        (LMF.replace('"x-3-n" ili="in"', '"x-2-v" ili="in"'), "the synset 'x-2-v' is there twice"),
        (
            LMF.replace('writtenForm="dog" ', ""),
            r"wn\.xml:5: <Lemma> has no attribute 'writtenForm'",
        ),
    ],
)
def test_mistakes_in_lmf_are_named(tmp_path, text, message):
    (tmp_path / "wn.xml").write_text(text)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path / "wn.xml", format="wordnet")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("data.noun", "@ 00000020", "@ 00000099", r"data\.noun:2: hypernym leads to n00000099"),
        ("data.noun", " 003 @", " 004 @", r"data\.noun:2: no line of a data file"),
        ("data.noun", "@ 0000", "? 0000", r"data\.noun:2: no line of a data file"),
        ("data.noun", "| a group", "a group", r"data\.noun:4: no gloss"),
        ("index.noun", "dog n 1 3", "dog n 2 3", r"index\.noun:3: no line of an index"),
        ("index.noun", "1 1 00000010", "1 1 00000011", r"data\.noun:2: 'dog' has no such sense"),
    ],
)
def test_mistakes_in_a_folder_are_named(folder, file, old, new, message):
    (folder / file).write_text(WNDB[file].replace(old, new, 1))
    with pytest.raises(GraphError, match=message):
        read_graph(folder, format="wordnet")


def test_unusable_folders_and_options(folder, tmp_path):
    with pytest.raises(GraphError, match="'key' or 'offset'"):
        read_graph(folder, format="wordnet", names="lemma")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraphError, match=r"no data\.noun in it"):
        read_graph(tmp_path / "empty", format="wordnet")
    (folder / "index.noun").unlink()
    with pytest.raises(GraphError, match=r"index\.noun: no such file"):
        read_graph(folder, format="wordnet")


def test_every_pointer_has_a_text_and_inverses_agree():
    assert set(POINTERS.values()) <= RELATIONS.keys()
    for name, (_, inverse) in RELATIONS.items():
        assert inverse is None or RELATIONS[inverse][1] == name
