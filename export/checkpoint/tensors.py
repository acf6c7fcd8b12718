"""A checkpoint's values as torch's tensors."""

import numpy as np
import torch

from resdeploy.deploy.arrays import Float32s
from resdeploy.export.checkpoint.formats.pieces import ALIGNMENT_BYTES


def aligned(values: Float32s) -> torch.Tensor:
    """The values as a tensor; it shares their memory where torch could have allocated it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape))
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT_BYTES else tensor
