"""Made-up RDF that looks like real dumps, any number of triples, the same bytes every time.

Of the triples 15 % have a literal (with language tags, datatypes, escapes), 2 % a blank node; a
few IRIs are not ASCII. Entities are as many as 15 % of the triples, the popular ones used often.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 100_000  # triples made at a time
NUM_PREDICATES = 40
XSD = "http://www.w3.org/2001/XMLSchema#"
RDFS_LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
RDFS_COMMENT = "<http://www.w3.org/2000/01/rdf-schema#comment>"
RDF_TYPE = "<http://www.w3.org/1999/02/22-rdf-syntax-ns#type>"
WORDS = (
    *("river", "mountain", "bridge", "castle", "museum", "garden", "station", "harbour"),
    *("valley", "island", "village", "market", "tower", "church", "palace", "forest", "lake"),
    *("school", "theatre", "library"),
)
ACCENTS = ("é", "ü", "ß", "ø", "λ", "山", "\\u00E9", "\\u6771")  # as they are, or escaped


def entity(number: int) -> str:
    """N-Triples term of an entity."""
    if number % 50 == 7:
        return f"_:b{number:x}"
    word = WORDS[number % len(WORDS)].title()
    if number % 100 == 3:
        return f"<http://example.org/resource/{word}_{ACCENTS[number % 8]}_{number}>"
    return f"<http://example.org/resource/{word}_{number}>"


def literal(number: int, entity_number: int) -> tuple[str, str]:
    """Predicate and object of a triple with a literal."""
    word = WORDS[number % len(WORDS)]
    kind = number % 20
    if kind < 8:
        language = ("en", "de", "fr", "en-GB", "ja", "es", "pt-br", "it")[kind]
        return RDFS_LABEL, f'"{word} {entity_number}"@{language}'
    if kind < 10:
        return RDFS_COMMENT, f'"A {word} that is \\"{WORDS[number % 7]}\\",\\nnumber {number}."@en'
    if kind < 14:
        return f"<http://example.org/ontology/count{kind}>", f'"{number % 5000}"^^<{XSD}integer>'
    if kind < 16:
        year = 1900 + number % 124
        return "<http://example.org/ontology/founded>", f'"{year}-01-02"^^<{XSD}date>'
    return "<http://example.org/ontology/code>", f'"{word.upper()}-{number % 90000}"'


def lines(num_triples: int, seed: int = 0) -> Iterator[str]:
    """N-Triples, one text of at most ``BLOCK`` lines at a time."""
    generator = np.random.default_rng(seed)
    num_entities = max(10, int(0.15 * num_triples))
    for start in range(0, num_triples, BLOCK):
        count = min(BLOCK, num_triples - start)
        heads = (num_entities * generator.random(count) ** 1.3).astype(np.int64)
        tails = (num_entities * generator.random(count) ** 2).astype(np.int64)
        predicates = (NUM_PREDICATES - 6) * generator.random(count) ** 2
        chance = generator.random(count)
        numbers = generator.integers(0, 10**6, count)
        yield "".join(
            statement(*row)
            for row in zip(
                heads.tolist(),
                predicates.astype(np.int64).tolist(),
                tails.tolist(),
                chance.tolist(),
                numbers.tolist(),
                strict=True,
            )
        )


def statement(head: int, predicate: int, tail: int, chance: float, number: int) -> str:
    """One line."""
    if chance < 0.15:
        relation, value = literal(number, head)
        return f"{entity(head)} {relation} {value} .\n"
    if chance < 0.2:
        return f"{entity(head)} {RDF_TYPE} <http://example.org/ontology/C{number % 60}> .\n"
    relation = f"<http://example.org/ontology/property{predicate}>"
    return f"{entity(head)} {relation} {entity(tail)} .\n"


def write_ntriples(file: Path, num_triples: int, seed: int = 0) -> Path:
    """Write a file, unless it is there."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as stream:
            stream.writelines(lines(num_triples, seed))
        partial.rename(file)
    return file


def write_turtle(ntriples: Path, file: Path) -> Path:
    """Write the same triples as Turtle, subjects grouped and names abbreviated."""
    import pyoxigraph as ox

    prefixes = {
        "r": "http://example.org/resource/",
        "o": "http://example.org/ontology/",
        "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
        "xsd": XSD,
    }
    if not file.exists():
        quads = ox.parse(path=ntriples, format=ox.RdfFormat.N_TRIPLES)
        triples = sorted((quad.triple for quad in quads), key=lambda triple: str(triple.subject))
        ox.serialize(triples, str(file), format=ox.RdfFormat.TURTLE, prefixes=prefixes)
    return file


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--triples", type=int, default=2_000_000)
    parser.add_argument("--turtle", type=Path, help="write the same as Turtle, too")
    options = parser.parse_args()
    write_ntriples(options.file, options.triples)
    if options.turtle:
        write_turtle(options.file, options.turtle)
