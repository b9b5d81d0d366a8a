"""Plans for hardware that one does not have: memory, time, traffic, utilisation, serving, of any spec.

Held to published cases (`cases`). Every figure says whether it was counted, published, measured, given, assumed or
modelled from these.
"""

from windtunnel.planning.hardware import Hardware, find
from windtunnel.planning.mesh import Mesh, parse_mesh
from windtunnel.planning.plan import Plan, plan
from windtunnel.planning.published import cases
from windtunnel.planning.settings import Settings

__all__ = ["Hardware", "Mesh", "Plan", "Settings", "cases", "find", "parse_mesh", "plan"]
