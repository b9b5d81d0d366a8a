"""From what the user names to what the library takes: a spec, a dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from windtunnel import recipes
from windtunnel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from windtunnel.data.shards import Dataset, TokenizerChoice
    from windtunnel.root import Model
    from windtunnel.training.workload import Synthetic


EVALUATION_TOKENS = 65_536  # of a text that are set aside and scored, where nobody says otherwise


class Source(NamedTuple):
    """A spec and where it came from; recipe is None for one read from a file. length: of the sequences in question."""

    spec: "Model"
    recipe: str | None
    origin: str
    length: int


def recipe_spec(name: str, settings: Mapping[str, Any]) -> "Model":
    """The spec of a recipe; unknown names and settings are refused with the nearest ones."""
    from windtunnel.root import Model

    spec = recipes.build(name, **settings)
    if not isinstance(spec, Model):
        raise InputError(f"recipe {name!r} gives a {type(spec).__name__}; expected a Model")
    return spec


def find_spec(name: str, settings: Mapping[str, Any], packages: Sequence[str], context: int | None) -> Source:
    """A recipe's spec, for the context that was asked for, or the one in a run folder or a `spec.json`."""
    path = Path(name)
    if name in recipes.names() or (":" in name and not path.exists()):
        length = one_of("context", context, settings.get("context"))
        spec = recipe_spec(name, settings if length is None else {**settings, "context": length})
        return Source(spec, name, f"recipe {name}", spec.context)
    if not path.exists():
        if path.suffix == ".json" or len(path.parts) > 1:
            raise InputError(f"{name}: there is no such run folder or spec file")
        recipes.entry(name)
    if settings:
        raise InputError(
            f"--set changes a recipe, and {name} is a written-out spec; leave --set out or name the recipe"
        )
    file = path / "spec.json" if path.is_dir() else path
    spec = read_spec(file, packages)
    return Source(spec, None, str(file), context or spec.context)


def read_spec(file: Path, packages: Sequence[str]) -> "Model":
    """The language model that a JSON file describes."""
    import windtunnel.parts  # noqa: F401 - defines the kinds that the file may hold
    from windtunnel.checkpoint import read_json
    from windtunnel.root import Model
    from windtunnel.spec import from_json

    spec = from_json(read_json(file), packages)
    if not isinstance(spec, Model):
        raise InputError(f"{file}: holds a {spec.kind}; expected a Model")
    return spec


def one_of(name: str, option: Any, setting: Any) -> Any:
    """What was given as --name or as --set name=, never as both."""
    if option is not None and setting is not None:
        raise InputError(f"{name}: given as --{name} {option} and as --set {name}={setting}; give one")
    return setting if option is None else option


def tokenizer_choice(vocab: int | str | None, tokenizer: Path | None) -> "int | str | Path | None":
    """What `prepare` takes, from --vocab and --tokenizer."""
    if vocab is not None and tokenizer is not None:
        raise InputError(f"--vocab {vocab} and --tokenizer {tokenizer}: give one of the two")
    if tokenizer is not None and str(tokenizer) == "bytes":
        return "bytes"
    return tokenizer if tokenizer is not None else vocab


def read_task(text: str, items: int | None, **of_a_text: Any) -> "Synthetic":
    """The task that was named, as a workload; what belongs to a text alone is refused."""
    from windtunnel.data.tasks import parse_task
    from windtunnel.training.workload import ITEMS, Synthetic

    for name, value in of_a_text.items():
        if value not in (None, ()):
            raise InputError(f"--{name.replace('_', '-')} belongs to a text, and --task {text} names a task; give one")
    return Synthetic(parse_task(text), ITEMS if items is None else items)


def no_task(**of_a_task: Any) -> None:
    """Refuse what belongs to a task alone."""
    for name, value in of_a_task.items():
        if value is not None:
            raise InputError(f"--{name} belongs to a task; name one with --task, or leave it out")


def read_mix(mix: Sequence[str]) -> dict[str, str]:
    """What --mix says of each set: NAME=WEIGHT, or the entries of one JSON or TOML file."""
    from windtunnel.data.mixture import typed

    files = [each for each in mix if each.endswith((".json", ".toml"))]
    if not files:
        return typed(mix)
    if len(mix) > 1:
        raise InputError(f"--mix {files[0]}: name one file, or a weight for each set, not both")
    return {name: str(weight) for name, weight in _read_entries(Path(files[0])).items()}


def _read_entries(path: Path) -> dict[str, Any]:
    import json
    import tomllib

    try:
        data = path.read_bytes()
        entries = json.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise InputError(f"--mix {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"--mix {path} is not {path.suffix[1:].upper()}: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict):
        raise InputError(f"--mix {path} must hold a weight for each set, not a {type(entries).__name__}")
    for name, value in entries.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"--mix {path}: {name} is {value!r}; expected a weight, 0.3, or epochs, '3x'")
    return entries


def read_dataset(
    data: Sequence[Path | str],
    text_field: str,
    set_field: str,
    choice: "TokenizerChoice",
    context: int,
    heldout_tokens: int,
    progress: "Callable[[str, float], None]",
) -> "Dataset":
    """Token shards of the data that was named, from the cache where it holds them."""
    from windtunnel.data.corpus import read_corpus
    from windtunnel.data.shards import prepare

    corpus = read_corpus(list(data) or None, text_field, set_field)
    return prepare(corpus, choice, context, heldout_tokens, progress=progress)
