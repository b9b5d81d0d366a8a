"""Settings are values: checked when made, equal after a trip through JSON."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from windtunnel.errors import InputError
from windtunnel.spec import difference, from_json
from windtunnel.training.settings import TrainingSettings

Make = Callable[..., TrainingSettings]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": 63}, ["tokens", "63", "64"]),
        ({"context": 0}, ["context", "0", "at least 1"]),
        ({"batch_size": 4.5}, ["batch_size", "4.5", "int"]),
        ({"accumulation": 3}, ["batch_size", "multiple of accumulation=3"]),
        ({"learning_rate": 0.0}, ["learning_rate", "above 0"]),
        ({"learning_rate": math.nan}, ["learning_rate", "nan"]),
        ({"learning_rate": "fast"}, ["learning_rate", "fast", "float"]),
        ({"optimiser": "adamv"}, ["optimiser", "adamv", "did you mean adam or adamw"]),
        ({"optimiser": "adafactor", "eps": 1e-6}, ["eps", "1e-06", "default", "adafactor"]),
        ({"optimiser": "adafactor", "betas": (0.9, 0.99)}, ["betas", "0.99", "k^-0.8"]),
        ({"optimiser": "sgd", "betas": (0.9, 0.99)}, ["betas", "momentum alone"]),
        ({"schedule": "linear"}, ["schedule", "'wsd' or 'cosine' or 'rsqrt'"]),
        ({"schedule": "rsqrt", "flat": 0.1}, ["flat", "left at 0.0", "'rsqrt'"]),
        ({"schedule": "rsqrt", "constant": 0.0}, ["constant", "above 0"]),
        ({"schedule": "cosine", "cooldown": 0.1}, ["cooldown", "left at 0.2", "'cosine'"]),
        ({"schedule": "cosine", "flat": 0.98}, ["flat", "below 1 together with warmup=0.03"]),
        ({"constant": 0.1}, ["constant", "left at 0.3", "'wsd'"]),
        ({"z_loss": -1e-4}, ["z_loss", "at least 0"]),
        ({"ramp": ((0.5,),)}, ["ramp", "pairs"]),
        ({"ramp": ((0.25, 0.5), (0.5, 0.2))}, ["ramp", "rising"]),
        ({"ramp": ((0.3, 0.5),)}, ["ramp", "whole sequences of batch_size=4"]),
        ({"ramp": ((0.75, 0.5),), "accumulation": 2}, ["ramp", "micro-batch of 2", "3 is neither"]),
        ({"warmup": 1.0}, ["warmup", "1.0"]),
        ({"cooldown": -0.1}, ["cooldown", "-0.1"]),
        ({"betas": (0.9,)}, ["betas", "two numbers"]),
        ({"betas": (0.9, 1.0)}, ["betas", "below 1"]),
        ({"weight_decay": -1}, ["weight_decay", "at least 0"]),
        ({"clip": 0}, ["clip", "above 0", "None"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"horizons": (0.5,)}, ["horizons", "the last is 1.0"]),
        ({"horizons": (0.5, 0.5, 1.0)}, ["horizons", "rising"]),
        ({"horizons": ()}, ["horizons", "rising"]),
        ({"horizons": (0.01, 0.012, 1.0)}, ["horizons", "whole steps"]),
        ({"horizons": (0.5, 1.0), "schedule": "cosine"}, ["horizons", "cosine"]),
        ({"horizons": (0.1, 1.0), "warmup": 0.3}, ["warmup", "first horizon's cooldown"]),
        ({"evaluation_tokens": 0}, ["evaluation_tokens", "None"]),
    ],
)
def test_impossible_settings_are_named(make_settings: Make, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make_settings(**changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_round_trip(make_settings: Make) -> None:
    settings = make_settings(horizons=(0.25, 0.5, 1), clip=None, betas=[0.9, 0.99], ramp=[[0.5, 0.25]])
    again = from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings
    assert again.fingerprint() == settings.fingerprint()
    assert hash(again) == hash(settings)
    assert difference(settings, settings.replace(warmup=0.1)) == [("warmup", 0.03, 0.1)]


def test_tokens_are_rounded_to_whole_steps(make_settings: Make) -> None:
    assert make_settings(tokens=64 * 10 + 20).steps == 10
    assert make_settings(tokens=64 * 10 + 40).steps == 11
    assert make_settings(tokens=64).steps == 1
