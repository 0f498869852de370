"""The miniature world: two languages, their facts, questions, instructions and attacks, all from a seed.

A world is small enough for a model to be trained on it in minutes on a CPU, and whole enough for
every effect that the workbench measures to happen in it: learning, forgetting, brittleness under
rounding, refusal and over-refusal. Another seed is another world: other names, words and facts.
"""

from workbench.miniworld.assistant import exchanges
from workbench.miniworld.attacks import STYLES, Attack, Style, attacks
from workbench.miniworld.corpus import Document, corpus, documents
from workbench.miniworld.instructions import Instruction, instructions, look_alikes
from workbench.miniworld.questions import Question, questions

__all__ = [
    "STYLES",
    "Attack",
    "Document",
    "Instruction",
    "Question",
    "Style",
    "attacks",
    "corpus",
    "documents",
    "exchanges",
    "instructions",
    "look_alikes",
    "questions",
]
