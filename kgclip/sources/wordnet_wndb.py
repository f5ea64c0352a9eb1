"""WordNet's own database: ``data.noun``, ``index.noun`` and their like, a synset a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kgclip.progress import track
from kgclip.sources.compression import open_binary, origin_of
from kgclip.sources.wordnet_synset import Pointer, Synset
from kgclip.tables import GraphError, Origin

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
# wninput(5WN); the backslash is a pertainym of an adjective, a derivation of an adverb.
POINTERS = {
    "!": "antonym", "@": "hypernym", "@i": "instance_hypernym", "~": "hyponym",
    "~i": "instance_hyponym", "#m": "holo_member", "#s": "holo_substance", "#p": "holo_part",
    "%m": "mero_member", "%s": "mero_substance", "%p": "mero_part", "=": "attribute",
    "+": "derivation", ";c": "domain_topic", "-c": "has_domain_topic", ";r": "domain_region",
    "-r": "has_domain_region", ";u": "exemplifies", "-u": "is_exemplified_by", "*": "entails",
    ">": "causes", "^": "also", "$": "verb_group", "&": "similar", "<": "participle",
    "\\": "pertainym",
}  # fmt: skip
# lexnames(5WN), by number.
TOPICS = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
    *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event"),
    *("noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object"),
    *("noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process"),
    *("noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance"),
    *("noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication"),
    *("verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion"),
    *("verb.motion", "verb.perception", "verb.possession", "verb.social", "verb.stative"),
    *("verb.weather", "adj.ppl"),
)
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand


def read_wndb(folder: Path, by_offset: bool) -> tuple[list[Synset], list[Origin]]:
    """Read a ``dict/`` folder.

    Args:
        folder: With ``data.<pos>`` and ``index.<pos>``.
        by_offset: Name synsets ``n02084071`` and not ``dog.n.01``.

    Returns:
        The synsets and the files.

    Raises:
        GraphError: If a file is missing or a line malformed; says file and line.
    """
    present = {pos: part for pos, part in FILES.items() if (folder / f"data.{part}").is_file()}
    if not present:
        raise GraphError(f"{folder}: no data.noun in it; a dict/ folder of WordNet expected")
    synsets, origins = [], []
    for pos, part in track(present.items(), f"reading {folder.name}"):
        data, index = folder / f"data.{part}", folder / f"index.{part}"
        senses = {} if by_offset else _senses(index)
        for number, line in _lines(data):
            synset = _parse(data, number, line, pos)
            if not by_offset:
                synset.name = _name(synset, senses, index)
            synsets.append(synset)
        origins += [origin_of(data), *([] if by_offset else [origin_of(index)])]
    return synsets, origins


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines after the licence, which is indented."""
    with open_binary(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.startswith(b"  ") or not line.strip():
                continue
            try:
                yield number, line.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise GraphError(f"{file}:{number}: not UTF-8; convert the file") from error


def _senses(file: Path) -> dict[str, list[str]]:
    """Offsets of each lemma's senses, the most frequent first."""
    senses = {}
    for number, line in _lines(file):
        fields = line.split()
        try:  # lemma pos synset_cnt p_cnt [symbol...] sense_cnt tagsense_cnt offset...
            offsets = fields[6 + int(fields[3]) :]
            if len(offsets) != int(fields[2]):
                raise ValueError(f"{len(offsets)} offsets, {fields[2]} announced")
        except (ValueError, IndexError) as error:
            raise GraphError(f"{file}:{number}: no line of an index ({error})") from error
        senses[fields[0]] = offsets
    return senses


def _parse(file: Path, number: int, line: str, pos: str) -> Synset:
    where = f"{file}:{number}"
    facts, bar, gloss = line.partition("|")
    fields = iter(facts.split())
    try:
        offset, topic, kind = next(fields), TOPICS[int(next(fields))], next(fields)
        count = int(next(fields), 16)
        words = [_MARKER.sub("", (next(fields), next(fields))[0]) for _ in range(count)]
        pointers = [
            _pointer(next(fields), next(fields), next(fields), next(fields))
            for _ in range(int(next(fields)))
        ]
    except (StopIteration, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise GraphError(
            f"{where}: no line of a data file ({error or 'too short'}); expected offset, file, "
            "type, words, pointers | gloss"
        ) from error
    if not bar or not words:
        raise GraphError(f"{where}: no gloss or no word; is the line cut off?")
    key = f"{pos}{offset}"
    return Synset(
        key=key, name=key, pos=kind, where=where, topic=topic, words=words,
        glosses=[gloss.strip()] if gloss.strip() else [], links=[key], pointers=pointers,
    )  # fmt: skip


def _pointer(symbol: str, offset: str, pos: str, ends: str) -> Pointer:
    source, target = int(ends[:2], 16), int(ends[2:], 16)
    words = (source - 1, target - 1) if source and target else None
    return Pointer(POINTERS[symbol], f"{'a' if pos == 's' else pos}{offset}", words)


def _name(synset: Synset, senses: dict[str, list[str]], index: Path) -> str:
    """``dog.n.01``: first word, part of speech, place among the word's senses."""
    lemma = synset.words[0].lower()
    try:
        place = senses[lemma].index(synset.key[1:])
    except (KeyError, ValueError) as error:
        raise GraphError(
            f"{synset.where}: {lemma!r} has no such sense in {index.name}; fetch all files of one "
            "version"
        ) from error
    return f"{lemma}.{synset.pos}.{place + 1:02d}"
