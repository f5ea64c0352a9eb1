"""WordNets: the database folder of WordNet itself (``dict/``), or Global WordNet's LMF XML.

Synsets are entities, every pointer is a triple, lemmas are labels and aliases, glosses are
descriptions. Both formats use Global WordNet's names of relations. A pointer between two words,
such as an antonym, is a triple between their synsets unless words are entities too. Sentence
frames of verbs are left out.

Reference:
    wndb(5WN), wninput(5WN) of WordNet 3.0; https://globalwordnet.github.io/schemas/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kgclip.sources.wordnet_lmf import read_lmf
from kgclip.sources.wordnet_synset import Synset
from kgclip.sources.wordnet_wndb import read_wndb
from kgclip.tables import SCHEMAS, GraphError, Origin, Tables, build_tables

HAS_WORD = "has_word"
PARTS_OF_SPEECH = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
# Relation: text for a text encoder, inverse. One that is its own inverse is symmetric.
RELATIONS: dict[str, tuple[str, str | None]] = {
    "hypernym": ("is a kind of", "hyponym"),
    "hyponym": ("has the kind", "hypernym"),
    "instance_hypernym": ("is an instance of", "instance_hyponym"),
    "instance_hyponym": ("has the instance", "instance_hypernym"),
    "holo_member": ("is a member of", "mero_member"),
    "mero_member": ("has the member", "holo_member"),
    "holo_substance": ("is a substance of", "mero_substance"),
    "mero_substance": ("has the substance", "holo_substance"),
    "holo_part": ("is a part of", "mero_part"),
    "mero_part": ("has the part", "holo_part"),
    "domain_topic": ("belongs to the topic", "has_domain_topic"),
    "has_domain_topic": ("is the topic of", "domain_topic"),
    "domain_region": ("is used in the region", "has_domain_region"),
    "has_domain_region": ("is the region of", "domain_region"),
    "exemplifies": ("is used as", "is_exemplified_by"),
    "is_exemplified_by": ("is the usage of", "exemplifies"),
    "entails": ("entails", "is_entailed_by"),
    "is_entailed_by": ("is entailed by", "entails"),
    "causes": ("causes", "is_caused_by"),
    "is_caused_by": ("is caused by", "causes"),
    "antonym": ("is the opposite of", "antonym"),
    "similar": ("is similar to", "similar"),
    "attribute": ("has the attribute", "attribute"),
    "derivation": ("is related by derivation to", "derivation"),
    "verb_group": ("belongs to the same group as", "verb_group"),
    "also": ("see also", None),
    "pertainym": ("pertains to", None),
    "participle": ("is a participle of", None),
    HAS_WORD: ("has the word", None),
}


def read_wordnet(path: str | Path, *, names: str = "key", words: bool = False) -> Tables:
    """Read a wordnet.

    Args:
        path: Folder with ``data.noun``, ``index.noun`` and so on, or an LMF file, plain or
            compressed.
        names: Of synsets in a folder: ``"key"`` as in ``dog.n.01``, or ``"offset"`` as in
            ``n02084071``, which ImageNet uses; the offset is a link as well. LMF has ids of its
            own.
        words: Make each word of a synset an entity, and pointers between words triples between
            those.

    Returns:
        The tables. An entity's type is its part of speech; ``types`` adds the lexicographer's file,
        such as ``noun.animal``.

    Raises:
        GraphError: If a file is missing or malformed, or a pointer leads nowhere; says file and
            line.
    """
    if names not in ("key", "offset"):
        raise GraphError(f"names={names!r}: expected 'key' or 'offset'")
    place = Path(path)
    synsets, origins = (
        read_wndb(place, by_offset=names == "offset") if place.is_dir() else read_lmf(place)
    )
    return _Assembly(synsets, words).tables(origins)


class _Assembly:
    def __init__(self, synsets: Sequence[Synset], words: bool) -> None:
        self.synsets, self.words = synsets, words
        self.ids = {synset.key: number for number, synset in enumerate(synsets)}
        self.entities: list[tuple[str, str]] = [
            (synset.name, PARTS_OF_SPEECH.get(synset.pos, synset.pos)) for synset in synsets
        ]
        self.word_ids: dict[tuple[int, int], int] = {}
        self.texts: list[tuple[int, str, str | None, str]] = []
        self.relations: dict[str, int] = {}
        self.triples: list[tuple[int, int, int]] = []

    def tables(self, origins: Sequence[Origin]) -> Tables:
        for number, synset in enumerate(self.synsets):
            self._add_texts(number, synset)
        for number, synset in enumerate(self.synsets):
            self._add_pointers(number, synset)
        types = [(i, kind) for i, (_, kind) in enumerate(self.entities)]
        types += [(i, synset.topic) for i, synset in enumerate(self.synsets) if synset.topic]
        links = [(i, link) for i, synset in enumerate(self.synsets) for link in synset.links]
        return build_tables(
            {
                "entities": _frame("entities", ("name", "type"), self.entities),
                "types": _frame("types", ("entity", "type"), types),
                "relations": self._relation_frame(),
                "triples": _frame("triples", ("head", "relation", "tail"), self.triples),
                "texts": _frame("texts", ("entity", "text", "language", "kind"), self.texts),
                "links": _frame("links", ("entity", "url"), links),
            },
            tuple(origins),
        )

    def _add_texts(self, number: int, synset: Synset) -> None:
        for place, word in enumerate(synset.words):
            text = word.replace("_", " ")
            self.texts.append((number, text, synset.language, "alias" if place else "label"))
            if self.words:
                self.word_ids[number, place] = len(self.entities)
                self.texts.append((len(self.entities), text, synset.language, "label"))
                self._triple(number, HAS_WORD, len(self.entities))
                self.entities.append((f"{synset.name}.{word}", "word"))
        for gloss in synset.glosses:
            self.texts.append((number, gloss, synset.language, "description"))

    def _add_pointers(self, number: int, synset: Synset) -> None:
        for pointer in synset.pointers:
            target = self.ids.get(pointer.target)
            if target is None:
                raise GraphError(
                    f"{synset.where}: {pointer.relation} leads to {pointer.target}, nowhere "
                    "found; fetch all files of one version"
                )
            head, tail = number, target
            if self.words and pointer.words is not None:
                head = self.word_ids.get((number, pointer.words[0]), number)
                tail = self.word_ids.get((target, pointer.words[1]), target)
            self._triple(head, pointer.relation, tail)

    def _triple(self, head: int, relation: str, tail: int) -> None:
        number = self.relations.setdefault(relation, len(self.relations))
        self.triples.append((head, number, tail))

    def _relation_frame(self) -> pl.DataFrame:
        rows = []
        for name in self.relations:
            label, inverse = RELATIONS.get(name, (name.replace("_", " "), None))
            symmetric = True if inverse == name else None
            rows.append((name, label, None if symmetric else inverse, symmetric))
        return _frame("relations", ("name", "label", "inverse", "symmetric"), rows)


def _frame(table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {name: SCHEMAS[table][name] for name in columns}
    return pl.DataFrame(list(rows), schema=schema, orient="row")
