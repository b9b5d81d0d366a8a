"""An arm that is the architecture of a run, imported or trained here: at its own sizes, with weights that are drawn."""

from pathlib import Path

from windtunnel import recipes
from windtunnel.positions import Learned
from windtunnel.recipes.sizing import Training
from windtunnel.root import Model
from windtunnel.runs import find


def is_run(name: str) -> bool:
    """Whether an arm names a run's folder, not a recipe."""
    return name not in recipes.names() and (Path(name) / "run.json").is_file()


def spec_of_run(folder: str, vocab: int, context: int) -> Model:
    """The run's architecture for a study's vocabulary and length; a table of positions is as long as a recipe's."""
    spec = find(folder).spec
    embedding = spec.embedding
    if isinstance(embedding.positions, Learned):
        embedding = embedding.replace(positions=embedding.positions.replace(length=context))
    return spec.replace(vocab=vocab, context=context, embedding=embedding)


def training_of(recipe: str) -> Training:
    """What a recipe declares about its training. A run's grid of learning rates has the centre of llama's."""
    return recipes.training("llama" if is_run(recipe) else recipe)


def paper_of(recipe: str) -> str:
    """The paper of a recipe of this package."""
    return recipes.entry(recipe).paper if recipe in recipes.names() else ""
