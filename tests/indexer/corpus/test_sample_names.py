"""Archive members are grouped into documents by name, with any dots in the names, and none is dropped."""

import itertools
import random

import pytest

from indexer.corpus.sample_names import group


def told(names):
    """By key: the images, texts and details; and what belongs to no document."""
    samples, outside = group(names)
    parts = {}
    for sample in samples:
        if sample.parts:
            parts[sample.key] = tuple(
                [names[n] for n in places] for places in (sample.images, sample.texts, sample.details)
            )
    extras = [names[place] for sample in samples for place, _ in sample.extras] + [names[place] for place, _ in outside]
    return parts, sorted(extras)


@pytest.mark.parametrize(
    ("names", "samples", "extras"),
    [
        # WebDataset's own
        (["0.jpg", "0.txt", "0.json"], {"0": (["0.jpg"], ["0.txt"], ["0.json"])}, []),
        (["0.cls", "0.jpg", "0.seg.png"], {"0": (["0.jpg"], [], [])}, ["0.cls", "0.seg.png"]),
        (["0.depth.png", "0.jpg"], {"0": (["0.jpg"], [], [])}, ["0.depth.png"]),
        (["0.jpg", "0.jpg.txt"], {"0": (["0.jpg"], ["0.jpg.txt"], [])}, []),
        (["0.jpg", "0.jpg.json"], {"0": (["0.jpg"], [], ["0.jpg.json"])}, []),
        (["0.jpg", "0.jpg.txt", "0.txt"], {"0": (["0.jpg"], ["0.txt"], [])}, ["0.jpg.txt"]),
        (["0.jpg", "0.boxes.json", "0.json"], {"0": (["0.jpg"], [], ["0.json"])}, ["0.boxes.json"]),
        # dots in the name proper
        (["22.05.png", "22.05.txt"], {"22.05": (["22.05.png"], ["22.05.txt"], [])}, []),
        (["22.05.png", "22.06.png"], {"22.05": (["22.05.png"], [], []), "22.06": (["22.06.png"], [], [])}, []),
        (["J. R. Doe.jpg", "J. R. Doe.json"], {"J. R. Doe": (["J. R. Doe.jpg"], [], ["J. R. Doe.json"])}, []),
        (["a.b.c.PNG"], {"a.b.c": (["a.b.c.PNG"], [], [])}, []),
        (["v1.0/a.b.png", "v1.0/a.b.txt"], {"v1.0/a.b": (["v1.0/a.b.png"], ["v1.0/a.b.txt"], [])}, []),
        (["1.5.jpg", "1.5.jpg.txt"], {"1.5": (["1.5.jpg"], ["1.5.jpg.txt"], [])}, []),
        (["1.5.jpg", "1.5.seg.png"], {"1.5": (["1.5.jpg"], [], [])}, ["1.5.seg.png"]),
        (
            ["22.05.png", "22.05.txt", "22.png"],
            {"22.05": (["22.05.png"], ["22.05.txt"], []), "22": (["22.png"], [], [])},
            [],
        ),
        (
            ["Jo.Doe.png", "Jo.Doe.txt", "Jo.png"],
            {"Jo.Doe": (["Jo.Doe.png"], ["Jo.Doe.txt"], []), "Jo": (["Jo.png"], [], [])},
            [],
        ),
        (["a.1.jpg", "a.jpg"], {"a.1": (["a.1.jpg"], [], []), "a": (["a.jpg"], [], [])}, []),
        # images of one document
        (
            ["7.0.jpg", "7.1.jpg", "7.10.jpg", "7.2.jpg", "7.json"],
            {"7": (["7.0.jpg", "7.1.jpg", "7.2.jpg", "7.10.jpg"], [], ["7.json"])},
            [],
        ),
        (["7.left.png", "7.right.png", "7.txt"], {"7": (["7.left.png", "7.right.png"], ["7.txt"], [])}, []),
        (["7.de.txt", "7.en.txt", "7.png"], {"7": (["7.png"], ["7.de.txt", "7.en.txt"], [])}, []),
        # not a sample
        (["README", ".hidden.png", "d/._a.png", "end."], {}, [".hidden.png", "README", "d/._a.png", "end."]),
        (["a.jpg", "a.png"], {"a": (["a.jpg"], [], [])}, ["a.png"]),
    ],
)
def test_names(names, samples, extras):
    assert told(names) == (samples, extras)


def test_order_does_not_matter():
    names = ["22.05.png", "22.05.txt", "0.jpg", "0.seg.png", "0.cls"]
    assert len({str(sorted(map(str, told(list(order))[0].items()))) for order in itertools.permutations(names)}) == 1


def test_the_same_name_again_begins_another_sample():
    samples, _ = group(["0.jpg", "0.txt", "1.jpg", "0.jpg", "0.txt"])
    assert [(sample.key, sample.places) for sample in samples] == [("0", [0, 1]), ("1", [2]), ("0", [3, 4])]


def test_every_name_is_somewhere_once():
    chance = random.Random(0)
    tokens = ["a", "0", "05", "jpg", "png", "txt", "json", "seg", "", "x/", ".", "./"]
    for _ in range(2_000):
        names = [".".join(chance.choices(tokens, k=chance.randint(1, 5))) for _ in range(chance.randint(1, 12))]
        samples, outside = group(names)
        places = [place for sample in samples for place in sample.places] + [place for place, _ in outside]
        assert sorted(places) == list(range(len(names))), names
