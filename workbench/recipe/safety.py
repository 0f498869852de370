"""The safety stages of a recipe: who judges, how preference triplets are made, and what trains on them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workbench.recipe.inputs import Model
from workbench.recipe.methods import Lora
from workbench.recipe.preparation import Writer
from workbench.recipe.section import Count, Name, Section, Share
from workbench.recipe.training import TrainingStage

KNOWS_REFUSALS = ("miniworld", "wildguard")  # judges that say what refuses
SafetyMethod = Literal["dpo", "derta", "mogu", "q-resafe"]
PAIRWISE = frozenset({"dpo", "mogu", "q-resafe"})  # trained in pairs, not by the one loop
PATCHING = "q-resafe"  # goes on from quantized variants, and from no others
_OF_THE_LOOP = ("curriculum", "reading", "when_dry", "probe_every", "floor")


class Judge(Section):
    """Who says whether a request or an answer is unsafe, and whether an answer refuses; never quantized."""

    kind: Literal["miniworld", "llama-guard", "wildguard", "duoguard"] = Field(
        description="miniworld: the rules of the built-in world, which know what is harmful there; "
        "llama-guard and duoguard give no word on refusal"
    )
    model: Model | None = Field(default=None, description="the guard; not for miniworld")
    variant: str | None = Field(default=None, description="a variant of this run, trained as the guard")
    taxonomy: Name | None = Field(
        default=None, description="llama-guard only: a file of the categories; default: llama-guard-3"
    )
    categories: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="only these categories of the taxonomy; default: all"
    )
    threshold: Share = Field(default=0.5, description="probability above which it is unsafe")

    @model_validator(mode="after")
    def _one_origin(self) -> Judge:
        _check_origin(self, "judge")
        swapped = [key for key in ("taxonomy", "categories") if getattr(self, key) is not None]
        if swapped and self.kind != "llama-guard":
            raise ValueError(f"{swapped[0]} is for llama-guard; {self.kind} has categories of its own")
        return self


class Grader(Section):
    """Who grades how much harm an answer does, from 0 to 1, beside whether it does any; never quantized."""

    kind: Literal["miniworld", "rubric"] = Field(
        description="miniworld: the rules of the built-in world, which know what an answer there must hold; "
        "rubric: a chat model that is asked for three marks (StrongREJECT, arXiv 2402.10260)"
    )
    model: Model | None = Field(default=None, description="the chat model; not for miniworld")
    variant: str | None = Field(default=None, description="a variant of this run, as the chat model")
    max_new_tokens: Count = Field(default=48, description="longest reply of a chat model, in tokens")

    @model_validator(mode="after")
    def _one_origin(self) -> Grader:
        _check_origin(self, "grader")
        return self


def _check_origin(section: Judge | Grader, role: str) -> None:
    given = [key for key in ("model", "variant") if getattr(section, key) is not None]
    if section.kind == "miniworld" and given:
        raise ValueError(f"the {role} miniworld is a set of rules; leave out {' and '.join(given)}")
    if section.kind != "miniworld" and len(given) != 1:
        raise ValueError(f"{section.kind} needs exactly one of model, variant")


class Triplets(Section):
    """On-policy preference triplets (Egida, arXiv 2502.13603): prompt, safe answer, own unsafe one."""

    requests: Name = Field(description="a file of evals/requests, without .yaml; its training part is asked")
    judge: Judge
    target: str | None = Field(
        default=None,
        description="variant whose unsafe answers are rejected; default: the one that training goes on from",
    )
    chosen: Writer | None = Field(
        default=None,
        description="who writes the safe answers; default: the refusals that come with the requests",
    )
    max_new_tokens: Count = Field(default=128, description="longest answer, in tokens")


class Dpo(Section):
    """Settings of DPO (arXiv 2305.18290), by TRL."""

    beta: float = Field(default=0.1, gt=0, description="how dear it is to leave the start")
    anchor: float = Field(
        default=0.0, ge=0, description="weight of the cross entropy of the chosen answers (arXiv 2404.19733)"
    )
    lora: Lora | None = Field(default=None, description="train low-rank updates and merge them at the end")
    learning_rate: float | None = Field(default=None, gt=0, description="default: the stage's")

    @model_validator(mode="after")
    def _adapters(self) -> Dpo:
        if self.lora and self.lora.dropout:
            raise ValueError("lora.dropout blurs the comparison of the model with its start; leave it out")
        if self.lora and self.lora.learning_rate:
            raise ValueError("lora.learning_rate: say learning_rate beside lora, it is the only one")
        return self


class Derta(Section):
    """Settings of DeRTa (arXiv 2407.09121): of the safety rows, half have harmful prefixes, half are RTO."""

    dropout: Share = Field(default=0.0, description="share of the places of an RTO row that is not scored")
    opener: str | None = Field(
        default=None,
        description="word that begins a refusal, such as Sorry; default: what begins all chosen answers",
    )
    learning_rate: float | None = Field(default=None, gt=0, description="default: the stage's")


class Mogu(Section):
    """Settings of MoGU (arXiv 2405.14488): two responders, then the routers, a third of the steps each."""

    rank: Count = 8
    alpha: float = Field(default=16.0, gt=0, description="the updates are scaled by alpha / rank")
    router_width: Count | None = Field(default=512, description="null: a router is one vector")
    router_tokens: int = Field(default=5, ge=-1, description="answer tokens that are routed; -1: all")
    balance: float = Field(default=2.0, ge=0, description="lambda of the routers' loss")
    learning_rate: float | None = Field(
        default=None, gt=0, description="of the responders; default: the stage's"
    )
    router_learning_rate: float = Field(default=5e-4, gt=0)


class QResafe(Section):
    """Settings of Q-resafe (arXiv 2506.20251), which patches a quantized variant."""

    rank: Count = Field(default=128, description="of the updates, which are stored in 16 bits")
    alpha: float = Field(default=128.0, gt=0, description="the updates are scaled by alpha / rank")
    tau: Share = Field(
        default=0.6, description="share of the weights of each linear that counts as safety-critical"
    )
    every: Count = Field(default=1000, description="steps after which the safety-critical are sought anew")
    beta: float = Field(default=0.01, gt=0, description="of DPO, whose reference is the quantized model")
    learning_rate: float | None = Field(default=None, gt=0, description="default: the stage's")


class Safety(TrainingStage):
    """Safety retrofit: one row per method and number of triplets, all from the same triplets."""

    kind: Literal["safety"]
    name: Name = "safety"
    start: str | None = Field(
        default=None, alias="from", description="variant to go on from; default: the last one"
    )
    methods: list[SafetyMethod] = Field(
        min_length=1,
        description="dpo: prefer the chosen answers; derta: refuse at any place of an answer; mogu: route "
        "between a willing and an unwilling responder; q-resafe: train updates beside a quantized model",
    )
    triplets: Triplets
    sizes: list[Count] | None = Field(
        default=None, min_length=1, description="numbers of triplets to train on, one row each; default: all"
    )
    share: Share = Field(
        default=0.5,
        description="share of what is trained on that is triplets; the rest is the mixture, which must be "
        "exchanges: harmless requests, answered",
    )
    dpo: Dpo = Field(default=Dpo(), description="settings of the method dpo")
    derta: Derta = Field(default=Derta(), description="settings of the method derta")
    mogu: Mogu = Field(default=Mogu(), description="settings of the method mogu")
    q_resafe: QResafe = Field(default=QResafe(), description="settings of the method q-resafe")

    @property
    def sizes_or_all(self) -> list[int | None]:
        """The numbers of triplets that it fans out over; None for all."""
        return [*dict.fromkeys(self.sizes)] if self.sizes else [None]

    @property
    def most_triplets(self) -> int | None:
        """How many triplets the largest variant trains on; None for all that there are."""
        return max(self.sizes) if self.sizes else None

    def settings_of(self, method: str) -> Section:
        """The section of a method."""
        section: Section = getattr(self, method.replace("-", "_"))
        return section

    def rate_of(self, method: str) -> float:
        """Peak learning rate of a method."""
        rate: float | None = getattr(self.settings_of(method), "learning_rate", None)
        return rate or self.learning_rate

    @model_validator(mode="after")
    def _applies(self) -> Safety:
        if self.share == 0:
            raise ValueError("share: 0 trains on no triplet; write a share above 0")
        pairwise = [method for method in self.methods if method in PAIRWISE]
        said = [
            key
            for key in _OF_THE_LOOP
            if getattr(self, key) != TrainingStage.model_fields[key].get_default(call_default_factory=True)
        ]
        if pairwise and said:
            raise ValueError(f"{', '.join(said)}: not for {', '.join(pairwise)}, which train on pairs")
        return self


class Guarded(Section):
    """A guard before or behind a model: one row with the same weights, whose answers are filtered."""

    kind: Literal["guard"]
    name: Name = "guarded"
    start: str | None = Field(
        default=None, alias="from", description="variant to stand guard over; default: the last one"
    )
    guard: Judge
    place: Literal["input", "output", "both"] = Field(
        default="both", description="what the guard sees: requests, answers, or both"
    )
    refusal: str = Field(
        default="Sorry, I cannot help with that.", description="what is said in place of what it stops"
    )
