"""Golden manifests: the name, shape and role of every parameter of every recipe.

A checkpoint can be read only while these hold, and while the fingerprints of the same specs do.
`python -m tests.recipes.manifest` writes them anew.
"""

import json
from pathlib import Path

import torch

import windtunnel as wt
from windtunnel.init import roles

FOLDER = Path(__file__).parent / "manifests"
FINGERPRINTS = Path(__file__).parent / "fingerprints.json"


def manifest(recipe: str) -> list[list[object]]:
    """[name, shape, role] of each parameter of a two-layer model, in the model's order."""
    with torch.device("meta"):
        model = wt.recipes.get(recipe)(vocab=100, layers=2, width=64, context=32).build()
    kinds = roles(model)
    return [[name, list(parameter.shape), kinds[name].kind] for name, parameter in model.named_parameters()]


def written(recipe: str) -> str:
    """The text of a manifest: one parameter a line."""
    return "[\n" + ",\n".join(" " + json.dumps(row) for row in manifest(recipe)) + "\n]\n"


def fingerprints() -> str:
    """The fingerprint of one spec of every recipe: it changes only where an existing field's meaning does."""
    sizes = {"vocab": 256, "layers": 4, "width": 128, "context": 64}
    found = {name: wt.recipes.get(name)(**sizes).fingerprint() for name in wt.recipes.names()}
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    for name in wt.recipes.names():
        (FOLDER / f"{name}.json").write_text(written(name))
    FINGERPRINTS.write_text(fingerprints())
