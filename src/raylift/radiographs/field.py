"""The parts of an X-ray image: its exposed field, open air, and what lies beyond the field."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SHADE = 0.98  # share of the pixels of a line at the border that are white or black behind a collimator
OPEN = 0.5  # share of black pixels below which the next line shows that a black line is no open air
EXTREME = (0.01, 0.999)  # levels in [0, 1] up to which pixels are black, and from which they are white
BINS = 256  # of the histogram in which the peak of open air is looked for
PEAK = 2.0  # height of that peak, in multiples of an even distribution
FOOT = 0.3  # share of that height at which the peak ends
MOST_AIR = 0.4  # share of the range of grey levels below which the peak lies
WIDEST = 0.12  # share of the range within which the peak ends


def collimated_border(levels: np.ndarray) -> np.ndarray:
    """Return the mask of the pixels behind a collimator, and of the lines that were added around an image.

    These are white or black lines along the border. Black lines count where the image begins abruptly, since open air
    can be black too.

    Args:
        levels: grey levels (rows, columns), which are not all equal.
    """
    low, high = float(levels.min()), float(levels.max())
    grey = (levels - low) / (high - low)
    mask = np.zeros(grey.shape, bool)
    for lines, masked in ((grey, mask), (grey.T, mask.T)):
        white, black = (lines > EXTREME[1]).mean(1), (lines < EXTREME[0]).mean(1)
        for way in (slice(None), slice(None, None, -1)):
            masked[way][: np.argmin(white[way] >= SHADE)] = True
            count = int(np.argmin(black[way] >= SHADE))
            if black[way][count] < OPEN:
                masked[way][:count] = True
    return mask


def open_air(levels: np.ndarray, exposed: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Find the open air beside the patient, whatever its grey.

    Air is a narrow peak at the lower end of the histogram, since skin is met abruptly; its pixels are connected to the
    border of the exposed field.

    Args:
        levels: grey levels (rows, columns) that rise with attenuation.
        exposed: mask of the exposed field.

    Returns:
        The mask of the air, and the highest level of its peak; an empty mask and None where there is none.
    """
    none = np.zeros(levels.shape, bool)
    low, high = np.percentile(levels[exposed], [0.1, 99.9])
    if not low < high:
        return none, None
    counts, ends = np.histogram(np.clip(levels[exposed], low, high), BINS, (low, high))
    density = np.convolve(counts, np.full(5, BINS / 5 / counts.sum()), "same")
    for k in range(int(MOST_AIR * BINS)):
        if density[k] < PEAK or density[k] < density[max(k - 8, 0) : k + 9].max():
            continue
        beyond = np.flatnonzero(density[k : k + int(WIDEST * BINS)] < FOOT * density[k])
        if len(beyond):
            top = float(ends[k + beyond[0] + 1])
            return _connected_to_border((levels <= top) & exposed, exposed), top
    return none, None


def _connected_to_border(mask: np.ndarray, exposed: np.ndarray) -> np.ndarray:
    """Return the parts of a mask that touch the border of the exposed field."""
    labels, _ = ndimage.label(mask)
    border = exposed & ~ndimage.binary_erosion(exposed)
    touching = np.unique(labels[border])
    return np.isin(labels, touching[touching > 0])


def continued(image: np.ndarray, exposed: np.ndarray) -> np.ndarray:
    """Return an image whose pixels outside of the exposed field take the value of the nearest exposed pixel.

    The body goes on beyond the field, so that this is nearer to the truth than air is.

    Args:
        image: (rows, columns).
        exposed: mask of the exposed field, which is not empty.
    """
    if exposed.all():
        return image
    nearest = ndimage.distance_transform_edt(~exposed, return_distances=False, return_indices=True)
    continuation: np.ndarray = image[tuple(nearest)]
    return continuation
