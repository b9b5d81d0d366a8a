"""A whole page: one file that opens from disk, loads nothing, and is the same bytes for the same content."""

import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from windtunnel.report.parts import Section


def page(title: str, sections: Sequence[Section], *, kicker: str = "", summary: str = "", footer: str = "") -> str:
    """A page with contents, theme switch and print style.

    `kicker` is the small line over the title, `summary` the paragraph under it. Section keys must be unique.
    """
    keys = [section.key for section in sections]
    if len(set(keys)) < len(keys):
        raise ValueError(f"section keys must be unique, not {keys}")
    assets = environment("windtunnel.report", "assets")
    return assets.get_template("page.html.jinja").render(
        title=title,
        kicker=kicker,
        summary=summary,
        footer=footer,
        sections=sections,
        style=_asset("style.css"),
        script=_asset("script.js"),
    )


@functools.cache
def environment(package: str, folder: str) -> Environment:
    """Templates of a package's folder; everything put into them is escaped, unknown names raise."""
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def write_page(path: Path, content: str) -> Path:
    """Writes the page atomically: readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


@functools.cache
def _asset(name: str) -> Markup:
    """A style sheet or script of this package, trusted as it is."""
    return Markup(Path(__file__).with_name("assets").joinpath(name).read_text(encoding="utf-8"))
