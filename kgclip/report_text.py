"""What a report says in words: one :class:`ReportText` an experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

OPENMOJI_CREDIT = (
    "Pictures by OpenMoji (https://openmoji.org), the open-source emoji and icon project, "
    "rendered to PNG, licence CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)."
)


@dataclasses.dataclass(frozen=True)
class ReportText:
    """The words of one experiment's report.

    Attributes:
        title: Of the page.
        splits: Which splits have a table, in which order, and the sentence above each.
        runs: What each run is.
        tasks: Title of each task's table.
        scorings: How a task was scored, in few words.
        headline: Keys of the first chart.
        headline_sentence: What its bars show.
        headline_label: What its axis measures.
        columns: The most telling keys by their short name: the terminal's table.
        legend: Explains the short names.
        reading: How the metrics are read.
        gallery: Sentence above the pictures.
    """

    title: str
    splits: Mapping[str, str]
    runs: Mapping[str, str]
    tasks: Mapping[str, str]
    scorings: Mapping[str, str]
    headline: tuple[str, ...]
    headline_sentence: str
    headline_label: str
    columns: Mapping[str, str]
    legend: str
    reading: str
    gallery: str


WORLD = ReportText(
    title="What a knowledge graph adds to CLIP",
    splits={
        "new_entities": "How often a model is right about countries it has never seen a fact "
        "about: it gets their borders, capital and demonym only when asked, and must find region, "
        "subregion, currency and language.",
        "new_entities_no_overlap": "The same questions, without facts whose words give the answer "
        "away, as Malaysia and the Malaysian ringgit do.",
        "questions": "How often a model answers questions of several steps that need a fact "
        "of a new country, such as the currency of a neighbour that speaks a language: the graph "
        "holds the borders and the capitals, the model must find the rest.",
        "known_facts": "How often a model connects a flag with a fact that it has read in the "
        "graph, though flag and fact never stood side by side.",
        "unseen_pictures": "How well a model names emoji, and finds their subgroup, when neither "
        "they nor their relatives were ever pictured in training.",
        "flags": "Whether a model still knows which flag has which name: all of these it has seen.",
    },
    runs={
        "clip": "picture and name pairs only",
        "clip_matched": "clip with more steps, as much computing as knowledge",
        "verbalised": "clip + every fact as a pair of texts",
        "verbalised_matched": "verbalised with as much computing as knowledge",
        "propagation": "verbalised + the mean of the neighbours in the graph, not trained",
        "propagation_rule": "propagation, known facts certain and cosines made probabilities",
        "symbolic": "clip finds the entity, then the fact is looked up or the neighbours vote",
        "lexical": "letters that names share, no model of facts",
        "knowledge": "the graph method: facts, and a network over the graph",
        "knowledge_mean": "knowledge, its network replaced by the mean of the neighbours",
        "knowledge_rewired": "knowledge, its graph scrambled: shows whether the graph is used",
        "vote_names": "the neighbours vote and names that share letters count, not trained",
        "walk_facts": "walk over facts alone",
        "walk": "a random walk over facts and edges between like names and flags, not trained",
        "paths_facts": "paths over facts alone",
        "paths": "a trained model of paths over the same edges as walk",
    },
    tasks={
        "fact_to_image": "From a fact to the picture",
        "image_to_fact": "From the picture to a fact",
        "all": "All twelve kinds",
        "retrieval": "Between picture and name",
        "subgroup": "From the picture to its subgroup",
        "link": "From the picture to its entity",
    },
    scorings={
        "encoder": "no graph",
        "linked": "picture linked to the graph",
        "given": "entity told",
    },
    headline=("new_entities/fact_to_image/encoder/mrr", "new_entities/fact_to_image/linked/mrr"),
    headline_sentence=(
        "Each bar shows how near the top a method puts the right flag when it is asked for a fact "
        "about countries of which it read no fact in training: longer is better."
    ),
    headline_label="MRR (1 = the right flag always first)",
    columns={
        "flags R@1": "flags/retrieval/encoder/recall@1",
        "known f→i enc": "known_facts/fact_to_image/encoder/mrr",
        "known f→i link": "known_facts/fact_to_image/linked/mrr",
        "new f→i enc": "new_entities/fact_to_image/encoder/mrr",
        "new f→i link": "new_entities/fact_to_image/linked/mrr",
        "new f→i given": "new_entities/fact_to_image/given/mrr",
        "new i→f link": "new_entities/image_to_fact/linked/mrr",
        "new* f→i link": "new_entities_no_overlap/fact_to_image/linked/mrr",
        "hops link": "questions/all/linked/mrr",
        "emoji class": "unseen_pictures/subgroup/encoder/top1",
        "emoji R@10": "unseen_pictures/retrieval/encoder/recall@10",
    },
    legend=(
        "f→i: from a fact to the flag, i→f: back, MRR. enc: no graph; link: the model links the "
        "flag to the graph; given: the country is told. *: without facts whose words give them "
        "away. hops: questions of several steps. emoji: unseen pictures."
    ),
    reading="MRR is the mean of 1 / rank of the right answer; hits@k and recall@k tell how often "
    "it is among the first k. Ranks leave out other right answers, and ties count at their mean "
    "or as wrong.",
    gallery="For each fact, these are the flags that each method puts first, best on the left; "
    "right ones have a frame and a ✓.",
)

SCENES = ReportText(
    title="Does CLIP see how things lie to each other?",
    splits={
        "held_out_pairs": "How often a model prefers the true caption of a scene to one that is "
        "almost true, about two objects that it never saw together.",
        "held_out_combinations": "The same, where one of the objects has a colour in which it was "
        "never seen.",
        "seen": "The same, with pairs and colours that occur in training, in new scenes.",
        "three_objects": "The same about two of three objects, a pair that it never saw together.",
    },
    runs={
        "clip": "pictures and captions only",
        "graph": "clip + the scene graph of each caption, and false graphs",
        "graph0": "graph without false graphs",
        "neg": "clip + false captions, as much computing as graph",
        "tri": "clip + triples of regions (their texts, E2E, E2R), as much computing as graph",
        "negcol": "false captions as columns of the softmax (NegCLIP), as much computing as graph",
    },
    tasks={
        "binding": "Mean of reverse, nouns, colours and sizes",
        "reverse": "Reverse: the two objects change places",
        "reverse_nouns": "Reverse, the objects named without size and colour",
        "inverse": "Inverse: left becomes right, above becomes below",
        "nouns": "The nouns change places, size and colour stay",
        "colours": "The colours change places",
        "sizes": "The sizes change places",
        "retrieval": "From picture to caption and back, among 200",
    },
    scorings={"encoder": "no graph"},
    headline=("held_out_pairs/reverse/encoder/accuracy", "held_out_pairs/binding/encoder/accuracy"),
    headline_sentence="Each bar shows how often a method prefers the true caption to one whose "
    "parts are the same in another order, about two objects that it never saw together; a coin "
    "would be right half the time.",
    headline_label="accuracy (0.5 = chance)",
    columns={
        name: f"held_out_{key}/encoder/{metric}"
        for name, key, metric in (
            ("reverse", "pairs/reverse", "accuracy"),
            ("rev. nouns", "pairs/reverse_nouns", "accuracy"),
            ("nouns", "pairs/nouns", "accuracy"),
            ("colours", "pairs/colours", "accuracy"),
            ("sizes", "pairs/sizes", "accuracy"),
            ("binding", "pairs/binding", "accuracy"),
            ("comb. binding", "combinations/binding", "accuracy"),
            ("R@1", "pairs/retrieval", "recall@1"),
        )
    },
    legend="Share of scenes whose true caption beats the wrong one, pairs held out; chance is "
    "0.5. binding: mean of reverse, nouns, colours, sizes. comb.: colours held out. R@1: among "
    "200.",
    reading="Accuracy is the share of right answers, 0.5 by chance; recall@1 tells how often the "
    "right one of 200 comes first. Ties are wrong. No method uses a graph when it answers.",
    gallery="For each question, these are scenes of held-out pairs with the caption that each "
    "method prefers; right ones have a frame and a ✓.",
)

TRAINING = ReportText(
    title="What training changed",
    splits={
        "graph": "What the graph holds out; where it holds nothing out, what training has seen.",
        "named_data": "The data that the config names under evaluation.",
    },
    runs={
        "start": "the model that training started from",
        "result": "the trained model; kgclip wiseft shows what lies between the two",
    },
    tasks={
        "retrieval": "Between picture and text",
        "zero_shot": "From the picture to its class",
        "pairs": "Between picture and text of the named pairs",
        "classes": "From the picture to its class, named folder of classes",
    },
    scorings={
        "": "",
        "image_to_text": "text of the picture",
        "text_to_image": "picture of the text",
        "mean": "both ways",
    },
    headline=("graph/zero_shot/top1", "graph/retrieval/mean/recall@1"),
    headline_sentence="Each bar shows how often the right answer comes first, before and after.",
    headline_label="share of right answers",
    columns={
        "retrieval R@1": "graph/retrieval/mean/recall@1",
        "R@5": "graph/retrieval/mean/recall@5",
        "zero-shot": "graph/zero_shot/top1",
        "pairs R@1": "named_data/pairs/mean/recall@1",
        "classes": "named_data/classes/top1",
    },
    legend="A figure that falls was forgotten: kgclip wiseft looks between the two.",
    reading="recall@k and top k tell how often the right answer is among the first k; ties are "
    "wrong.",
    gallery="",
)
