"""The one kind of batch that every model and every stage of training reads."""

from typing import Any

import flax.struct


@flax.struct.dataclass
class Batch:
    """Rows of packed documents; arrays of NumPy or JAX, or their shapes."""

    tokens_BL: Any
    """Token ids, int32."""
    positions_BL: Any
    """Distance from the document's start, int32; 0 starts a document. Padding is 0 everywhere:
    each pad token is a document of its own."""
    loss_mask_BL: Any
    """True on tokens to be predicted from the ones before them, bool."""
