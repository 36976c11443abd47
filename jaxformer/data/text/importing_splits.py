"""Holding out a share of the examples: the same ones every time."""

from collections.abc import Sequence

import numpy as np

from jaxformer.data.text.formats import Example

FEW_TOPICS = 10  # with fewer, a share of them is too coarse


def random_share(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Holds out a random `share` of each label (rounded), but never the last example of it."""
    rng = np.random.Generator(np.random.PCG64(0))
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(example.label, []).append(place)
    held_out: set[int] = set()
    for label in sorted(places):
        order = np.argsort(rng.random(len(places[label])), kind="stable")
        count = min(round(len(order) * share), len(order) - 1)
        held_out.update(places[label][number] for number in order[:count])
    return divide(examples, held_out)


def share_of_topics(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Holds out random whole topics, as near to `share` of the examples as they come; one topic stays."""
    sizes: dict[str, int] = {}
    for example in examples:
        sizes[example.topic] = sizes.get(example.topic, 0) + 1
    topics = sorted(sizes)
    order = np.argsort(np.random.Generator(np.random.PCG64(0)).random(len(topics)), kind="stable")
    wanted, count = share * len(examples), 0
    chosen: set[str] = set()
    for topic in (topics[number] for number in order[: len(topics) - 1]):
        if count + sizes[topic] / 2 <= wanted:
            chosen.add(topic)
            count += sizes[topic]
    held_out = {place for place, example in enumerate(examples) if example.topic in chosen}
    return divide(examples, held_out)


def divide(examples: Sequence[Example], held_out: set[int]) -> tuple[list[Example], list[Example]]:
    """The examples that stay, and those at the places `held_out`."""
    stay = [example for place, example in enumerate(examples) if place not in held_out]
    return stay, [examples[place] for place in sorted(held_out)]
