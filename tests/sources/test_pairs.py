import io
import json
import tarfile

import pytest
from PIL import Image

from kgclip.sources import read_graph
from kgclip.tables import GraphError

CAPTIONS = [("a.png", "a red square"), ("b.png", "a blue one"), ("a.png", "another red one")]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (4, 4), colour).save(folder / name)
    return folder


def write_coco(path, captions):
    names = list(dict.fromkeys(name for name, _ in captions))
    path.write_text(
        json.dumps(
            {
                "images": [{"id": names.index(name), "file_name": name} for name in names],
                "annotations": [
                    {"image_id": names.index(name), "caption": text} for name, text in captions
                ],
            }
        )
    )
    return path


def write_table(path, captions):
    lines = ["filepath\ttitle", *("\t".join(pair) for pair in captions)]
    path.write_text("\n".join(lines))
    return path


def write_shard(path, samples):
    with tarfile.open(path, "w") as archive:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def described(graph):
    """Captions by the colour of the picture's first pixel."""
    found = {}
    for row, entity in enumerate(graph.images["entity"]):
        colour = Image.open(graph.image_path(row)).convert("RGB").getpixel((0, 0))
        texts = graph.texts.filter(entity=entity, kind="caption")["text"].to_list()
        found["red" if colour[0] > 200 else "blue"] = texts
    return found


EXPECTED = {"red": ["a red square", "another red one"], "blue": ["a blue one"]}


def test_coco_and_csv(tmp_path, pictures):
    coco = write_coco(tmp_path / "captions.json", CAPTIONS)
    table = write_table(tmp_path / "train.csv", CAPTIONS)
    for file in (coco, table):
        graph = read_graph(file, format="pairs", images=pictures)
        assert described(graph) == EXPECTED
        assert graph.num_triples == 0
        assert graph.entities["type"].to_list() == ["image", "image"]


def test_shards(tmp_path, pictures):
    (tmp_path / "shards").mkdir()
    for number, (name, text) in enumerate(CAPTIONS):
        picture = (pictures / name).read_bytes()
        caption = text.encode() if number else json.dumps({"title": text}).encode()
        write_shard(
            tmp_path / f"shards/{number}.tar",
            [("../x/001.png", picture), (f"../x/001.{'txt' if number else 'json'}", caption)],
        )
    graph = read_graph(tmp_path / "shards", format="pairs", images=tmp_path / "unpacked")
    assert graph.num_entities == 3  # a picture of each shard is its own
    assert sorted(graph.texts["text"]) == sorted(text for _, text in CAPTIONS)
    assert all(graph.image_path(row).is_relative_to(tmp_path / "unpacked") for row in range(3))


def test_captions_as_entities(tmp_path, pictures):
    file = write_coco(tmp_path / "captions.json", [*CAPTIONS, ("b.png", "a red square")])
    graph = read_graph(file, format="pairs", images=pictures, triples=True)
    assert graph.num_entities == 2 + 3  # a caption that occurs twice is one entity
    assert graph.num_triples == 2 * 4
    labels, relations = graph.labels(), graph.relations["name"]
    said = {
        (graph.entities["name"][h], relations[r], labels[t])
        for h, r, t in graph.triples.select("head", "relation", "tail").iter_rows()
    }
    assert ("image:b.png", "is an image of", "a red square") in said
    back = {relations[r] for r in graph.triples["relation"][4:]}
    assert back == {"is a caption of"}


def test_real_captions(shared_data):
    graph = read_graph(
        shared_data / "coco_mini/annotations/captions_train2017.json",
        format="pairs", images=shared_data / "coco_mini/train2017",
    )  # fmt: skip
    assert (len(graph.images), len(graph.texts)) == (80, 400)


def test_broken_pairs_are_named_or_counted(tmp_path, pictures):
    table = write_table(tmp_path / "a.tsv", [*CAPTIONS, ("c.png", "no file"), ("a.png", "")])
    with pytest.raises(GraphError, match=r"c\.png: no such picture.*on_error='skip'"):
        read_graph(table, format="pairs", images=pictures)
    with pytest.warns(UserWarning, match="2 pairs left out"):
        graph = read_graph(table, format="pairs", images=pictures, on_error="skip")
    assert described(graph) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "picture,title\na.png,x", "no column 'filepath'; the header has picture, title"),
        ("a.csv", "filepath,title\na.png", ":2: 1 fields, 2 expected"),
        ("a.csv", "filepath,title\na.png\rx,y", ":2: 1 fields, 2 expected"),
        ("a.csv", "filepath,title\na\0.png,x", r"no picture 'a\\x00\.png'"),
        ("a.json", '{"images": [', "a.json:1: not JSON"),
        ("a.json", "[]", "COCO's keys"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 3}]}', "annotation 1.*image 3"),
        ("a.json", '{"images": [], "annotations": []}', "no image-text pair"),
        ("a.csv", "filepath,title\n../../etc/passwd,x", "leaves the folder"),
    ],
)
def test_bad_files(name, text, message, tmp_path, pictures):
    (tmp_path / name).write_text(text)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path / name, format="pairs", images=pictures)


def test_bad_shards(tmp_path, pictures):
    shard = write_shard(tmp_path / "a.tar", [("1.png", b"x"), ("2.txt", b"y")])
    with pytest.raises(GraphError, match="need images="):
        read_graph(shard, format="pairs")
    with pytest.raises(GraphError, match="sample '1': no caption"):
        read_graph(shard, format="pairs", images=tmp_path)
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(GraphError, match="damaged or cut off"):
        read_graph(shard, format="pairs", images=tmp_path)


def test_broken_samples_of_shards_are_named_or_counted(tmp_path, pictures):
    (tmp_path / "shards").mkdir()
    red, blue = ((pictures / name).read_bytes() for name in ("a.png", "b.png"))
    write_shard(
        tmp_path / "shards/0.tar",
        [("1.png", red), ("1.txt", b"a red square"), ("2.png", blue), ("2.json", b"{not JSON"),
         ("3.png", blue), ("3.txt", b"\xff\xfe"), ("4.txt", b"no picture")],
    )  # fmt: skip
    cut = write_shard(
        tmp_path / "shards/1.tar",
        [("1.png", blue), ("1.txt", b"a blue one"), ("2.png", bytes(5000)), ("2.txt", b"lost")],
    )
    cut.write_bytes(cut.read_bytes()[: 512 * 4 + 3000])
    wanted = {"format": "pairs", "images": tmp_path / "unpacked"}
    with pytest.raises(GraphError, match=r"0\.tar: sample '2': no caption in \.txt, or in \.json"):
        read_graph(tmp_path / "shards", **wanted)
    with pytest.warns(UserWarning, match="4 pairs left out"):
        graph = read_graph(tmp_path / "shards", **wanted, on_error="skip")
    assert graph.texts["text"].to_list() == ["a red square", "a blue one"]
