"""Published results beside ours: what a paper found, what filed results of ours say of it, and a plain call."""

from windtunnel.claims.claim import Claim, Evidence, Figure
from windtunnel.claims.filed import Filed, read_filed
from windtunnel.claims.judge import CALLS, Judged, judge, judged
from windtunnel.claims.page import document, page
from windtunnel.claims.papers import CLAIMS

__all__ = [
    "CALLS",
    "CLAIMS",
    "Claim",
    "Evidence",
    "Figure",
    "Filed",
    "Judged",
    "document",
    "judge",
    "judged",
    "page",
    "read_filed",
]
