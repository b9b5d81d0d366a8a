"""What a run of `windtunnel train` begins with: a recipe whose weights are drawn, or a run whose weights are taken."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel import recipes
from windtunnel.cli.rules import read_stages, training_settings
from windtunnel.cli.sources import one_of, recipe_spec, tokenizer_choice
from windtunnel.data.shards import TokenizerChoice
from windtunnel.errors import InputError
from windtunnel.root import Model
from windtunnel.runs import Stored, find
from windtunnel.training.continuing import origin_of_rate, settings_from, trained_settings
from windtunnel.training.origin import Origin
from windtunnel.training.settings import BATCH_SIZE, TrainingSettings
from windtunnel.training.transfer import check_mup, under_mup
from windtunnel.values import parse_settings


class Beginning(ABC):
    """A model and how it is to be trained, before the data is read. origin: the weights, where they are not drawn."""

    origin: Origin | None = None

    @abstractmethod
    def tokenizer(self) -> TokenizerChoice:
        """What a text is prepared with."""

    @abstractmethod
    def spec(self, vocab: int, context: int | None = None) -> Model:
        """The model for so many token ids; context: for sequences of so many, unless the user asked for others."""

    @abstractmethod
    def settings(self, typed: dict[str, Any], spec: Model) -> tuple[TrainingSettings, list[str]]:
        """What it is trained by, and remarks. typed: fields of `TrainingSettings`, None where nothing was typed."""

    @abstractmethod
    def rate(self, spec: Model) -> str:
        """Where the learning rate comes from, if none was typed."""


@dataclass(frozen=True)
class FromRecipe(Beginning):
    """A recipe at the sizes that the user gave, trained under `rules`; mup: the width from which muP carries it."""

    recipe: str
    sizes: dict[str, Any]
    rules: str
    choice: TokenizerChoice
    mup: int | None = None

    def tokenizer(self) -> TokenizerChoice:
        return self.choice

    def spec(self, vocab: int, context: int | None = None) -> Model:
        length = {} if context is None else {"context": context}
        sizes = {**length, **self.sizes, "vocab": vocab}
        spec = recipe_spec(self.recipe, sizes)
        return spec if self.mup is None else under_mup(self.recipe, sizes, self.mup)

    def settings(self, typed: dict[str, Any], spec: Model) -> tuple[TrainingSettings, list[str]]:
        settings, remarks = training_settings(self.recipe, self.rules, typed, spec)
        check_mup(spec, settings)
        return settings, remarks

    def rate(self, spec: Model) -> str:
        published = recipes.paper(self.recipe) if self.rules == "paper" else None
        named = published is not None and "learning_rate" in published.settings
        return f"{self.recipe}'s paper's" if named else f"{self.recipe}'s own at width {self.mup or spec.width}"


@dataclass(frozen=True)
class FromRun(Beginning):
    """A finished or imported run, trained further on other data. context: tokens of a sequence; None is the run's."""

    source: Stored
    context: int | None
    choice: TokenizerChoice
    origin: Origin

    def tokenizer(self) -> TokenizerChoice:
        own = self.source.tokenizer()
        if own is not None and self.choice is not None:
            raise InputError(
                f"{self.source.folder}: reads by its own tokenizer, {own.label}; leave --tokenizer and --vocab out"
            )
        if own is None and self.choice is None:
            raise InputError(
                f"{self.source.folder}: has no tokenizer; name the one that it was trained with by --tokenizer"
            )
        return self.choice if own is None else own

    def spec(self, vocab: int, context: int | None = None) -> Model:
        return self.source.spec

    def settings(self, typed: dict[str, Any], spec: Model) -> tuple[TrainingSettings, list[str]]:
        asked = {"context": self.context, **typed}
        given = {name: value for name, value in asked.items() if value is not None}
        old = trained_settings(self.source)
        size = given.get("batch_size", BATCH_SIZE if old is None else old.batch_size)
        return settings_from(self.source, **read_stages({"mixture": (), **given, "batch_size": size})), []

    def rate(self, spec: Model) -> str:
        return origin_of_rate(self.source)


def beginning(
    name: str,
    settings: tuple[str, ...],
    vocab: int | str | None,
    tokenizer: Path | None,
    context: int | None,
    rules: str,
    packages: tuple[str, ...],
    mup: int | None,
) -> Beginning:
    """What the user named: a recipe, or the folder of a run."""
    sizes = parse_settings(settings)
    vocab = one_of("vocab", vocab, sizes.pop("vocab", None))
    context = one_of("context", context, sizes.pop("context", None))
    choice = tokenizer_choice(vocab, tokenizer)
    if name not in recipes.names() and Path(name).is_dir():
        if sizes or rules != "own" or mup is not None:
            given = f"--set {next(iter(sizes))}" if sizes else f"--settings {rules}" if mup is None else f"--mup {mup}"
            raise InputError(f"{given} belongs to a recipe, and {name} is a run; leave it out")
        source = find(name, packages=packages)
        return FromRun(source, context, choice, Origin.of(source))
    if context is not None:
        sizes["context"] = context
    return FromRecipe(name, sizes, rules, choice, mup)
