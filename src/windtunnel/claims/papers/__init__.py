"""Every published result that this project holds its own against, one file a family of papers.

A claim holds the paper's figures and their source; what is ours is read from filed results alone.
"""

from windtunnel.claims.claim import Claim
from windtunnel.claims.papers import attention, differential, griffin, ngpt, palm, positions, recall

CLAIMS: tuple[Claim, ...] = (
    *differential.CLAIMS,
    *ngpt.CLAIMS,
    *palm.CLAIMS,
    *griffin.CLAIMS,
    *positions.CLAIMS,
    *recall.CLAIMS,
    *attention.CLAIMS,
)
