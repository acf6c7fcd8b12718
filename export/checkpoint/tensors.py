"""A checkpoint's values as torch's tensors."""

import numpy as np
import torch

from resdeploy.deploy.arrays import Float32s

# Where torch allocates and where torch.save puts tensors in its file. Other writers do not, and
# a kernel that gets an unaligned weight may sum in another order: other last bits.
_ALIGNMENT_BYTES = 64


def aligned(values: Float32s) -> torch.Tensor:
    """The values as a tensor; it shares their memory where torch could have allocated it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape))
    return tensor.clone() if tensor.data_ptr() % _ALIGNMENT_BYTES else tensor
