"""A study's report: the terminal table, the same in Markdown, and report.html."""

from windtunnel.comparison.report.document import render_report, write_report
from windtunnel.comparison.report.summary import markdown_table, terminal_table

__all__ = ["markdown_table", "render_report", "terminal_table", "write_report"]
