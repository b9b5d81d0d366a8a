"""One notation for the whole package. Shape comments and annotations use these letters.

b  sequences in a batch          d  model width
t  positions of this call        h  query heads            g  key/value heads
s  positions attended to         k  query/key head width   e  value head width
v  vocabulary                    f  hidden width of an MLP
n  rows of any kind (b t flattened)
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens = Int[Tensor, "b t"]
Documents = Int[Tensor, "b t"]
RowDocuments = Int[Tensor, "b s"]  # of rows as far as a call reads them: s is at least its t
Positions = Int[Tensor, " t"]
Hidden = Float[Tensor, "b t d"]
Logits = Float[Tensor, "b t v"]
TokenLosses = Float[Tensor, "b t"]
Scalar = Float[Tensor, ""]
Heads = Float[Tensor, "b h t k"]
Table = Float[Tensor, "v d"]
Mask = Bool[Tensor, "*b t s"]
