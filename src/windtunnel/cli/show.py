"""`windtunnel show`: what a recipe amounts to before any of it is trained."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.figures import bytes_short, grouped, short
from windtunnel.cli.options import Json, Packages, Settings, complete_recipe, count
from windtunnel.cli.rules import spelled
from windtunnel.cli.screen import Screen, facts, table

if TYPE_CHECKING:
    from windtunnel.cli.sources import Source
    from windtunnel.ledger import Ledger

_EXAMPLE = """Examples:

windtunnel show ngpt --set layers=6 --set width=256

windtunnel show palm --set size=540b --json

windtunnel show runs/palm
"""
_COUNTS = {
    "n_total": "all",
    "n_emb": "input tables",
    "n_unemb": "output table, 0 where tied",
    "n_body": "without the tables",
    "n_matmul": "multiplied for each token, output table included",
    "n_active": "of those, used by one token",
    "n_body_active": "without the tables, used by one token",
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("show", epilog=_EXAMPLE)(run)


def run(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe, a run folder or a spec.json.", autocompletion=complete_recipe),
    ],
    settings: Settings = [],  # noqa: B006
    context: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Sequence length; else the recipe's own.")
    ] = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write out a recipe: its parts, parameters, FLOPs a token, state bytes. Builds nothing, whatever the size."""
    from windtunnel.cli.sources import find_spec
    from windtunnel.ledger import ledger
    from windtunnel.values import parse_settings

    chosen = parse_settings(settings)
    source = find_spec(recipe, chosen, packages, context)
    costs = ledger(source.spec, source.length)
    screen = Screen(as_json)
    if as_json:
        screen.finish(_record(source, costs))
    else:
        _print(screen, source, costs)


def _record(source: "Source", costs: "Ledger") -> dict[str, Any]:
    return {
        "origin": source.origin,
        "recipe": source.recipe,
        "spec": source.spec.to_json(),
        "fingerprint": source.spec.fingerprint(),
        "declared": _declared(source),
        **costs.to_json(),
    }


def _declared(source: "Source") -> dict[str, Any] | None:
    """What the recipe declares about its own training."""
    if source.recipe is None:
        return None
    from windtunnel import recipes

    training, published = recipes.training(source.recipe), recipes.paper(source.recipe)
    return {
        "learning_rate": training.learning_rate_at(source.spec.width),
        "weight_decay": training.weight_decay,
        "warmup": training.warmup,
        "why": training.why,
        "paper": None if published is None else {"settings": dict(published.settings), "why": published.why},
    }


def _print(screen: Screen, source: "Source", costs: "Ledger") -> None:
    from windtunnel.cli.tree import spec_tree

    screen.say(spec_tree(source.spec))
    screen.say()
    screen.say(facts(_facts(source)))
    counts = costs.parameters._asdict()
    rows = [[name, grouped(value), short(value), _COUNTS.get(name, "")] for name, value in counts.items()]
    screen.say(table(["parameters", "", "", ""], rows, numeric=(1, 2)))
    screen.say(_operations(costs))
    screen.say(_state(costs))
    if costs.parameter_crossover is not None:
        screen.say(f"From {grouped(costs.parameter_crossover)} tokens on, the state is larger than the parameters.")


def _facts(source: "Source") -> dict[str, str]:
    lines = {"from": source.origin, "fingerprint": source.spec.fingerprint()}
    declared = _declared(source)
    if declared is not None:
        rate = f"learning rate {declared['learning_rate']:.3g} at width {source.spec.width}"
        own = [f"{name} {declared[name]:g}" for name in ("weight_decay", "warmup") if declared[name] is not None]
        if declared["paper"] is not None:
            settings, why = declared["paper"]["settings"], declared["paper"]["why"]
            lines["its paper"] = ", ".join(f"{name} {spelled(value)}" for name, value in settings.items()) + f" ({why})"
        lines["declares"] = ", ".join([rate, *own]) + (f" ({declared['why']})" if declared["why"] else "")
    return lines


def _operations(costs: "Ledger") -> Any:
    """FLOPs a token by mechanism; a multiply-accumulate is two."""
    rows = [
        [row.mechanism, short(row.parameters), short(row.model), short(row.hardware), short(row.elementwise)]
        for row in costs.rows
    ]
    for name, work in (("forward", costs.forward), ("training", costs.training)):
        rows.append([name, "", short(work.model), short(work.hardware), short(work.elementwise)])
    columns = ["FLOPs a token", "parameters", "model", "hardware", "element-wise"]
    title = f"At sequences of {grouped(costs.length)} tokens: what the algorithm needs, and what runs"
    return table(columns, rows, numeric=(1, 2, 3, 4), title=title)


def _state(costs: "Ledger") -> Any:
    rows = [[grouped(length), bytes_short(size)] for length, size in costs.state_bytes.items()]
    return table(["tokens", "state of one sequence (float32)"], rows, numeric=(0, 1))
