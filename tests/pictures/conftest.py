from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import conftest


@pytest.fixture
def photo() -> Callable[[int, int], NDArray[np.uint8]]:
    """Make a picture (H, W, 3) with smooth parts and fine detail."""
    return lambda height, width: np.asarray(conftest.photo(width, height))
