"""The reader by columns never differs from pyoxigraph alone, on no line whatsoever."""

import io

import pyoxigraph as ox
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kgclip.rdf.assembly import assemble
from kgclip.rdf.statements import StatementCollector, StatementOptions
from kgclip.sources import ntriples
from kgclip.sources.ntriples import CERTAIN, LineReader
from kgclip.sources.rdf import FORMATS
from kgclip.tables import GraphError
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


def ours(data, rdf_format, **options):
    """Tables, or the line where reading stopped."""
    collector = StatementCollector(StatementOptions(**options))
    try:
        for lines in LineReader("f", rdf_format).read(io.BytesIO(data)):
            collector.add(lines)
    except GraphError as error:
        return int(str(error).split(":")[1])
    return assemble(collector.numbered(), collector.options)


def first_refused(data, rdf_format):
    """The first line that pyoxigraph refuses when it is alone; it may itself name a later one."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            list(ox.parse(line, format=rdf_format))
        except SyntaxError:
            return number
    return None


def assert_agree(data, rdf_format, **options):
    mine = ours(data, rdf_format, **options)
    try:
        expected = reference_tables(data, rdf_format, **options)
    except SyntaxError:
        assert mine == first_refused(data, rdf_format), data
        return
    assert not isinstance(mine, int), f"we refuse what pyoxigraph reads: {data!r}"
    for name, frame in mine.frames().items():
        assert frame.equals(expected.frames()[name]), (name, data)


@pytest.mark.parametrize("rdf_format", CERTAIN, ids=lambda f: f.name)
@pytest.mark.parametrize("literals_as_nodes", [False, True])
@given(data=near_statements())
@settings(max_examples=150, deadline=None)
@example(data=b"")
@example(data=b"\n\n")
@example(data=b"<urn:a> <urn:b> <urn:a> .\n" * 2)
@example(data=b'<urn:a> <urn:b> "\xff" .\n')
@example(data=b"# \xff\n<urn:a> <urn:b> <urn:c> .\n")
def test_lanes_agree_on_lines_that_are_nearly_right(rdf_format, literals_as_nodes, data):
    assert_agree(data, rdf_format, literals_as_nodes=literals_as_nodes)


@pytest.mark.parametrize("suffix", [".nt", ".nq"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_lanes_agree_on_damaged_real_files(shared_data, suffix, data):
    files = sorted((shared_data / "w3c_rdf_tests").rglob("*.nt"))
    content = data.draw(st.sampled_from(files)).read_bytes()[:4000]
    assert_agree(data.draw(damaged(content)), FORMATS[suffix])


def test_blocks_do_not_show(monkeypatch):
    lines = [f'<urn:{i % 7}> <urn:r{i % 3}> "v{i}\\n" .' for i in range(50)]
    lines += [f"<urn:{i}> <urn:r> _:b{i} ." for i in range(50)]
    data = "\n".join(lines).encode()
    monkeypatch.setattr(ntriples, "BLOCK_BYTES", 64)
    assert_agree(data, FORMATS[".nt"])


@pytest.mark.parametrize("line", [
    "<urn:a> <urn:b> <urn:c> .", "<urn:a> <http://x.org/b#c> _:d1 .", '_:a <urn:b> "☃ c"@en-gb .',
    '<urn:a> <urn:b> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .',
])  # fmt: skip
def test_usual_lines_take_the_fast_lane(line, monkeypatch):
    """Else the reader would be right, but slow."""
    monkeypatch.setattr(LineReader, "_rewrite", None)
    [lines] = LineReader("f", ox.RdfFormat.N_TRIPLES).read(io.BytesIO(line.encode()))
    assert lines.to_list() == [line]


def test_an_endless_line_is_refused():
    data = io.BytesIO(b'<urn:a> <urn:b> "' + b"x" * 3000)
    reader = LineReader("f", ox.RdfFormat.N_TRIPLES, max_literal_bytes=1000)
    with pytest.raises(GraphError, match=r"more than 1,000 bytes; .* max_literal_bytes"):
        list(reader.read(data))
