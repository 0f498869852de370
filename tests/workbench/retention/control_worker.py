"""A Control LLM of four blocks, two with a copy, trained on the toy text of the training tests.

As a script it runs trainings in as many processes as the launcher starts: `control_worker.py
REQUESTS.json`, a list of `out`, `folder`, `engine`, and `stop`: a step after which to stop and go on again.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, PreTrainedModel

from workbench import models, training
from workbench.recipe.methods import ControlLlm
from workbench.recipe.schema import Engine
from workbench.retention import control_llm

SETTINGS = ControlLlm(blocks=2, interpolator="dlerp", learn_factor=True, alpha="interpolation")
toy = runpy.run_path(str(Path(__file__).parent.parent / "training" / "worker.py"))


def make_model() -> PreTrainedModel:
    config = toy["make_model"]().config
    config.num_hidden_layers = 4
    torch.manual_seed(0)
    model = models.expand(LlamaForCausalLM(config), SETTINGS, 1)
    control_llm.freeze(model, SETTINGS)
    return model


def train(request: dict[str, Any], stop: int | None) -> PreTrainedModel:
    model, done = make_model(), -1

    def probe(_: PreTrainedModel) -> dict[str, float]:
        nonlocal done
        done += 1
        if done == stop:
            raise KeyboardInterrupt
        return {}

    training.train(
        model,
        toy["make_mixture"](Path(request["folder"])),
        toy["make_stage"](),
        Engine.model_validate(request["engine"]),
        1,
        Path(request["out"]),
        penalty=control_llm.divergence(SETTINGS),
        probe=probe,
        title="toy",
    )
    return model


def main(request: dict[str, Any]) -> None:
    if request["stop"] is not None:
        try:
            train(request, request["stop"])
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("the training was not stopped")
    model = train(request, None)
    if training.is_first_process():
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        save_file(weights, Path(request["out"]) / "final.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        main(one)
