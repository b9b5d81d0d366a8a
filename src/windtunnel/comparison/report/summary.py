"""The study in one table: for terminals, and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from windtunnel.comparison.report import wording
from windtunnel.comparison.report.accuracy import is_task, task_table
from windtunnel.comparison.report.reading import MEASURES, Arm, Comparison, Estimate, Study, read
from windtunnel.report import Table, figures

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_WIDE = 98
_STYLES = {"good": "bold green", "fair": "green", "bad": "bold red", "poor": "red", "mixed": "yellow", "even": "cyan"}
_LEGEND = (
    "Loss in nats a token, lower is better; ± and [ ] are 95 % intervals over seeds. S > 1: the variant needs "
    "less to reach the baseline's loss."
)


def terminal_table(results: Mapping[str, Any]) -> "TerminalTable":
    """The study's table for a rich console: one table at 98 columns and more, two below."""
    return TerminalTable(read(results))


def markdown_table(results: Mapping[str, Any]) -> str:
    """The study's table in Markdown, with its legend."""
    study = read(results)
    if is_task(study):
        table = task_table(study)
        return _ascii(f"{table.caption}\n\n{table.markdown()}\n{table.note}\n")
    return _ascii(f"{overview(study).markdown()}\n{_LEGEND}\n")


def overview(study: Study, between: str = " ") -> Table:
    """One line an arm, every headline number."""
    columns = (
        "arm",
        "body parameters",
        "LR",
        "loss (nats)",
        "bits/byte",
        "Δ nats",
        "S_tok",
        "S_flop",
        "S_time",
        "verdict",
        "grade",
    )
    rows = [[*_arm_cells(arm, between), *_result_cells(study, arm, between)] for arm in study.arms]
    return Table(caption="One line an arm", columns=columns, rows=rows, numeric=range(1, 9))


class TerminalTable:
    """Chooses its layout by the console's width."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        if is_task(self.study):
            table = _task(self.study)
            yield table.rich(_style, title=table.caption)
            yield Text(_ascii(table.note), style="dim")
            return
        for table in _wide(self.study) if options.max_width >= _WIDE else _narrow(self.study):
            yield table.rich(_style, title=table.caption or None)
        yield Text(_ascii(_LEGEND), style="dim")


def _task(study: Study) -> Table:
    """The task's table with its columns in pairs, so that it fits a terminal."""
    full = task_table(study)
    pairs = ((0,), (1, 2), (3,), (4, 5), (6,), (7, 8), (9, 10), (11,))
    columns = ["\n".join(full.columns[k] for k in pair) for pair in pairs]
    rows = [["\n".join(str(row[k]) for k in pair) for pair in pairs] for row in full.rows]
    return Table(caption=full.caption, columns=columns, rows=_plain(rows), numeric=range(1, 7), note=full.note)


def _wide(study: Study) -> list[Table]:
    columns = ("arm\nbody (gap)", "LR", "loss\nbits/byte", "Δ nats", "S_tok", "S_flop", "S_time", "verdict\ngrade")
    rows = []
    for arm in study.arms:
        name, body, rate, loss, bits = _arm_cells(arm, " ")
        delta, *speedups, verdict, grade = _result_cells(study, arm, "\n")
        rows.append(
            [f"{name}\n{body}", rate.replace(" ", "\n"), f"{loss}\n{bits}", delta, *speedups, _graded(verdict, grade)]
        )
    return [Table(caption="", columns=columns, rows=_plain(rows), numeric=range(1, 7))]


def _narrow(study: Study) -> list[Table]:
    first = Table(
        caption="Arms",
        columns=("arm", "body (gap)", "LR", "loss", "bits/byte"),
        rows=_plain([_arm_cells(arm, " ") for arm in study.arms]),
        numeric=range(1, 5),
    )
    compared = [[arm.name, *_result_cells(study, arm, "\n")] for arm in study.arms if not arm.is_baseline]
    lines = [[*row[:-2], _graded(*row[-2:])] for row in compared]
    columns = ("arm", "Δ nats", "S_tok", "S_flop", "S_time", "verdict\ngrade")
    return [first, Table(caption="Against the baseline", columns=columns, rows=_plain(lines), numeric=range(1, 5))]


def _arm_cells(arm: Arm, between: str) -> list[str]:
    whole, active = arm.number("n_body"), arm.number("n_body_active")
    body = figures.counted(whole)
    if active is not None and active != whole:
        body = f"{figures.counted(active)} of {body}"
    gap = arm.number("param_gap")
    size = body if arm.is_baseline or gap is None else f"{body}{between}({figures.gap(gap)})"
    bits = figures.fixed(arm.number("bits_per_byte"))
    return [wording.arm_words(arm), size, wording.rate_words(arm), _loss(arm.loss), bits]


def _result_cells(study: Study, arm: Arm, between: str) -> list[str]:
    """Difference, three speedups, verdict and grade; blank for the baseline, said in words for an arm that failed."""
    comparison = study.comparison(arm)
    if comparison is None:
        return ["", "", "", "", "failed" if arm.failed else "", ""]
    speedups = [_speedup(comparison, measure, between) for measure in MEASURES]
    return [
        _difference(comparison.delta, between),
        *speedups,
        comparison.verdict,
        comparison.grade,
    ]


def _graded(verdict: str, grade: str) -> str:
    return f"{verdict}\ngrade {grade}" if grade else verdict


def _style(column: int, cell: str) -> str:
    """Names stand out, and verdicts have their colour; the words say the same."""
    if column == 0:
        return "bold"
    first = cell.partition("\n")[0]
    return _STYLES.get(wording.tone(first), "") if first[:1].isalpha() else ""


def _loss(loss: Estimate) -> str:
    half = "" if loss.half is None else f" ±{figures.fixed(loss.half)}"
    return f"{figures.fixed(loss.value)}{half}"


def _difference(delta: Estimate, between: str) -> str:
    bounds = "" if delta.low is None else f"{between}{figures.interval(delta.low, delta.high)}"
    return f"{figures.signed(delta.value)}{bounds}"


def _speedup(comparison: Comparison, measure: str, between: str) -> str:
    speedup = comparison.speedup(measure)
    bounds = wording.speedup_interval(speedup, "[{}, {}]" if between == " " else "{}-{}")
    if speedup is None:
        return wording.FLAT.replace(" ", between)
    return between.join(part for part in (wording.speedup_value(speedup), bounds) if part)


def _plain(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[_ascii(cell) for cell in row] for row in rows]


def _ascii(text: str) -> str:
    """A hyphen for the typographic minus, plain spaces: terminals and Markdown are copied from."""
    return text.replace(figures.MINUS, "-").replace(figures.MISSING, "-").replace("\u00a0", " ")
