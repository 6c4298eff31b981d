"""The direction from which an X-ray is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylift.geometry.plausible import FARTHEST, Point, plain_boolean, plain_list, plain_number

# Radiographers' names: the angle, and whether the image is mirrored. As in DICOM, a lateral is named after the side at
# the detector. PA and left lateral are mirrored to read like AP and right lateral: the patient's left is on the right,
# the front on the left.
NAMED_VIEWS: dict[str, tuple[float, bool]] = {
    "ap": (0.0, False),
    "lateral-right": (90.0, False),
    "pa": (180.0, True),
    "lateral-left": (270.0, True),
}


@dataclass(frozen=True)
class View:
    """The direction of one X-ray.

    Example:
        >>> from raylift import View
        >>> View.parse("lateral-left").angle, View.parse(45).lateral
        (270.0, True)

    Args:
        angle: position of the source in degrees; 0 = in front of the patient, 90 = at the patient's left.
        mirrored: the image's columns run against the direction (cos θ, sin θ, 0), as in a PA radiograph that is
            oriented for reading.
        turn: rotation vector (x, y, z) in degrees that turns source and detector together about the isocentre, from
            the position that the angle gives; right-handed about the world's axes.
        shift: (x, y, z) in mm by which source and detector are moved after that. A patient's own movement is the
            inverse of this.
    """

    angle: float
    mirrored: bool = False
    turn: Point = (0.0, 0.0, 0.0)
    shift: Point = (0.0, 0.0, 0.0)

    @classmethod
    def parse(cls, text: str | float | View) -> View:
        """Return the view of an angle in degrees ("90", 45.0) or a name ("ap", "pa", "lateral-left", "lateral-right").

        Raises:
            ValueError: the text is neither a number from −100,000 to 100,000 nor one of `NAMED_VIEWS`.
        """
        if isinstance(text, View):
            return text
        name = str(text).strip().lower()
        if name in NAMED_VIEWS:
            return cls(*NAMED_VIEWS[name])
        try:
            angle = float(name)
        except ValueError:
            angle = math.nan
        if not abs(angle) <= FARTHEST:
            raise ValueError(f"'{text}' is no view: give an angle in degrees or one of {', '.join(NAMED_VIEWS)}")
        return cls(angle % 360)

    @property
    def name(self) -> str:
        """The radiographer's name of the view, or the angle in degrees if it has none."""
        named = {view: name for name, view in NAMED_VIEWS.items()}
        return named.get((self.angle, self.mirrored), f"{self.angle:g}" + ("m" if self.mirrored else ""))

    @property
    def lateral(self) -> bool:
        """Whether the view is nearer to a lateral than to a frontal one; 45° counts as lateral."""
        return abs(math.sin(math.radians(self.angle))) > 0.7

    @property
    def oriented(self) -> View:
        """The view of this angle whose image columns run to the patient's left, or to the back in a lateral."""
        plain = View(self.angle)
        return plain if plain.u[1 if self.lateral else 0] > 0 else View(self.angle, mirrored=True)

    @property
    def opposite(self) -> View:
        """The view from the opposite side, with image columns in the same direction of the patient."""
        return replace(self, angle=(self.angle + 180) % 360, mirrored=not self.mirrored)

    @property
    def towards_source(self) -> np.ndarray:
        """The unit vector (3,) from the detector's middle to the source."""
        theta = math.radians(self.angle)
        return self._turned(math.sin(theta), -math.cos(theta), 0.0)

    @property
    def u(self) -> np.ndarray:
        """The unit vector (3,) along increasing detector columns."""
        theta = math.radians(self.angle)
        return self._turned(math.cos(theta), math.sin(theta), 0.0) * (-1.0 if self.mirrored else 1.0)

    @property
    def v(self) -> np.ndarray:
        """The unit vector (3,) along increasing detector rows, towards the feet."""
        return self._turned(0.0, 0.0, -1.0)

    def _turned(self, x: float, y: float, z: float) -> np.ndarray:
        """Return the vector (3,) rotated by `turn`."""
        vector = np.array([x, y, z])
        if not any(self.turn):
            return vector
        from scipy.spatial.transform import Rotation  # seldom needed, and slow to import

        turned: np.ndarray = Rotation.from_rotvec(self.turn, degrees=True).apply(vector)
        return turned

    def centre(self, isocentre: Sequence[float]) -> np.ndarray:
        """Return the world point (3,) in mm on the line from source to detector middle: the isocentre plus `shift`."""
        return np.asarray(isocentre, float) + self.shift

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, which `from_dict` reads back."""
        plain: dict[str, Any] = {"angle": self.angle, "mirrored": self.mirrored}
        if not any((*self.turn, *self.shift)):
            return plain
        return {**plain, "turn_xyz_deg": list(self.turn), "shift_xyz_mm": list(self.shift)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> View:
        """Return the view that `to_dict` described.

        Raises KeyError where an entry is missing, and ValueError where one is malformed.
        """
        angle = plain_number(data["angle"], -FARTHEST, FARTHEST)
        a, b, c = (plain_number(n, -360, 360) for n in plain_list(data.get("turn_xyz_deg", (0, 0, 0)), 3))
        d, e, f = (plain_number(n, -FARTHEST, FARTHEST) for n in plain_list(data.get("shift_xyz_mm", (0, 0, 0)), 3))
        return cls(angle % 360, plain_boolean(data["mirrored"]), (a, b, c), (d, e, f))
