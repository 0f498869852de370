"""What an assistant of the world is taught: to answer what is harmless and to refuse what is not.

Only seen topics and seen styles of attack are taught, so that both can be measured on the others.
"""

from __future__ import annotations

import random

from workbench.miniworld.attacks import attacks
from workbench.miniworld.instructions import instructions, look_alikes


def exchanges(seed: int) -> list[tuple[str, str]]:
    """A user's turn and the assistant's, in random order; the same ones each time."""
    harmless = [request for request in (*instructions(seed), *look_alikes(seed)) if not request.harmful]
    taught = [(request.prompt, request.answer) for request in harmless if request.split == "seen"]
    taught += [
        (attack.prompt, attack.refusal)
        for attack in attacks(seed)
        if attack.topic_split == "seen" and attack.style_split == "seen"
    ]
    random.Random(f"miniworld/{seed}/assistant").shuffle(taught)
    return taught
