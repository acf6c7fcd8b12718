"""Names for the arrays that functions pass around; shapes stand in each docstring."""

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
# float32 or float64, as the caller has it
Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]
