"""ConceptNet: the piecewise reader says what a line-by-line one says, filters and bad lines too."""

import gzip
import json
import warnings
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.sources import conceptnet, read_graph
from kgclip.sources.assertions import AssertionReader
from kgclip.sources.conceptnet import read_conceptnet, relation_label
from kgclip.tables import GraphError


def line(relation, start, end, weight=1.0, dataset="/d/x/en", **about):
    info = {"dataset": dataset, "license": "cc:by/4.0", "sources": [{"contributor": "/s/c"}]}
    info |= about | {"weight": weight}
    text = json.dumps(info, ensure_ascii=False)
    return f"/a/[{relation}/,{start}/,{end}/]\t{relation}\t{start}\t{end}\t{text}\n"


LINES = [
    line("/r/IsA", "/c/en/dog/n", "/c/en/animal", 2.0, surfaceText="[[a dog]] is [[an animal]]",
         surfaceStart="a dog", surfaceEnd="an animal"),
    line("/r/Synonym", "/c/en/dog", "/c/de/hund", 0.5, "/d/wiktionary/en"),
    line("/r/ExternalURL", "/c/en/dog", "http://dbpedia.org/resource/Dog"),
    line("/r/AtLocation", "/c/de/hund", "/c/de/garten", dataset="/d/wiktionary"),
    line("/r/IsA", "/c/en/hot_dog", "/c/en/food", 3, surfaceText='[[hot dog]] "is" [[food]]'),
    line("/r/dbpedia/genre", "/c/en/dog/n/wn/animal", "/c/en/food", dataset="/d/wiktionaryx"),
]  # fmt: skip


def write(folder, lines, name="a.csv"):
    data = "".join(lines).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def facts(tables):
    """Triples, texts and links with names, as multisets."""
    entities, relations = tables.entities["name"], tables.relations["name"]
    triples = Counter(
        (entities[h], relations[r], entities[t], weight, source)
        for h, r, t, weight, source, *_ in tables.triples.iter_rows()
    )
    texts = Counter((entities[e], *rest) for e, *rest in tables.texts.iter_rows())
    links = Counter((entities[e], url) for e, url in tables.links.iter_rows())
    return triples, texts, links


def slow_facts(lines, keeps, fold=False):
    """The obvious reader: every line, every JSON, one after the other."""
    triples, said, links, names = Counter(), {}, Counter(), {}

    def entity(uri):
        name = "/".join(uri.split("/")[:4]) if fold else uri
        names[name] = uri.split("/")
        return name

    for row in lines:
        _, relation, start, end, text = row.rstrip("\n").split("\t")
        about = json.loads(text)
        if not keeps(relation, start, end, about):
            continue
        if relation == "/r/ExternalURL":
            links[entity(start), end] += 1
            continue
        head, tail = entity(start), entity(end)
        triples[head, relation, tail, float(about["weight"]), about["dataset"]] += 1
        for key, owner, kind in (
            ("surfaceStart", head, "alias"),
            ("surfaceEnd", tail, "alias"),
            ("surfaceText", head, "description"),
        ):
            if key in about:
                said[owner, about[key], names[owner][2], kind] = 1
    labels = {name: parts[3].replace("_", " ") for name, parts in names.items()}
    texts = Counter(key for key in said if key[3] != "alias" or key[1] != labels[key[0]])
    texts += Counter((name, labels[name], parts[2], "label") for name, parts in names.items())
    return triples, texts, links


def in_english(relation, start, end, about):
    return start.startswith("/c/en/") and (relation == "/r/ExternalURL" or end.startswith("/c/en/"))


FILTERS = {
    "all": ({}, lambda *_: True),
    "English": ({"languages": ["en"]}, in_english),
    "one relation": ({"relations": "IsA"}, lambda r, *_: r == "/r/IsA"),
    "relations": (
        {"relations": ["/r/Synonym", "ExternalURL"]},
        lambda r, *_: r in ("/r/Synonym", "/r/ExternalURL"),
    ),
    "weight": ({"min_weight": 1.0}, lambda r, s, e, about: about["weight"] >= 1),
    "dataset": (
        {"datasets": "/d/wiktionary"},
        lambda r, s, e, about: (about["dataset"] + "/").startswith("/d/wiktionary/"),
    ),
    "no language": ({"languages": []}, lambda *_: False),
    "all of them": (
        {"languages": ["en", "de"], "min_weight": 0.6, "datasets": ["/d/x"], "relations": ["IsA"]},
        lambda r, s, e, about: r == "/r/IsA" and about["dataset"] == "/d/x/en",
    ),
}


@pytest.fixture(params=["line by line", "compiled"])
def lane(request, monkeypatch):
    """Every file goes one way, whatever its size."""
    size = 0 if request.param == "compiled" else 2**62
    monkeypatch.setattr(conceptnet, "COMPILED_FROM", size)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(("options", "keeps"), FILTERS.values(), ids=FILTERS)
def test_filters_keep_what_the_slow_reader_keeps(tmp_path, lane, options, keeps, fold):
    tables = read_conceptnet(write(tmp_path, LINES), senses="fold" if fold else "keep", **options)
    assert facts(tables) == slow_facts(LINES, keeps, fold)


TEXTS = st.text(
    st.characters(exclude_characters="\t\n\r\x00", codec="utf-8"), min_size=1, max_size=6
)
TERMS = st.builds(
    lambda language, term: f"/c/{language}/{term}",
    st.sampled_from(["en", "zh"]),
    st.text(st.characters(exclude_characters="\t\n\r/\x00", codec="utf-8"), min_size=1, max_size=3),
)
ROWS = st.builds(
    lambda relation, start, end, weight, about: line(relation, start, end, weight, **about),
    st.sampled_from(["/r/IsA", "/r/ExternalURL", "/r/Synonym"]),
    TERMS,
    TERMS,
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    st.dictionaries(
        st.sampled_from(["surfaceText", "surfaceStart", "surfaceEnd", "dataset", "license"]), TEXTS
    ),
)


def both_lanes(file, piece_bytes=2**22, **options):
    """Tables, or the error, of a file that is read line by line and by compiled code."""
    found = []
    for size in (2**62, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conceptnet, "PIECE_BYTES", piece_bytes)
            patch.setattr(conceptnet, "COMPILED_FROM", size)
            try:
                tables = read_conceptnet(file, **options)
                found.append({name: frame.rows() for name, frame in tables.frames().items()})
            except GraphError as error:
                found.append(str(error))
    return found


@given(st.lists(ROWS, min_size=1, max_size=6), st.sampled_from([1, 300, 2**21]))
@settings(max_examples=50, deadline=None)
def test_any_line_is_read_as_the_slow_reader_reads_it(tmp_path_factory, rows, piece_bytes):
    file = write(tmp_path_factory.mktemp("cn"), rows)
    slow, quick = both_lanes(file, piece_bytes, languages="en")
    assert slow == quick
    assert facts(read_conceptnet(file, languages="en")) == slow_facts(rows, in_english)


PIECES = [
    "a", "é", "]], ", '"', "\\", "\\x", "\\u12", *("\\" + letter for letter in '"\\/bfnrt'),
    *("\\u" + digits for digits in ("0041", "00e9", "D7ff", "uFFFF", "ud83d", "d83d", "dE00")),
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_people_say_is_read_as_json_reads_it(tmp_path_factory, said, in_name):
    text = (
        '{"dataset": "/d/x", "license": "l", "sources": [{"contributor": "c"}], '
        f'"surfaceEnd": "{said if in_name else ""}", "surfaceStart": "s", '
        f'"surfaceText": "{said}", "weight": 1.5}}'
    )
    row = f"/a/\t/r/IsA\t/c/en/a\t/c/en/b\t{text}\n"
    slow, quick = both_lanes(write(tmp_path_factory.mktemp("cn"), [row]))
    assert slow == quick


def test_quotes_and_lines_within_what_was_said_are_usual(tmp_path, monkeypatch):
    monkeypatch.setattr(conceptnet, "COMPILED_FROM", 0)
    monkeypatch.setattr(AssertionReader, "add", None)
    said = '[[a]]\n"is"\\ [[b]]'
    tables = read_conceptnet(
        write(tmp_path, [line("/r/IsA", "/c/en/a", "/c/en/b", surfaceText=said)])
    )
    assert tables.texts["text"].to_list() == ["a", "b", said]


MUTATIONS = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 2**16)),
    st.tuples(st.sampled_from([b"\t", b"\n", b"\r", b"\x00", b"\xff", b"\xc3", b'"', b"\\", b"], ",
                               "é".encode(), "日".encode(), "🙂".encode(), b"\xed\xa0\x80"]),
              st.integers(0, 2**16)),
)  # fmt: skip


@given(
    st.lists(st.sampled_from(LINES) | ROWS, min_size=1, max_size=5),
    st.lists(MUTATIONS, min_size=1, max_size=4),
    st.sampled_from([1, 2**21]),
)
@settings(max_examples=200, deadline=None)
def test_damaged_files_are_read_or_refused_alike(tmp_path_factory, rows, mutations, piece_bytes):
    data = "".join(rows).encode()
    for change, place in mutations:
        place %= len(data)
        data = data[:place] + (b"" if change == "cut" else change) + data[place + 1 :]
        data = data or b"\n"
    file = tmp_path_factory.mktemp("cn") / "a.csv"
    file.write_bytes(data)
    slow, quick = both_lanes(file, piece_bytes)
    assert slow == quick
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slow, quick = both_lanes(file, piece_bytes, on_error="skip", languages="en")
    assert slow == quick


def test_beginnings_longer_than_a_word_and_odd_characters(tmp_path, lane):
    lines = [
        line("/r/EtymologicallyRelatedTo", "/c/roa_opt/a", "/c/roa_opt/\x01b", weight=0.1234567),
        line("/r/EtymologicallyRelatedTo", "/c/roa_op/a", "/c/roa_opt/b"),
        line("/r/EtymologicallyRelated", "/c/roa_opt/a", "/c/roa_opt/b"),
    ]
    file = write(tmp_path, [text.replace("\n", "\r\n") for text in lines])

    def keeps(relation, start, end, about):
        return (relation, start) == ("/r/EtymologicallyRelatedTo", "/c/roa_opt/a")

    tables = read_conceptnet(file, languages="roa_opt", relations="EtymologicallyRelatedTo")
    assert facts(tables) == slow_facts(lines, keeps)
    link = write(tmp_path, [line("/r/ExternalURL", "/c/a", "/c/x/y")])
    assert read_conceptnet(link, languages="a\t/c/x").entities.is_empty()


def test_the_tables_of_a_few_lines(tmp_path, lane):
    graph = read_graph(write(tmp_path, LINES, "a.csv.gz"), format="conceptnet", languages=["en"])
    assert graph.entities["name"].to_list()[:2] == ["/c/en/dog/n", "/c/en/animal"]
    assert graph.labels()[:2] == ["dog", "animal"]
    is_a = graph.relations.row(0, named=True)
    assert (is_a["name"], is_a["label"], is_a["symmetric"]) == ("/r/IsA", "is a", None)
    described = graph.texts.filter(pl.col("kind") == "description")["text"].to_list()
    assert described == ["[[a dog]] is [[an animal]]", '[[hot dog]] "is" [[food]]']
    assert graph.links["url"].to_list() == ["http://dbpedia.org/resource/Dog"]
    assert graph.origins[0].name == "a.csv.gz"
    bare = read_conceptnet(tmp_path / "a.csv.gz", surfaces=False)
    assert set(bare.texts["kind"]) == {"label"}


def test_names_without_a_language_or_a_term_are_their_own_label(tmp_path, lane):
    rows = [line("/r/IsA", "/c/en", "x/c/en/dog"), line("/r/IsA", "/c/en/hot_dog/n", "/c/de/a_/b")]
    texts = facts(read_conceptnet(write(tmp_path, rows)))[1]
    assert set(texts) == {
        ("/c/en", "/c/en", "en", "label"),
        ("x/c/en/dog", "x/c/en/dog", None, "label"),
        ("/c/en/hot_dog/n", "hot dog", "en", "label"),
        ("/c/de/a_/b", "a ", "de", "label"),
    }


def test_the_checksum_is_that_of_the_file(tmp_path, lane):
    import hashlib

    for name in ("a.csv", "a.csv.gz"):
        file = write(tmp_path, LINES, name)
        expected = hashlib.sha256(file.read_bytes()).hexdigest()
        assert read_conceptnet(file).origins[0].sha256 == expected


BAD = {
    "too few fields": ("a\tb\tc\n", "3 fields, expected 5"),
    "too many fields": (LINES[1].replace("\n", "\tx\n"), "6 fields, expected 5"),
    "far too many": ("a\t" * 9 + "\n", "expected 5"),
    "an empty field": ("/a/\t/r/IsA\t\t/c/en/x\t{}\n", "fields, expected 5"),
    "JSON cut in the middle": (LINES[0][:-20] + "\n", "bad JSON"),
    "JSON without weight": (LINES[0].replace("weight", "height"), "no weight"),
    "JSON with a text for a number": (LINES[0].replace("2.0}", '"x"}'), "bad JSON"),
    "JSON of another kind": (LINES[0].split("{")[0] + "[1]\n", "is no object"),
}


@pytest.mark.parametrize("piece_bytes", [1, 2**21])
@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_bad_lines_are_named_or_counted(tmp_path, monkeypatch, lane, bad, message, piece_bytes):
    monkeypatch.setattr(conceptnet, "PIECE_BYTES", piece_bytes)
    file = write(tmp_path, [LINES[0], "\n", bad, *LINES[1:]])
    with pytest.raises(GraphError, match=rf"a\.csv:3: .*{message}"):
        read_conceptnet(file)
    with pytest.warns(UserWarning, match=r"a\.csv: 1 lines skipped: 1 × .*\(line 3\)"):
        tables = read_conceptnet(file, on_error="skip")
    assert facts(tables) == slow_facts(LINES, lambda *_: True)


def test_bytes_that_are_no_text(tmp_path, lane):
    file = tmp_path / "a.csv"
    file.write_bytes(LINES[0].encode() + LINES[1].encode().replace(b"hund", b"h\xfcnd"))
    with pytest.raises(GraphError, match=r"a\.csv:2: not UTF-8"):
        read_conceptnet(file)


def test_unusable_files_and_options(tmp_path):
    with pytest.raises(GraphError, match="empty"):
        read_conceptnet(write(tmp_path, []))
    with pytest.raises(GraphError, match="no such file"):
        read_conceptnet(tmp_path / "absent.csv")
    file = write(tmp_path, LINES * 50, "b.csv.gz")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(GraphError, match="damaged or cut off"):
        read_conceptnet(file)
    for options, message in (
        ({"senses": "drop"}, "'keep' or 'fold'"),
        ({"on_error": "ignore"}, "'raise' or 'skip'"),
    ):
        with pytest.raises(GraphError, match=message):
            read_conceptnet(write(tmp_path, LINES), **options)


def test_no_final_newline(tmp_path, lane):
    file = write(tmp_path, [LINES[0], LINES[1].rstrip("\n")])
    assert len(read_conceptnet(file).triples) == 2


def test_the_real_excerpt(shared_data, lane):
    file = shared_data / "conceptnet5_excerpt" / "assertions" / "assertions.csv"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    assert facts(read_conceptnet(file)) == slow_facts(lines, lambda *_: True)
    tables = read_conceptnet(file)
    assert (len(tables.triples), len(tables.links), len(tables.relations)) == (682, 82, 15)
    assert facts(read_conceptnet(file, languages="en")) == slow_facts(lines, in_english)


@pytest.mark.parametrize(
    ("name", "label"),
    [("/r/HasFirstSubevent", "has first subevent"), ("/r/IsA", "is a"),
     ("/r/dbpedia/knownFor", "known for"), ("/r/HasA", "has a")],
)  # fmt: skip
def test_relations_become_readable(name, label):
    assert relation_label(name) == label
