"""Importing this defines every kind of part that a spec can hold; whoever reads specs from files imports it."""

import windtunnel.axial
import windtunnel.model
import windtunnel.mup  # noqa: F401
