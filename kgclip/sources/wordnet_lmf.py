"""Wordnets as Global WordNet's LMF XML, read without building a tree.

A document that declares entities is refused: nested ones blow up a parser, and no wordnet needs
them. Nothing outside the file is ever loaded.
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

from kgclip.progress import track
from kgclip.sources.compression import open_binary, origin_of
from kgclip.sources.wordnet_synset import Pointer, Synset
from kgclip.tables import GraphError, Origin

CHUNK_BYTES = 2**20
_TEXTS = ("Definition", "Example")


def read_lmf(file: Path) -> tuple[list[Synset], list[Origin]]:
    """Read an LMF file.

    Args:
        file: Plain or compressed.

    Returns:
        The synsets in the order of the file, and the file.

    Raises:
        GraphError: If the file is missing, no LMF or malformed, declares entities, or a sense
            names no synset; says file and line.
    """
    document = _Document(file)
    with open_binary(file) as stream:
        chunks = iter(lambda: stream.read(CHUNK_BYTES), b"")
        for chunk in track(chunks, f"reading {file.name}", len):
            document.feed(chunk)
        document.feed(b"", is_final=True)
    return document.joined(), [origin_of(file)]


class _Document:
    """Takes an LMF document apart, element by element."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.letters
        self.parser.EntityDeclHandler = self.refuse
        self.root: str | None = None
        self.language: str | None = None
        self.word = ""
        self.sense = ""
        self.synset: Synset | None = None
        self.text: list[str] | None = None
        self.synsets: dict[str, Synset] = {}
        self.members: dict[str, list[str]] = {}  # synset: words, in the order of the entries
        self.senses: dict[str, tuple[str, int, str]] = {}  # sense: synset, place, where
        self.sense_pointers: list[tuple[str, str, str, str]] = []  # where, source, relation, target

    @property
    def where(self) -> str:
        return f"{self.file}:{self.parser.CurrentLineNumber}"

    def feed(self, data: bytes, is_final: bool = False) -> None:
        try:
            self.parser.Parse(data, is_final)
        except expat.ExpatError as error:
            raise GraphError(
                f"{self.file}:{error.lineno}: no XML ({expat.ErrorString(error.code)}); fetch the "
                "file again"
            ) from error
        except LookupError as error:
            raise GraphError(f"{self.where}: {error}; convert the file to UTF-8") from error

    def refuse(self, name: str, *_: object) -> None:
        raise GraphError(f"{self.where}: declares the entity {name!r}; a wordnet needs none")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self.root is None:
            self.root = name
            if name != "LexicalResource":
                raise GraphError(f"{self.where}: <{name}>, <LexicalResource> of LMF expected")
        try:
            self._start(name, attributes)
        except KeyError as error:
            raise GraphError(f"{self.where}: <{name}> has no attribute {error}") from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "Lexicon":
            self.language = attributes.get("language")
        elif name == "Lemma":
            self.word = attributes["writtenForm"]
        elif name == "Sense":
            self.sense, synset = attributes["id"], attributes["synset"]
            members = self.members.setdefault(synset, [])
            self.senses[self.sense] = synset, len(members), self.where
            members.append(self.word)
        elif name == "SenseRelation":
            pointer = (self.where, self.sense, attributes["relType"], attributes["target"])
            self.sense_pointers.append(pointer)
        elif name == "Synset":
            self._start_synset(attributes)
        elif name == "SynsetRelation" and self.synset is not None:
            self.synset.pointers.append(Pointer(attributes["relType"], attributes["target"]))
        elif name in _TEXTS and self.synset is not None:
            self.text = []

    def _start_synset(self, attributes: dict[str, str]) -> None:
        key = attributes["id"]
        if key in self.synsets:
            raise GraphError(f"{self.where}: the synset {key!r} is there twice")
        ili = attributes.get("ili", "")
        self.synset = self.synsets[key] = Synset(
            key=key, name=key, pos=attributes.get("partOfSpeech", "synset"), where=self.where,
            topic=attributes.get("lexfile", attributes.get("dc:subject", "")),
            language=self.language, links=[ili] if ili not in ("", "in") else [],
        )  # fmt: skip

    def letters(self, text: str) -> None:
        if self.text is not None:
            self.text.append(text)

    def end(self, name: str) -> None:
        if name in _TEXTS and self.text is not None and self.synset is not None:
            said = " ".join("".join(self.text).split())
            self.synset.glosses += [said] if said else []
            self.text = None
        elif name == "Synset":
            self.synset = None

    def joined(self) -> list[Synset]:
        """Synsets with their words and the pointers between words."""
        if self.root is None:
            raise GraphError(f"{self.file}: empty; LMF XML expected")
        for sense, (synset, _, where) in self.senses.items():
            if synset not in self.synsets:
                raise GraphError(f"{where}: the sense {sense!r} is of no synset: {synset!r}")
        for key, words in self.members.items():
            self.synsets[key].words = words
        for where, source, relation, target in self.sense_pointers:
            if target not in self.senses:
                raise GraphError(
                    f"{where}: {relation} leads to the sense {target!r}, nowhere found"
                )
            synset, place, _ = self.senses[source]
            other, other_place, _ = self.senses[target]
            self.synsets[synset].pointers.append(Pointer(relation, other, (place, other_place)))
        return list(self.synsets.values())
