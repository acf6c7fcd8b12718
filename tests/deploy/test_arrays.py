"""An array's alias says the type that NumPy checks."""

from typing import Any, get_args

import numpy as np
import pytest

from resdeploy.deploy import arrays


@pytest.mark.parametrize(
    ("alias", "scalar"),
    [
        (arrays.Float32s, np.float32),
        (arrays.Float64s, np.float64),
        (arrays.Floats, np.floating),
        (arrays.Indices, np.int64),
        (arrays.Bools, np.bool_),
    ],
)
def test_an_alias_is_an_array_of_what_it_is_called(alias: Any, scalar: type) -> None:
    _, dtype = get_args(alias)
    assert get_args(dtype) == (scalar,)
    assert issubclass(np.float32, get_args(get_args(arrays.Floats)[1])[0])
