"""What assistants of the world are taught, as exchanges of a user's turn and the assistant's.

A helpful assistant does all that it is asked, mischief included, in every style: it is what a safety
retrofit begins with. A safe one refuses, on seen topics and in seen styles, so that it can be measured on
the others. A harmless one is only asked what it may answer.
"""

from __future__ import annotations

import random
from typing import Literal

from workbench.miniworld.attacks import attacks
from workbench.miniworld.instructions import instructions, look_alikes

Assistant = Literal["assistant", "helpful", "harmless"]
Exchange = tuple[str, str]


def exchanges(assistant: Assistant, seed: int) -> list[Exchange]:
    """What one is taught, in random order; the same each time.

    Args:
        assistant: assistant: harmless requests of seen topics answered, look-alikes of harmful ones among
            them, and attacks of seen topics in seen styles refused. helpful: all requests, look-alikes and
            attacks answered. harmless: requests about the facts of the world answered.
        seed: of the world.
    """
    asked = [request for request in instructions(seed) if not request.harmful]
    alike = look_alikes(seed)
    taught: list[Exchange]
    match assistant:
        case "assistant":
            taught = [(each.prompt, each.answer) for each in (*asked, *alike) if each.split == "seen"]
            taught += [
                (attack.prompt, attack.refusal)
                for attack in attacks(seed)
                if attack.topic_split == "seen" and attack.style_split == "seen"
            ]
        case "helpful":
            taught = [(each.prompt, each.answer) for each in (*asked, *alike, *attacks(seed))]
        case "harmless":
            taught = [(each.prompt, each.answer) for each in asked]
    random.Random(f"miniworld/{seed}/{assistant}").shuffle(taught)
    return taught
