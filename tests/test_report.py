from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image
from rich.console import Console

from kgclip.metrics import load_metrics, summarise, write_metrics
from kgclip.report import headline_chart, print_table, write_report
from kgclip.report_text import OPENMOJI_CREDIT, SCENES, WORLD
from kgclip.tables import GraphError


def sample_values(num_seeds: int) -> dict[str, dict[str, list[float]]]:
    """Figures of every row for every key that applies to it; they differ by run, key and seed."""
    text = ("clip", "clip_matched", "verbalised", "verbalised_matched", "knowledge")
    values: dict[str, dict[str, list[float]]] = {}
    for place, run in enumerate(WORLD.runs):
        keys = [
            f"{split}/{task}/{scoring}/{metric}"
            for split in ("known_facts", "new_entities", "new_entities_no_overlap")
            for task in ("fact_to_image", "image_to_fact")
            for scoring in (("encoder", "linked", "given") if run in text else ("linked", "given"))
            for metric in ("mrr", "hits@1", "hits@10")
        ]
        if run in text:
            keys += [
                f"{split}/retrieval/encoder/recall@{k}"
                for split in ("unseen_pictures", "flags")
                for k in (1, 10)
            ]
            keys += ["unseen_pictures/subgroup/encoder/top1", "flags/link/encoder/top1"]
        values[run] = {
            key: [
                0.05 + 0.05 * place + 0.002 * number + 0.01 * seed * (-1) ** place
                for seed in range(num_seeds)
            ]
            for number, key in enumerate(keys)
        }
    return values


def sample_metrics(path, num_seeds: int = 3, **extra):
    return write_metrics(
        path,
        sample_values(num_seeds),
        split_seed=1234,
        seeds=list(range(num_seeds)),
        seconds={"clip": [19.5] * num_seeds, "knowledge": 60},
        extra=extra,
    )


@pytest.fixture
def galleries(tmp_path):
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"flag{number}.png")
        Image.new("RGB", (8, 8), (60 * number, 100, 200 - 50 * number)).save(paths[-1])
    names = ["Kenya", "Chad <&>", "Côte d’Ivoire", "Peru"]
    return [
        {
            "title": title,
            "rows": {
                run: [
                    {"path": str(paths[i]), "label": names[i], "correct": i == place % 3}
                    for i in range(4)
                ]
                for place, run in enumerate(("clip", "knowledge"))
            },
        }
        for title in ("region: Africa", "currency: Shilling & co")
    ]


def sample_curves():
    return {
        run: [
            {"step": step, "loss": 3.0, "loss/contrastive": 4 / step, "loss/e2e": 3 / step, "lr": 1}
            for step in (1, 10, 20, 30)
        ]
        for run in ("clip", "knowledge")
    }


def test_summarise_by_hand():
    one = summarise([0.2, 0.3, 0.7])
    assert one.mean == pytest.approx(0.4)
    assert one.sd == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    # The 97.5 % quantile of Student's t with two degrees of freedom is 4.30265 in every table.
    assert one.half_width == pytest.approx(4.30265 * one.sd / math.sqrt(3), rel=1e-5)


def test_one_seed_has_no_spread():
    one = summarise([0.25])
    assert (one.mean, one.sd, one.half_width) == (0.25, None, None)


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, math.inf]])
def test_summarise_refuses_what_is_no_number(values):
    with pytest.raises(ValueError, match="finite"):
        summarise(values)


def test_metrics_have_exactly_the_promised_shape(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    written = write_metrics(
        path,
        {"clip": {"b/x": [0.5, 0.7], "a/x": [1.0, 1.0]}},
        split_seed=7,
        seeds=[0, 3],
        seconds={"clip": [1.5, 2.5]},
        extra={"command": "make demo"},
    )
    assert written == {
        "split_seed": 7,
        "seeds": [0, 3],
        "seconds": {"clip": [1.5, 2.5]},
        "command": "make demo",
        "results": {
            "clip": {
                "a/x": {"mean": 1.0, "sd": 0.0, "values": [1.0, 1.0]},
                "b/x": {
                    "mean": 0.6,
                    "sd": pytest.approx(math.sqrt(0.02)),
                    "values": [0.5, 0.7],
                },
            }
        },
    }
    assert load_metrics(path) == written
    assert list(path.parent.iterdir()) == [path]


def test_bad_figures_leave_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    sample_metrics(path)
    before = path.read_bytes()
    for values, message in (
        ({"clip": {"a/x": [math.nan, 1.0]}}, "finite"),
        ({"clip": {"a/x": [0.5]}}, "1 values given, 2 expected"),
        ({"clip": {"a/x": []}}, "finite"),
    ):
        with pytest.raises(GraphError, match=message):
            write_metrics(path, values, split_seed=1, seeds=[0, 1], seconds={})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "metrics.json"
    path.mkdir()
    with pytest.raises(OSError, match=r"metrics\.json"):
        sample_metrics(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "no JSON"),
        ("[]", "split_seed: NoneType given, int expected"),
        ('{"split_seed": 1, "seeds": [0], "seconds": {}}', "results: NoneType given"),
        (
            '{"split_seed": 1, "seeds": [0], "seconds": {}, "results": {"r": {"k": {"mean": 1}}}}',
            "r, k: .'mean'. given",
        ),
        (
            '{"split_seed": 1, "seeds": [0], "seconds": {}, "results": {"r": {"k": 1}}}',
            "r, k: int given",
        ),
        (
            '{"split_seed": 1, "seeds": [0], "seconds": {}, "results": {"r": 1}}',
            "r: int given",
        ),
    ],
)
def test_broken_metrics_are_refused(tmp_path, text, message):
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(GraphError, match=message):
        load_metrics(path)


class Page(HTMLParser):
    """What a page refers to, its ids, and whether its elements are closed."""

    VOID = ("meta", "br", "image", "use", "path", "link", "img", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_attributes(tag, attributes)

    def handle_startendtag(self, tag, attributes):
        self.handle_attributes(tag, attributes)

    def handle_attributes(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href", "srcset"):
                self.references.append((tag, value))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write_sample(tmp_path, galleries, num_seeds=3, name="report.html", **extra):
    path = tmp_path / name
    write_report(
        path,
        sample_metrics(tmp_path / "metrics.json", num_seeds, **extra),
        curves=sample_curves(),
        galleries=galleries,
        credit=OPENMOJI_CREDIT,
        intro="Flags & facts.",
    )
    return path.read_text("utf-8")


def test_the_page_stands_alone(tmp_path, galleries):
    text = write_sample(tmp_path, galleries)
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for tag, reference in page.references:
        if tag == "a":
            continue  # a link loads nothing
        assert reference.startswith("data:image/") or reference[1:] in page.ids, reference
    urls = re.findall(r"url\(([^)]*)\)", text)
    assert urls
    assert all(url[0] == "#" and url[1:] in page.ids for url in urls)
    assert "<script" not in text
    assert "@import" not in text
    assert str(tmp_path) not in text
    # Each picture once, though it is shown four times.
    assert text.count("data:image/png;base64,") == 4


def test_the_page_tells_what_it_must(tmp_path, galleries):
    text = write_sample(tmp_path, galleries, machine="two cores")
    page = Page(text)
    for word in (
        *WORLD.runs,
        "CC BY-SA 4.0",
        "Chad <&>",
        "Shilling & co",
        "two cores",
        "1234",
        "✓",
    ):
        assert word in page.text, word
    assert ("a", "https://openmoji.org") in page.references
    values = sample_values(3)["knowledge"]["new_entities/fact_to_image/linked/mrr"]
    summary = summarise(values)
    assert f"{summary.mean:.3f}".lstrip("0") in page.text
    assert f"±{summary.half_width:.3f}".replace("±0", "±") in page.text
    assert f"{summary.mean:.3f}" in text.split('id="headline-')[0] + page.text
    # Every section begins with a sentence.
    sections = text.split("<section>")[1:]
    assert len(sections) == 9
    for section in sections:
        assert re.match(r"\s*<h2>[^<]+</h2>\s*<p>[A-Z][^<]+[.:]", section), section[:200]


def test_every_figure_is_in_the_tables(tmp_path):
    values = sample_values(1)
    path = tmp_path / "report.html"
    write_report(path, sample_metrics(tmp_path / "metrics.json", 1))
    cells = re.findall(r"<td>(.*?)</td>", path.read_text("utf-8"))
    shown = [re.sub(r"<[^>]+>|★", "", cell).strip() for cell in cells]
    expected = [
        f"{number:.3f}".lstrip("0") for figures in values.values() for (number,) in figures.values()
    ]
    assert sorted(cell for cell in shown if cell != "–") == sorted(expected)
    assert "±" not in "".join(shown)


def test_the_same_figures_give_the_same_bytes(tmp_path, galleries):
    first = write_sample(tmp_path, galleries, name="a.html")
    assert write_sample(tmp_path, galleries, name="b.html") == first
    assert not re.search(r"20\d\d-\d\d-\d\d", first)


def test_other_keys_than_the_worlds_are_shown(tmp_path):
    metrics = write_metrics(
        tmp_path / "metrics.json",
        {"$a_1$<b>": {"scenes/binding/encoder/accuracy": [0.5], "plain": [1.0]}},
        split_seed=0,
        seeds=[0],
        seconds={},
    )
    path = tmp_path / "report.html"
    write_report(path, metrics, text=dataclasses.replace(WORLD, title="Scenes <1>"))
    page = Page(path.read_text("utf-8"))
    for word in ("Scenes <1>", "$a_1$<b>", "binding", "accuracy", ".500", "1.00", "plain"):
        assert word in page.text, word
    assert "OpenMoji" not in page.text
    console = Console(file=io.StringIO(), width=80)
    print_table(metrics, console)
    assert "scenes" in console.file.getvalue()


@pytest.mark.parametrize(
    ("name", "message"), [("none.png", "cannot be read"), ("flag.bmp", "no picture")]
)
def test_unreadable_pictures_leave_the_old_page(tmp_path, name, message):
    path = tmp_path / "report.html"
    path.write_text("old")
    item = {"path": str(tmp_path / name), "label": "Kenya", "correct": True}
    with pytest.raises(GraphError, match=message):
        write_report(
            path,
            sample_metrics(tmp_path / "metrics.json"),
            galleries=[{"title": "t", "rows": {"clip": [item]}}],
        )
    assert path.read_text() == "old"


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_terminal_table_fits_and_holds_the_key_figures(tmp_path, num_seeds):
    metrics = sample_metrics(tmp_path / "metrics.json", num_seeds)
    console = Console(file=io.StringIO(), width=80)
    print_table(metrics, console)
    text = console.file.getvalue()
    for run in WORLD.runs:
        assert run in text
    figure = metrics["results"]["knowledge"]["new_entities/fact_to_image/linked/mrr"]
    assert f"{figure['mean']:.3f}".lstrip("0") in text
    assert "…" not in text
    assert ("±" in text) == (num_seeds > 1)


def test_the_report_never_loads_torch():
    program = "import sys, kgclip.report; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "False"), run.stderr


def test_another_experiment_brings_its_own_words(tmp_path):
    values = {run: {key: [0.5] for key in SCENES.columns.values()} for run in SCENES.runs}
    metrics = write_metrics(tmp_path / "metrics.json", values, split_seed=0, seeds=[0], seconds={})
    write_report(tmp_path / "report.html", metrics, text=SCENES)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    words = (SCENES.title, SCENES.reading, *SCENES.runs.values(), SCENES.splits["held_out_pairs"])
    assert all(word in page.text for word in words)
    for word in ("flag", "MRR", "emoji"):
        assert word not in page.text
    chart = headline_chart(metrics, SCENES)
    assert "clip, reverse: 0.500" in chart
    assert "clip, binding: 0.500" in chart
    console = Console(file=io.StringIO(), width=80)
    print_table(metrics, console, SCENES)
    assert "binding" in console.file.getvalue()


def test_metrics_file_is_plain_json(tmp_path):
    path = tmp_path / "metrics.json"
    sample_metrics(path, 1)
    figure = json.loads(path.read_text())["results"]["clip"]["flags/link/encoder/top1"]
    assert set(figure) == {"mean", "sd", "values"}
    assert figure["sd"] is None
