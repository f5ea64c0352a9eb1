"""The words of RDF that tables know: properties, and how terms are written in N-Triples.

An IRI is named as it is, every other term (blank node, triple term, literal as a node) as
N-Triples writes it.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping

import polars as pl

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
RDFS = "http://www.w3.org/2000/01/rdf-schema#"
OWL = "http://www.w3.org/2002/07/owl#"
SKOS = "http://www.w3.org/2004/02/skos/core#"
XSD = "http://www.w3.org/2001/XMLSchema#"
RDF_TYPE = f"{RDF}type"
RDFS_LABEL = f"{RDFS}label"
XSD_STRING = f"{XSD}string"
SAME_AS = f"{OWL}sameAs"
INVERSE_OF = f"{OWL}inverseOf"
SYMMETRIC = f"{OWL}SymmetricProperty"

KG = "urn:kgclip-terms:"  # words of our own, for what RDF has none
BASE = "urn:kgclip:"  # of names that are no IRI

TEXT_PROPERTIES: Mapping[str, str] = {  # property: kind of text
    RDFS_LABEL: "label",
    f"{SKOS}prefLabel": "label",
    "http://schema.org/name": "label",
    "https://schema.org/name": "label",
    "http://xmlns.com/foaf/0.1/name": "label",
    "http://purl.org/dc/terms/title": "label",
    f"{SKOS}altLabel": "alias",
    f"{RDFS}comment": "description",
    f"{SKOS}definition": "description",
    "http://schema.org/description": "description",
    "https://schema.org/description": "description",
    "http://purl.org/dc/terms/description": "description",
    "http://schema.org/caption": "caption",
    "https://schema.org/caption": "caption",
}
WRITTEN_TEXTS: Mapping[str, str] = {  # kind of text: property
    "label": RDFS_LABEL,
    "alias": f"{SKOS}altLabel",
    "description": f"{RDFS}comment",
    "caption": "http://schema.org/caption",
}
IMAGE_PROPERTIES = (
    "http://xmlns.com/foaf/0.1/depiction",
    "http://schema.org/image",
    "https://schema.org/image",
    "http://www.wikidata.org/prop/direct/P18",
)

# Every term that matches is an IRI by RFC 3987; not every IRI matches.
_RANGES = r"\u00A0-\uD7FF\uF900-\uFDCF\uFDF0-\uFFEF"
_FIRST = rf"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@{_RANGES}]|%[0-9A-Fa-f]{{2}})"
_NEXT = rf"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?{_RANGES}]|%[0-9A-Fa-f]{{2}})"
_HOST = r"//[A-Za-z0-9._\-]+(?::[0-9]+)?"
IRI = rf"<[A-Za-z][A-Za-z0-9+.\-]*:(?:{_HOST}(?:[/?]{_NEXT}*)?|{_FIRST}{_NEXT}*)(?:#{_NEXT}*)?>"

BLANK = r"_:[A-Za-z0-9_]+"
# The only types that must be checked are the RDF and XSD ones: no other is written otherwise.
_XSD_TYPE = r"<http://www\.w3\.org/2001/XMLSchema#(?:[a-rt-z][A-Za-z]*|short)>"
SUFFIX = rf"(?:@[a-z]{{2,3}}(?:-[a-z]{{2}})?|\^\^{_XSD_TYPE})?"  # of a literal, after its quote

# A triple term holds terms; what looks like a blank node may stand in a literal or an IRI of it.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|<[^<>" ]*>|_:[^\s"]+')
# Canonical N-Triples escapes these and nothing else.
ESCAPES: Mapping[str, str] = {
    **{chr(code): f"\\u{code:04X}" for code in (*range(0x20), 0x7F, 0xFFFE, 0xFFFF)},
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}


def unescape(strings: pl.Series) -> pl.Series:
    """What strings in canonical N-Triples say."""
    return strings.str.replace_many(list(ESCAPES.values()), list(ESCAPES))


def mint(name: str, base: str = BASE) -> str:
    """An IRI for a name that is none; :func:`kgclip.rdf.restoring.restore` gives the name back."""
    return base + urllib.parse.quote(name, safe="")


def plain_names(terms: pl.Series) -> pl.Series:
    """Names of N-Triples terms: IRIs lose their brackets, all else stays."""
    is_iri = terms.str.starts_with("<") & ~terms.str.starts_with("<<(")
    bare = terms.str.strip_chars("<>")
    return bare.zip_with(is_iri, terms)


def rename_blank(terms: pl.Series, rename: Callable[[str], str]) -> pl.Series:
    """Give blank nodes other names, also inside triple terms.

    Args:
        terms: As N-Triples writes them.
        rename: From ``_:old`` to ``_:new``; called in the order of the terms.
    """
    is_plain = terms.str.starts_with("_:")
    place = (is_plain | terms.str.starts_with("<<(")).fill_null(False).arg_true()
    if place.is_empty():
        return terms
    renamed = [
        rename(term)
        if term.startswith("_:")
        else TOKEN.sub(
            lambda found: rename(found[0]) if found[0].startswith("_:") else found[0], term
        )
        for term in terms.gather(place)
    ]
    return terms.clone().scatter(place, renamed)
