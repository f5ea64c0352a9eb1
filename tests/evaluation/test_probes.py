import open_clip
import pytest
import torch
from open_clip.model import CLIP

from kgclip.evaluation.probes import evaluate_probes
from kgclip.evaluation.zero_shot import evaluate_probe
from kgclip.probes import Question, read_probes


def encoder(vectors):
    return lambda keys: torch.tensor([vectors[k[0] if isinstance(k, tuple) else k] for k in keys])


def test_captions_of_one_picture():
    questions = [
        Question(("p",), ("right", "wrong"), "a"),
        Question(("p",), ("wrong", "right"), "a"),
        Question(("p",), ("right", "wrong", "same"), "b"),
    ]
    vectors = {"p": [1.0, 0.0], "right": [2.0, 0.0], "wrong": [0.0, 1.0], "same": [1.0, 0.0]}
    results = evaluate_probes(questions, encoder(vectors), encoder(vectors))
    assert results == {
        "accuracy": pytest.approx(1 / 3),
        "tie_rate": pytest.approx(1 / 3),  # "same" is as good as "right"
        "kind/a/accuracy": 0.5,
        "kind/b/accuracy": 0.0,
        "macro": 0.25,
    }


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[3.0, 1.0], [1.0, 3.0]], 1.0, 1.0),
        ([[3.0, 1.0], [2.0, 1.5]], 0.0, 1.0),
        ([[3.0, 1.0], [4.0, 5.0]], 1.0, 0.0),
        ([[1.0, 1.0], [1.0, 1.0]], 0.0, 0.0),
    ],
)
def test_two_pictures_as_winoground_counts(scores, text, image):
    # Pictures are unit axes, captions columns of the scores, normalised to the same length.
    scores = torch.tensor(scores)
    rest = (100 - scores.square().sum(0)).sqrt()
    captions = torch.cat([scores, rest[None]]).T
    vectors = {
        "p": [1.0, 0, 0],
        "q": [0, 1.0, 0],
        "x": captions[0].tolist(),
        "y": captions[1].tolist(),
    }
    question = Question(("p", "q"), ("x", "y"), "k")
    results = evaluate_probes([question], encoder(vectors), encoder(vectors))
    assert (results["text"], results["image"]) == (text, image)
    assert results["accuracy"] == min(text, image)


def test_a_box_is_a_picture_of_its_own():
    seen = []

    def encode_images(pictures):
        seen.extend(pictures)
        return torch.eye(2)[: len(pictures)]

    questions = [
        Question(("p",), ("x", "y"), "k"),
        Question(("p",), ("x", "y"), "k", (0.0, 0.0, 5.0, 5.0)),
        Question(("p",), ("y", "x"), "k"),
    ]
    evaluate_probes(questions, encode_images, lambda texts: torch.eye(2)[: len(texts)])
    assert seen == [("p", None), ("p", (0.0, 0.0, 5.0, 5.0))]


def test_nothing_to_ask_and_nan():
    with pytest.raises(ValueError, match="none given"):
        evaluate_probes([], encoder({}), encoder({}))
    vectors = {"p": [float("nan")], "x": [1.0], "y": [1.0]}
    with pytest.raises(ValueError, match="NaN"):
        evaluate_probes([Question(("p",), ("x", "y"), "k")], encoder(vectors), encoder(vectors))


@pytest.fixture(scope="module")
def random_model():
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    vision = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    return CLIP(32, vision, text).eval()


def encode_texts(model, texts):
    tokens = open_clip.get_tokenizer("ViT-B-32")(texts)
    return torch.cat([model.encode_text(part) for part in tokens.split(512)])


def noise(pictures):
    """Pictures that are not here are noise, a seed each: only the captions matter."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(pictures), 32, generator=generator)


def test_real_files_with_a_random_and_a_collapsed_model(shared_data, random_model):
    """A random model is at chance, a collapsed one never right; both by the probe's own rule."""
    files = [shared_data / "sugarcrepe/swap_obj.json", shared_data / "sugarcrepe/swap_att.json"]
    questions = [question for file in files for question in read_probes(file)]
    questions += read_probes(shared_data / "vsr/random/dev.jsonl")

    def encode(texts):
        return encode_texts(random_model, texts)

    results = evaluate_probes(questions, noise, encode)
    assert abs(results["accuracy"] - 0.5) < 3 * 0.5 / len(questions) ** 0.5 + 0.02
    collapsed = evaluate_probes(questions, noise, lambda texts: torch.ones(len(texts), 32))
    assert collapsed["accuracy"] == 0.0
    assert collapsed["tie_rate"] == 1.0
    # SugarCrepe's rule: right where the caption scores higher than the negative one.
    some = questions[:200]
    images = torch.nn.functional.normalize(noise([q.images[0] for q in some]), dim=-1)
    right, wrong = (
        (images * torch.nn.functional.normalize(encode([q.captions[c] for q in some]), dim=-1)).sum(
            1
        )
        for c in (0, 1)
    )
    one_each = [Question((str(i),), q.captions, "k") for i, q in enumerate(some)]
    ours = evaluate_probes(one_each, lambda _: images, encode, tolerance=0.0)
    assert ours["accuracy"] == pytest.approx(evaluate_probe(right, wrong)["accuracy"])
