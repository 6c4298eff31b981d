import numpy as np
import pytest
from scipy.ndimage import gaussian_filter


@pytest.fixture(scope="session")
def smooth_pair():
    """Two alike volumes (24, 20, 28) in [0, 1] without any symmetry."""
    noise = np.random.default_rng(7).random((2, 24, 20, 28))
    truth = gaussian_filter(noise[0], 2)
    truth = (truth - truth.min()) / np.ptp(truth)
    return truth, np.clip(truth + 0.2 * gaussian_filter(noise[1] - 0.5, 1), 0, 1)
