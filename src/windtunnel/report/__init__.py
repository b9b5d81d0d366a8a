"""The kit that draws pages and tables; it knows nothing of studies.

A page is `page(title, [Section(...), ...])`; sections hold parts (`Prose`, `Facts`, `Tabs`, ...), charts and tables.
"""

from windtunnel.report.charts import (
    Axis,
    Bar,
    BarChart,
    Chart,
    Guide,
    HeatMap,
    Row,
    RowChart,
    RowGroup,
    Series,
    colour,
    marker,
)
from windtunnel.report.page import environment, page, write_page
from windtunnel.report.parts import (
    Block,
    Details,
    Facts,
    Figure,
    Finding,
    Items,
    Notice,
    Part,
    Prose,
    Raw,
    Section,
    Tabs,
    Tone,
)
from windtunnel.report.tables import Table

__all__ = [
    "Axis",
    "Bar",
    "BarChart",
    "Block",
    "Chart",
    "Details",
    "Facts",
    "Figure",
    "Finding",
    "Guide",
    "HeatMap",
    "Items",
    "Notice",
    "Part",
    "Prose",
    "Raw",
    "Row",
    "RowChart",
    "RowGroup",
    "Section",
    "Series",
    "Table",
    "Tabs",
    "Tone",
    "colour",
    "environment",
    "marker",
    "page",
    "write_page",
]
