"""The one kind of batch that every model and every stage of training reads."""

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class Batch:
    """Rows of packed documents."""

    tokens_BL: jax.Array | np.ndarray
    """Token ids, int32."""
    positions_BL: jax.Array | np.ndarray
    """Distance from the document's start, int32; 0 starts a document. Padding is 0 everywhere:
    each pad token is a document of its own."""
    loss_mask_BL: jax.Array | np.ndarray
    """True on tokens to be predicted from the ones before them, bool."""
