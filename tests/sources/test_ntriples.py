"""The reader by columns never differs from pyoxigraph alone, on no line whatsoever."""

import io

import pyoxigraph as ox
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kgclip.rdf.assembly import assemble
from kgclip.rdf.statement_kernels import CompiledCollector
from kgclip.rdf.statements import StatementCollector, StatementOptions
from kgclip.sources import ntriples
from kgclip.sources.ntriples import CERTAIN, LineReader
from kgclip.sources.rdf import FORMATS
from kgclip.tables import GraphError, Tables
from tests.rdf.reference import reference_tables

TERMS = [
    *("<urn:a>", "<http://x.org/a#b>", "<http://x.org:80/é?q=/>", "<a>", "<http://x:y/>"),
    *("<urn:%zz>", "<urn:a b>", "<urn:\\u0061>", "<urn:a#b#c>", "<http://[::1]/>", "<urn:>"),
    *("<file:///a>", "<1:a>", "_:a", "_:a.b", "_:é", "_:-", "_:"),
    *("<<( <urn:a> <urn:b> _:c )>>", '<<( _:a <urn:b> "x _:y" )>>'),
    *('""', '"a"', '"a\\n\\u00e9\\"b"', '"\\q"', '"a"b"', '"x"@en', '"x"@EN-gb', '"x"@en--ltr'),
    *('"x"@a-b', '"x"@abcdefghij', '"1"^^<urn:t>', '"\x01\x0b"', '"\x7f\ufffe"'),
    *('"<urn:a> ."', '"a _:b"', '"☃"'),
    '"x"^^<http://www.w3.org/2001/XMLSchema#string>',
    '"1"^^<http://www.w3.org/2001/XMLSchema#integer>',
    '"1"^^<http://www.w3.org/2001/XMLSchema#short>',
    '"x"^^<http://www.w3.org/1999/02/22-rdf-syntax-ns#langString>',
    *("# comment", ".", "", "oops", "'x'", "@prefix", "\r", "\t", "\x00"),
]
SPACES = [" ", " ", " ", " ", "\t", "", "  ", "\r", "\u00a0", "\n"]
ENDS = [" .\n", " .\n", " .\n", ".\n", " . # note\n", " .\r\n", "\n", " .", " . .\n", " .\r"]


@st.composite
def near_statements(draw):
    """Text whose lines are nearly statements: some are, some are not, by little."""
    text = ""
    for _ in range(draw(st.integers(0, 4))):
        for _ in range(draw(st.sampled_from([3, 3, 3, 3, 4, 2, 1]))):
            text += draw(st.sampled_from(TERMS) | st.text(max_size=3)) + draw(
                st.sampled_from(SPACES)
            )
        text = text.rstrip(" ") + draw(st.sampled_from(ENDS))
    return text.encode(errors="surrogatepass")


@st.composite
def damaged(draw, data):
    """Data with some bytes cut out, doubled, or replaced."""
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 5))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + length :]
    return data


def by_polars(data, rdf_format, options, label):
    collector = StatementCollector(options)
    for lines in LineReader("f", rdf_format).read(io.BytesIO(data)):
        collector.add(lines, blank_label=label)
    return collector


def by_compiled_code(data, rdf_format, options, label):
    collector = CompiledCollector(options)
    for _ in LineReader("f", rdf_format).read_into(io.BytesIO(data), collector, blank_label=label):
        pass
    return collector


READERS = {"polars": by_polars, "compiled": by_compiled_code}


def ours(reader, data, rdf_format, label="", **options):
    """Tables, or the line where reading stopped, or what is wrong at the end."""
    try:
        collector = READERS[reader](data, rdf_format, StatementOptions(**options), label)
    except GraphError as error:
        return int(str(error).split(":")[1])
    try:
        return assemble(collector.numbered(), collector.options)
    except GraphError as error:
        return str(error)


def first_refused(data, rdf_format):
    """The first line that pyoxigraph refuses when it is alone; it may itself name a later one."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            list(ox.parse(line, format=rdf_format))
        except SyntaxError:
            return number
    return None


def assert_agree(reader, data, rdf_format, **options):
    mine = ours(reader, data, rdf_format, **options)
    try:
        expected = reference_tables(data, rdf_format, **options)
    except SyntaxError:
        assert mine == first_refused(data, rdf_format), data
        return
    assert not isinstance(mine, int), f"we refuse what pyoxigraph reads: {data!r}"
    for name, frame in mine.frames().items():
        assert frame.equals(expected.frames()[name]), (name, data)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("rdf_format", CERTAIN, ids=lambda f: f.name)
@pytest.mark.parametrize("literals_as_nodes", [False, True])
@given(data=near_statements())
@settings(max_examples=150, deadline=None)
@example(data=b"")
@example(data=b"\n\n")
@example(data=b"<urn:a> <urn:b> <urn:a> .\n" * 2)
@example(data=b'<urn:a> <urn:b> "\xff" .\n')
@example(data=b"# \xff\n<urn:a> <urn:b> <urn:c> .\n")
@example(data=b"<urn:a> <urn:b> <urn:c> <http:/> .\n" * 2)
def test_lanes_agree_on_lines_that_are_nearly_right(reader, rdf_format, literals_as_nodes, data):
    assert_agree(reader, data, rdf_format, literals_as_nodes=literals_as_nodes)


@given(data=near_statements(), names=st.sampled_from([None, ["urn:a", ""], ["_:a"]]))
@settings(max_examples=150, deadline=None)
@example(data=b"<urn:a> <urn:b> _:c _:a .\n_:a <urn:b> <<( _:a <urn:b> _:d )>> .\n", names=None)
@example(data=b"<urn:a> <urn:b> _:c _:a .\n<urn:a> <urn:b> _:d .\n", names=["_:a"])
@example(data=b"<urn:a> <urn:b> _:c _:a .\n", names=["_:f1_a"])
def test_labels_of_blank_nodes_and_chosen_graphs_agree(data, names):
    found = [
        ours(reader, data, ox.RdfFormat.N_QUADS, label="f1_", graphs=names) for reader in READERS
    ]
    if not all(isinstance(tables, Tables) for tables in found):
        assert found[0] == found[1]
        return
    slow, quick = (tables.frames() for tables in found)
    assert all(frame.equals(quick[name]) for name, frame in slow.items())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".nt", ".nq"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_lanes_agree_on_damaged_real_files(shared_data, reader, suffix, data):
    files = sorted((shared_data / "w3c_rdf_tests").rglob("*.nt"))
    content = data.draw(st.sampled_from(files)).read_bytes()[:4000]
    assert_agree(reader, data.draw(damaged(content)), FORMATS[suffix])


@pytest.mark.parametrize("reader", READERS)
def test_blocks_do_not_show(monkeypatch, reader):
    lines = [f'<urn:{i % 7}> <urn:r{i % 3}> "v{i}\\n" .' for i in range(50)]
    lines += [f"<urn:{i}> <urn:r> _:b{i} ." for i in range(50)]
    data = "\n".join(lines).encode()
    monkeypatch.setattr(ntriples, "BLOCK_BYTES", 64)
    assert_agree(reader, data, FORMATS[".nt"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("line", [
    "<urn:a> <urn:b> <urn:c> .", "<urn:a> <http://x.org/b#c> _:d1 .", '_:a <urn:b> "☃ c"@en-gb .',
    '<urn:a> <urn:b> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .',
])  # fmt: skip
def test_usual_lines_take_the_fast_lane(reader, line, monkeypatch):
    """Else the reader would be right, but slow."""
    monkeypatch.setattr(LineReader, "_rewrite", None)
    assert_agree(reader, line.encode(), ox.RdfFormat.N_TRIPLES)
    assert_agree(reader, f"{line}\r\n".encode() * 2, ox.RdfFormat.N_TRIPLES)


def test_canonical_escapes_need_no_parser(monkeypatch):
    monkeypatch.setattr(LineReader, "_rewrite", None)
    line = rb'<urn:a> <urn:b> "\"a\"\n\\ \t\b\f\r"@en .'
    assert_agree("compiled", line, ox.RdfFormat.N_TRIPLES)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("end", [b"", b'" .\n<urn:a> <urn:b> <urn:c> .\n'])
def test_an_endless_line_is_refused(reader, end):
    data = b'<urn:a> <urn:b> <urn:c> .\n<urn:a> <urn:b> "' + b"x" * 3000 + end
    lines = LineReader("f", ox.RdfFormat.N_TRIPLES, max_literal_bytes=1000)
    if reader == "polars":
        found = lines.read(io.BytesIO(data))
    else:
        found = lines.read_into(io.BytesIO(data), CompiledCollector(StatementOptions()))
    with pytest.raises(GraphError, match=r"f:2: .*more than 1,000 bytes; .* max_literal_bytes"):
        list(found)
