"""A SPARQL endpoint as a source: what a CONSTRUCT or SELECT query finds, page by page."""

from __future__ import annotations

import io
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import Any

import polars as pl
import pyoxigraph as ox

from kgclip.progress import track
from kgclip.rdf.assembly import assemble
from kgclip.rdf.statements import StatementCollector, StatementOptions
from kgclip.rdf.terms import TEXT_PROPERTIES
from kgclip.sources.ntriples import CERTAIN, LineReader
from kgclip.sources.rdf import parse_blocks
from kgclip.tables import GraphError, Origin, Tables

_ACCEPT = {
    "CONSTRUCT": "application/n-triples, text/turtle;q=0.5, application/rdf+xml;q=0.2",
    "SELECT": "application/sparql-results+json",
}
_WORTH_A_RETRY = (429, 500, 502, 503, 504)
_LONGEST_WAIT_SECONDS = 60.0
_COMMENT = re.compile(r"<[^<>\s]*>|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|#[^\n]*")


def read_sparql(
    address: str,
    *,
    query: str,
    page_size: int = 10_000,
    timeout_seconds: float = 60.0,
    retries: int = 3,
    literals: str = "table",
    text_properties: Mapping[str, str] | None = None,
    languages: Sequence[str] | None = None,
    same_as: str = "link",
) -> Tables:
    """Read what a query finds at a SPARQL endpoint.

    A query without ``LIMIT`` or ``OFFSET`` is asked page by page until a page is empty, ordered
    by its variables unless it says how. A page must not be larger than what the endpoint gives
    at once. Blank nodes have no name that outlives a page: those of two pages are two.

    Args:
        address: Of the endpoint, ``http:`` or ``https:``.
        query: ``CONSTRUCT``, or ``SELECT`` with three variables: head, relation and tail.
        page_size: Solutions a request.
        timeout_seconds: For each request.
        retries: Further tries of a request that failed for a passing reason (no answer, busy),
            after 1, 2, 4, … seconds, or when the endpoint says.
        literals: See :func:`kgclip.sources.rdf.read_rdf`, also for what follows.
        text_properties: Property IRI to kind of text.
        languages: Languages of texts in order of preference.
        same_as: ``"link"`` or ``"merge"``.

    Returns:
        The tables.

    Raises:
        GraphError: If the address or the query is wrong, or the endpoint refuses, does not
            answer or answers nonsense; says what it answered.
    """
    if not address.startswith(("http://", "https://")):
        raise GraphError(f"{address!r}: expected the http(s) address of a SPARQL endpoint")
    for name, value, known in (
        ("literals", literals, ("table", "nodes")),
        ("same_as", same_as, ("link", "merge")),
    ):
        if value not in known:
            raise GraphError(f"{name}={value!r}: expected {known[0]!r} or {known[1]!r}")
    options = StatementOptions(
        literals_as_nodes=literals == "nodes",
        text_properties=TEXT_PROPERTIES if text_properties is None else text_properties,
        languages=languages,
        merge_same=same_as == "merge",
    )
    endpoint = _Endpoint(address, timeout_seconds, retries)
    collector = StatementCollector(options)
    pages = _pages(endpoint, query, page_size)
    has_blank = has_warned = False
    for page, lines in track(enumerate(pages), f"asking {address}", lambda found: len(found[1])):
        has_blank = has_blank or bool(lines.str.contains(r"^(?:\S+ \S+ )?_:").any())
        if page and has_blank and not has_warned:
            warnings.warn(
                f"{address}: blank nodes on several pages; one that is on two is now two: give a "
                "larger page_size",
                stacklevel=2,
            )
            has_warned = True
        collector.add(lines, blank_label=f"p{page}_")
    return assemble(collector.numbered(), options, (Origin(_public(address)),))


def _public(address: str) -> str:
    """The address without a password or a query in it."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")
    )


def _pages(endpoint: _Endpoint, query: str, page_size: int) -> Iterator[pl.Series]:
    """Statements of each page in canonical form."""
    words = _COMMENT.sub(" ", query)
    form = re.search(r"\b(CONSTRUCT|SELECT)\b", words, re.IGNORECASE)
    if form is None:
        raise GraphError("query: neither CONSTRUCT nor SELECT; expected one of them")
    kind = form[1].upper()
    if re.search(r"\b(LIMIT|OFFSET)\s+\d+", words, re.IGNORECASE):
        yield endpoint.ask(query, kind)[0]
        return
    if page_size < 1:
        raise GraphError(f"page_size={page_size}: expected at least 1")
    variables = sorted(set(re.findall(r"[?$]\w+", words)))
    is_ordered = re.search(r"\bORDER\s+BY\b", words, re.IGNORECASE) or not variables
    order = "" if is_ordered else f"\nORDER BY {' '.join(variables)}"
    offset = 0
    while True:
        lines, count = endpoint.ask(f"{query}{order}\nLIMIT {page_size} OFFSET {offset}", kind)
        if not count:
            return
        yield lines
        offset += count if kind == "SELECT" else page_size


class _Endpoint:
    def __init__(self, address: str, timeout_seconds: float, retries: int) -> None:
        self.address, self.timeout_seconds, self.retries = address, timeout_seconds, retries

    def ask(self, query: str, kind: str) -> tuple[pl.Series, int]:
        """Statements in canonical form, and the number of solutions or statements."""
        data, media_type = self._post(query, _ACCEPT[kind])
        lines = self._selected(data) if kind == "SELECT" else self._constructed(data, media_type)
        return lines, len(lines)

    def _constructed(self, data: bytes, media_type: str) -> pl.Series:
        rdf_format = ox.RdfFormat.from_media_type(media_type)
        if rdf_format is None:
            raise GraphError(f"{self.address}: answered {media_type}, which is no RDF")
        stream = io.BytesIO(data)
        blocks = (
            LineReader(self.address, rdf_format).read(stream)
            if rdf_format in CERTAIN
            else (
                pl.read_lines(block).to_series()
                for block in parse_blocks(self.address, stream, rdf_format, base_iri=self.address)
            )
        )
        found = list(blocks)
        return pl.concat(found) if found else pl.Series([], dtype=pl.String())

    def _selected(self, data: bytes) -> pl.Series:
        try:
            results = ox.parse_query_results(data, format=ox.QueryResultsFormat.JSON)
            if not isinstance(results, ox.QuerySolutions) or len(results.variables) != 3:
                raise GraphError("query: SELECT must name three variables: head, relation, tail")
            rows = [[solution[i] for i in range(3)] for solution in results]
        except (SyntaxError, ValueError) as error:
            if isinstance(error, GraphError):
                raise
            raise GraphError(
                f"{self.address}: the answer is no SPARQL result in JSON ({error})"
            ) from error
        return pl.Series([self._line(*row) for row in rows], dtype=pl.String())

    def _line(self, head: Any, relation: Any, tail: Any) -> str:
        if None in (head, relation, tail):
            raise GraphError("query: a solution leaves a variable unbound; expected all three")
        try:
            quad = ox.Quad(head, relation, tail)
        except TypeError as error:
            raise GraphError(
                f"query: {head} {relation} {tail} is no triple; expected an IRI or blank node, an "
                "IRI, and any term"
            ) from error
        written: bytes = ox.serialize([quad], format=ox.RdfFormat.N_QUADS)  # type: ignore[assignment]
        return written.decode().removesuffix("\n")

    def _post(self, query: str, accept: str) -> tuple[bytes, str]:
        """Ask until there is an answer or no try is left; the body and its media type."""
        request = urllib.request.Request(
            self.address,
            data=urllib.parse.urlencode({"query": query}).encode(),
            headers={"Accept": accept, "User-Agent": "kgclip"},
        )
        for attempt in range(self.retries + 1):
            wait = 2.0**attempt
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
                    return answer.read(), answer.headers.get_content_type()
            except urllib.error.HTTPError as error:
                reason = f"status {error.code}: {_excerpt(error)}"
                passing = error.code in _WORTH_A_RETRY
                asked = error.headers.get("Retry-After", "")
                wait = float(asked) if asked.isdigit() else wait
            except (HTTPException, OSError) as error:  # no connection, a timeout, a cut-off answer
                reason, passing = f"{type(error).__name__}: {error}", True
            if not passing or attempt == self.retries:
                break
            time.sleep(min(wait, _LONGEST_WAIT_SECONDS))
        advice = "try again later, or a smaller page_size or a larger timeout_seconds"
        raise GraphError(
            f"{self.address}: no answer after {attempt + 1} tries ({reason}); "
            f"{advice if passing else 'mend the query or the address'}"
        )


def _excerpt(error: urllib.error.HTTPError) -> str:
    text = error.read(500).decode(errors="replace").strip()
    return " ".join(text.split()) or error.reason
