"""What all tests share: the real data, the GPU, one thread, and the count of skipped tests.

``tests/skipped.txt`` states how many tests need the data folder and how many a GPU. With
``--check-skips`` a run of the whole suite fails if another number needs them, if a test is
skipped though what it needs is there, or for any other reason.
"""

from __future__ import annotations

import json
import os

# Before torch and numpy are imported: several threads only disturb each other in small tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPED = Path(__file__).parent / "skipped.txt"
DATA = Path(os.environ.get("KGCLIP_DATA", ROOT.parent / "shared" / "data"))
REASONS = ("cuda", "data")

needed_key = pytest.StashKey[Counter[str]]()
skipped_key = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; ``KGCLIP_DATA`` names another one."""
    if not DATA.is_dir():
        if os.environ.get("KGCLIP_REQUIRE_DATA") == "1":
            pytest.fail(f"KGCLIP_REQUIRE_DATA=1, but {DATA} is no folder; set KGCLIP_DATA")
        pytest.skip(f"data: {DATA} is no folder; set KGCLIP_DATA")
    return DATA


@pytest.fixture(scope="session")
def openmoji_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where :func:`openmoji_tables` puts its pictures, 32 pixels wide, in ``images/``."""
    return tmp_path_factory.mktemp("openmoji")


@pytest.fixture(scope="session")
def openmoji_tables(openmoji_folder: Path):
    """The OpenMoji world, read once for all tests."""
    from kgclip.sources.openmoji import read_openmoji

    return read_openmoji(openmoji_folder / "images", size=32)


@pytest.fixture(scope="session")
def scene_tables(tmp_path_factory: pytest.TempPathFactory):
    """A hundred scenes of twenty emoji, and the folder that their paths start from."""
    from kgclip.sources.openmoji_scenes import read_openmoji_scenes

    folder = tmp_path_factory.mktemp("scenes")
    tables = read_openmoji_scenes(
        folder / "images", num_train=60, num_valid=10, num_test=10, num_nouns=20
    )
    return tables, folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--check-skips", action="store_true", help="compare skipped tests with tests/skipped.txt"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[needed_key] = Counter()
    config.stash[skipped_key] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needed = config.stash[needed_key]
    for item in items:
        needed["data"] += "shared_data" in getattr(item, "fixturenames", ())
        if item.get_closest_marker("cuda"):
            needed["cuda"] += 1
            if not _has_cuda():
                item.add_marker(pytest.mark.skip(reason="cuda"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        kind = reason.removeprefix("Skipped: ").partition(":")[0]
        item.config.stash[skipped_key][kind] += 1
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--check-skips") and _skip_problems(session.config):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not config.getoption("--check-skips"):
        return
    needed, skipped = config.stash[needed_key], config.stash[skipped_key]
    for reason in REASONS:
        terminalreporter.write_line(
            f"{reason}: {needed[reason]} tests need it ({SKIPPED.name} states "
            f"{stated_counts(SKIPPED.read_text())[reason]}), {skipped[reason]} skipped"
        )
    terminalreporter.write_line(f"skipped in all: {skipped.total()}")
    for problem in _skip_problems(config):
        terminalreporter.write_line(f"error: {problem}", red=True)


def _skip_problems(config: pytest.Config) -> list[str]:
    present = {"data": DATA.is_dir(), "cuda": _has_cuda()}
    return skip_problems(
        stated_counts(SKIPPED.read_text()),
        config.stash[needed_key],
        config.stash[skipped_key],
        present,
    )


def stated_counts(text: str) -> Counter[str]:
    """Read ``reason number`` lines; ``#`` starts a comment."""
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    return Counter({reason: int(number) for reason, number in filter(None, lines)})


def skip_problems(
    stated: Counter[str], needed: Counter[str], skipped: Counter[str], present: dict[str, bool]
) -> list[str]:
    """Say what differs between the stated, the needed and the skipped numbers of tests."""
    problems = []
    for reason, is_present in present.items():
        if needed[reason] != stated[reason]:
            problems.append(
                f"{needed[reason]} tests need {reason}, {SKIPPED.name} states {stated[reason]}; "
                "mend the line if that is meant"
            )
        expected = 0 if is_present else needed[reason]
        if skipped[reason] != expected:
            problems.append(f"{skipped[reason]} tests skipped for {reason}, expected {expected}")
    for reason in sorted(skipped.keys() - present.keys()):
        problems.append(f"{skipped[reason]} skipped for {reason!r}; only {REASONS} may skip a test")
    return problems


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a small open_clip ViT with random weights, as a folder without a hub."""
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    folder = tmp_path_factory.mktemp("tiny_clip")
    torch.manual_seed(0)
    model = CLIP(16, dict(vision), dict(text))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}})
    )
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def hugging_face_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose text tower and tokenizer are Hugging Face's, tiny and without a hub."""
    import torch
    import transformers
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("hugging_face")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "red"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    transformers.BertConfig(
        vocab_size=len(words), intermediate_size=32, max_position_embeddings=12, **size
    ).save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "context_length": 12}
    text |= {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}
    vision = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    untrained = {**text, "hf_model_pretrained": False}
    model = CustomTextCLIP(embed_dim=16, vision_cfg=dict(vision), text_cfg=untrained)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 16}})
    )
    return folder
