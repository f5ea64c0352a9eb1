"""A real SPARQL server on loopback: pyoxigraph's store behind http.server."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pyoxigraph as ox
import pytest

from kgclip.sources import read_graph, sparql
from kgclip.tables import GraphError

DATA = """
@prefix : <http://x/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
:a :near :b, :c ; rdfs:label "A"@en, "Ah"@de . :b :near :c ; :size 3 . :c a :City .
"""
ALL = "SELECT ?h ?r ?t WHERE { ?h ?r ?t }"
CONSTRUCT = "CONSTRUCT { ?h ?r ?t } WHERE { ?h ?r ?t } # LIMIT 3"


class Server(ThreadingHTTPServer):
    """Answers queries; ``failures`` says how the first answers go wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = ox.Store()
        self.store.load(DATA.encode(), format=ox.RdfFormat.TURTLE)
        self.failures, self.queries, self.media_type = [], [], None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/sparql"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        query = parse_qs(body)["query"][0]
        server.queries.append(query)
        if server.failures:
            failure = server.failures.pop(0)
            if failure == "hang":
                time.sleep(0.6)
                return
            if failure == "cut":
                self.answer(200, b"<http", "application/n-triples", length=99)
                return
            self.answer(failure, b"too  busy", "text/plain", **{"Retry-After": "0"})
            return
        try:
            results = server.store.query(query)
        except SyntaxError as error:
            self.answer(400, str(error).encode(), "text/plain")
            return
        if isinstance(results, ox.QueryTriples):
            media_type = server.media_type or "application/n-triples"
            syntax = ox.RdfFormat.from_media_type(media_type) or ox.RdfFormat.N_TRIPLES
            data = results.serialize(format=syntax)
        else:
            media_type = "application/sparql-results+json"
            data = results.serialize(format=ox.QueryResultsFormat.JSON)
        self.answer(200, data, server.media_type or media_type)

    def answer(self, status, data, media_type, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length or len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(sparql, "_LONGEST_WAIT_SECONDS", 0.01)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, query=ALL, **options):
    return read_graph(server.address, format="sparql", query=query, **options)


@pytest.mark.parametrize("query", [ALL, CONSTRUCT, "CONSTRUCT WHERE { ?h ?r ?t }"])
@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 1000])
def test_pages_give_what_the_store_holds(server, tmp_path, query, page_size):
    (tmp_path / "all.ttl").write_text(DATA)
    whole = read_graph(tmp_path / "all.ttl")
    graph = ask(server, query, page_size=page_size)
    assert sorted(graph.entities["name"]) == sorted(whole.entities["name"])
    assert graph.num_triples == whole.num_triples == 4
    assert sorted(graph.texts["text"]) == ["A", "Ah"]
    assert graph.literals.height == 3
    assert graph.types.height == 1
    assert len(server.queries) >= 7 // page_size, "asked page by page"
    assert graph.origins[0].name == server.address


def test_a_limit_of_ones_own_is_asked_once(server):
    assert ask(server, f"{ALL} ORDER BY ?h LIMIT 2").triples.height <= 2
    assert len(server.queries) == 1


@pytest.mark.parametrize("media_type", ["text/turtle", "application/rdf+xml"])
def test_other_syntaxes_are_understood(server, media_type):
    server.media_type = media_type
    assert ask(server, CONSTRUCT).num_triples == 4


def test_options_of_rdf(server):
    assert ask(server, literals="nodes").num_triples == 7
    assert ask(server, languages=["de", "en"]).texts["text"].to_list() == ["Ah"]


@pytest.mark.parametrize("failure", [503, 429, "cut", "hang"])
def test_passing_failures_are_tried_again(server, failure):
    server.failures = [failure, failure]
    assert ask(server, CONSTRUCT, timeout_seconds=0.3).num_triples == 4
    server.failures = [failure] * 2
    with pytest.raises(GraphError, match="no answer after 2 tries"):
        ask(server, timeout_seconds=0.3, retries=1)


def test_blank_nodes_of_two_pages_are_two(server):
    server.store.load(b"_:x <http://x/near> _:x .", format=ox.RdfFormat.TURTLE)
    with pytest.warns(UserWarning, match="give a larger page_size"):
        ask(server, page_size=2)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT ?h WHERE { ?h ?r ?t }", "three variables"),
        ("SELECT ?t ?r ?h WHERE { ?h ?r ?t }", "is no triple"),
        ("SELECT ?h ?r ?x WHERE { ?h ?r ?t }", "unbound"),
        ("SELECT ?h ?r ?t WHERE { oops }", r"after 1 tries \(status 400: .*mend the query"),
        ("ASK { ?h ?r ?t }", "neither CONSTRUCT nor SELECT"),
    ],
)
def test_wrong_queries_are_named(server, query, message):
    with pytest.raises(GraphError, match=message):
        ask(server, query)


def test_wrong_answers_are_named(server):
    server.media_type = "text/html"
    with pytest.raises(GraphError, match="text/html, which is no RDF"):
        ask(server, CONSTRUCT)
    server.failures = [404]
    with pytest.raises(GraphError, match="status 404: too busy"):
        ask(server)
    with pytest.raises(GraphError, match="expected the http"):
        read_graph("file:///etc/passwd", format="sparql", query=ALL)
    with pytest.raises(GraphError, match="no answer after 1 tries"):
        read_graph("http://127.0.0.1:9/", format="sparql", query=ALL, retries=0)
