"""Guards behind one protocol: judges of stored generations, filters around a model, sieves of training data.

`LlamaGuard` and `WildGuard` write their verdicts, `DuoGuard` is a classifier, `WorldGuard` the rules of the
miniature world; `Filter` puts any of them around a model, and `guard_metrics` scores them against labels.
"""

from workbench.safety.guards.duoguard import DuoGuard
from workbench.safety.guards.filtering import Filter, Filtered, Sifted, judge_generations, sift
from workbench.safety.guards.llama_guard import LlamaGuard
from workbench.safety.guards.pretrained import load_causal, load_classifier
from workbench.safety.guards.protocol import Guard, Verdict
from workbench.safety.guards.taxonomy import Category, Taxonomy, load_taxonomy
from workbench.safety.guards.wildguard import WildGuard
from workbench.safety.guards.world import WorldGuard

__all__ = [
    "Category",
    "DuoGuard",
    "Filter",
    "Filtered",
    "Guard",
    "LlamaGuard",
    "Sifted",
    "Taxonomy",
    "Verdict",
    "WildGuard",
    "WorldGuard",
    "judge_generations",
    "load_causal",
    "load_classifier",
    "load_taxonomy",
    "sift",
]
