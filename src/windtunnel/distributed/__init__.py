"""One model on many devices: how it is run, never what it computes."""

from windtunnel.distributed.mesh import Mesh
from windtunnel.distributed.places import Place
from windtunnel.distributed.start import launched, team
from windtunnel.distributed.team import ALONE, Team

__all__ = ["ALONE", "Mesh", "Place", "Team", "launched", "team"]
