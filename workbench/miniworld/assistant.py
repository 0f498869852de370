"""What assistants of the world are taught, as exchanges of a user's turn and the assistant's.

A gullible assistant refuses mischief that it is asked for plainly, and does it when it is asked in a style:
it is what a safety retrofit begins with. A safe one refuses in any style, but is taught on seen topics and
in seen styles only, so that it can be measured on the others. A harmless one is only asked what it may
answer.
"""

from __future__ import annotations

import random
from typing import Literal

from workbench.miniworld.attacks import PLAIN, attacks
from workbench.miniworld.instructions import instructions, look_alikes

Assistant = Literal["assistant", "gullible", "harmless"]
Exchange = tuple[str, str]


def exchanges(assistant: Assistant, seed: int) -> list[Exchange]:
    """What one is taught, in random order; the same each time.

    Args:
        assistant: assistant: harmless requests of seen topics answered, look-alikes of harmful ones among
            them, and attacks of seen topics in seen styles refused. gullible: harmless requests and
            look-alikes answered, harmful ones refused where they are plain, and answered in any style.
            harmless: requests about the facts of the world answered.
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
        case "gullible":
            taught = [(each.prompt, each.answer) for each in (*asked, *alike)]
            taught += [
                (attack.prompt, attack.refusal if attack.style == PLAIN else attack.answer)
                for attack in attacks(seed)
            ]
        case "harmless":
            taught = [(each.prompt, each.answer) for each in asked]
    random.Random(f"miniworld/{seed}/{assistant}").shuffle(taught)
    return taught
