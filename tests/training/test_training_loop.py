"""The loop against a plain one: single-tensor AdamW, clipping and learning rate written out, full logits."""

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import Dataset
from windtunnel.execution import Execution
from windtunnel.init import roles
from windtunnel.training.loop import Trainer
from windtunnel.training.optimisers.groups import parameter_groups

ONE_THREAD = Execution(device="cpu", threads=1)
ROUNDING = 2e-5  # after 12 steps, between two orders of the same sums


def _trainer(spec: Any, settings: Any, dataset: Dataset, execution: Execution = ONE_THREAD) -> Trainer:
    model = spec.build().initialize(settings.seed)
    return Trainer(model, Sampler(dataset.train, settings.context, settings.data_seed), settings, execution.resolve())


def _plain_steps(model: Any, sampler: Sampler, steps: int, clip: float) -> list[float]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    norms = []
    for step in range(steps):
        batch = sampler.batch(step, 4)
        logits = model(batch.tokens, documents=batch.documents).logits
        optimiser.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
        norm = sum(float((parameter.grad**2).sum()) for parameter in model.parameters()) ** 0.5
        for parameter in model.parameters():
            parameter.grad *= min(1.0, clip / norm)
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 4)
        optimiser.step()
        norms.append(norm)
    return norms


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_steps_equal_a_plain_loop(dataset: Dataset, make_spec: Any, make_settings: Any, clip: float) -> None:
    trainer = _trainer(make_spec(), make_settings(warmup=0.1, clip=clip), dataset)
    twin = copy.deepcopy(trainer.model)
    norms = [float(trainer.advance(step, None)[2]) for step in range(12)]
    assert norms == pytest.approx(_plain_steps(twin, trainer.data.sampler, 12, clip), rel=1e-3)
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), atol=ROUNDING, rtol=0, msg=name)


def test_accumulation_sees_the_same_data(dataset: Dataset, make_spec: Any, make_settings: Any) -> None:
    whole = _trainer(make_spec(), make_settings(), dataset)
    cut = _trainer(make_spec(), make_settings(accumulation=4), dataset)
    for step in range(8):
        left, right = whole.advance(step, None), cut.advance(step, None)
        assert float(left[1]) == pytest.approx(float(right[1]), abs=1e-5)
    for name, parameter in whole.model.named_parameters():
        torch.testing.assert_close(parameter, cut.model.get_parameter(name), atol=ROUNDING, rtol=0, msg=name)


def test_recomputing_activations_changes_nothing(dataset: Dataset, make_spec: Any, make_settings: Any) -> None:
    plain = _trainer(make_spec(), make_settings(), dataset)
    thrifty = _trainer(make_spec(), make_settings(), dataset, ONE_THREAD.replace(checkpoint=True))
    for step in range(3):
        plain.advance(step, None)
        thrifty.advance(step, None)
    assert dict(thrifty.model.named_parameters()).keys() == dict(plain.model.named_parameters()).keys()
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(parameter, thrifty.model.get_parameter(name)), name


COMPILED = """
import json, sys
from windtunnel import recipes
from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import open_dataset
from windtunnel.execution import Execution
from windtunnel.training.loop import Trainer
from windtunnel.training.settings import TrainingSettings
settings = TrainingSettings(tokens=2560, context=16, batch_size=4, learning_rate=3e-3)
spec = recipes.get("llama")(layers=2, width=16, heads=2, vocab=257, context=16)
dataset = open_dataset(sys.argv[1])
losses, names, gradients = [], [], []
for compiled in (False, True):
    execution = Execution(device="cpu", threads=1, compile=compiled).resolve()
    trainer = Trainer(spec.build().initialize(1), Sampler(dataset.train, 16, 0), settings, execution)
    seconds = trainer.warm_up()
    trainer._backward(0)
    gradients.append([parameter.grad.flatten().tolist() for parameter in trainer.parameters])
    trainer.parts.forget_gradients()
    losses.append([float(trainer.advance(step, None)[1]) for step in range(4)])
    names.append([name for name, _ in trainer.model.named_parameters()])
print(json.dumps({"losses": losses, "names": names, "seconds": seconds, "gradients": gradients}))
"""


@pytest.mark.slow
def test_compiling_renames_nothing_and_agrees(dataset: Dataset) -> None:
    """In a process of its own: the shape checks of the tests do not compile."""
    done = subprocess.run([sys.executable, "-c", COMPILED, str(dataset.folder)], capture_output=True, check=True)
    said = json.loads(done.stdout)
    assert said["losses"][0] == pytest.approx(said["losses"][1], abs=1e-4)
    assert said["names"][0] == said["names"][1]
    for eager, compiled in zip(*said["gradients"], strict=True):
        assert compiled == pytest.approx(eager, abs=1e-6)
    assert said["seconds"] > 1  # it did compile


def test_ngpt_is_projected_after_every_step(dataset: Dataset, make_spec: Any, make_settings: Any) -> None:
    trainer = _trainer(make_spec("ngpt"), make_settings(weight_decay=0.0, warmup=0.0), dataset)
    table = roles(trainer.model)
    for step in range(3):
        trainer.advance(step, None)
        for name, parameter in trainer.model.named_parameters():
            if table[name].kind in ("reads", "writes", "embedding", "unembedding"):
                norms = parameter.norm(dim=0 if table[name].kind == "writes" else 1)
                torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-6, rtol=0, msg=name)


def test_decay_touches_matrices_only(make_spec: Any) -> None:
    for recipe in ("llama", "palm", "diff_transformer", "ngpt", "gpt3"):
        model = make_spec(recipe).build()
        table, names = roles(model), {parameter: name for name, parameter in model.named_parameters()}
        groups = parameter_groups(model, 0.1)
        assert sum(len(group["params"]) for group in groups) == len(names)
        for group in groups:
            kinds = {table[names[parameter]].kind for parameter in group["params"]}
            vectors = kinds <= {"gain", "bias", "decay"}
            assert group["weight_decay"] == (0.0 if vectors else 0.1)
            assert vectors or kinds.isdisjoint({"gain", "bias", "decay"})


def test_global_randomness_is_a_function_of_the_step(dataset: Dataset, make_spec: Any, make_settings: Any) -> None:
    trainer = _trainer(make_spec(), make_settings(), dataset)

    def drawn(step: int) -> float:
        trainer.advance(step, None)
        return float(torch.rand(()))

    assert drawn(3) == drawn(3) != drawn(4)
