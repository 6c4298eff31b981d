"""Compute a chest CT from formulas, for tests, examples and demonstrations without a patient's data.

Every organ is an implicit function, negative inside and about the distance in mm to the organ's surface,
painted over the earlier ones with an edge one voxel wide. The numbers are those of a supine adult in full
inspiration, in millimetres around the left atrium: +x left, +y posterior, +z superior.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from raylift.data.implicit_shapes import UPRIGHT, Axes, Scene, Tube, ellipsoid, join, profile, tree, tube
from raylift.geometry import Point, VolumeGrid
from raylift.images.volume import Volume

RIGHT, LEFT = -1, 1  # sign of x

FAT, MUSCLE, CARTILAGE, GAS = -100.0, 50.0, 110.0, -985.0  # HU
CORTEX, MARROW = 850.0, 230.0  # HU
SQUARENESS = 2.4  # exponent of the torso's super-elliptical cross-section; 2 is an ellipse


def thorax_phantom(seed: int, spacing: float = 2.5) -> Volume:
    """Return a random adult chest, from the lower neck to the upper abdomen, without table or arms.

    Drawn from the seed: stature, kyphosis and a slight scoliosis, fat and breasts, rib slope, height of the
    diaphragm, size and position of the heart, contrast medium (in half of the patients), course of the aorta,
    pulmonary vessels and bronchi, bone density, stomach gas, tissue texture, noise (10 HU), and the
    position of the scan in the world. The chest is not mirror symmetric: heart, aortic arch, stomach and spleen are on
    the left, the liver and the larger lung on the right.

    Args:
        seed: the seed of NumPy's default generator; the same seed and spacing give the same voxels.
        spacing: isotropic voxel size in mm. Another spacing samples the same patient, with other noise.

    Returns:
        An int16 volume (z, y, x) in HU, -1024 to about 900, on an LPS grid with identity direction and an
        arbitrary origin. It covers about 440 mm × 330 mm × 345 mm (x, y, z), at least 320 mm along each.
    """
    rng = np.random.default_rng(seed)
    size = rng.uniform((425, 325, 335), (455, 340, 355))
    middle = rng.uniform((-40, -190, -700), (40, -110, -150))
    z, y, x = (round(float(edge) / spacing) for edge in size[::-1])
    grid = VolumeGrid.box(middle.tolist(), (z, y, x), spacing)
    scene = Scene(grid, middle + rng.uniform(-6, 6, 3), rng.uniform(0.93, 1.04, 3))
    thorax = _Thorax(rng)
    contrast = rng.random() < 0.5
    blood = rng.uniform(140, 220) if contrast else rng.uniform(38, 48)

    _torso(scene, rng, thorax)
    _abdomen(scene, rng, thorax, contrast)
    _lungs(scene, rng, thorax)
    _lung_trees(scene, rng, thorax, blood)
    _heart(scene, rng, thorax, blood)
    _great_vessels(scene, rng, thorax, blood)
    _airways(scene, rng)
    _spine(scene, rng, thorax)
    _ribs(scene, rng, thorax)
    _shoulder_girdle(scene, rng, thorax)

    noise = gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 0.6)
    scene.hu += noise * (10 / float(noise.std()))
    return Volume(np.rint(np.clip(scene.hu, -1024, 3071)).astype(np.int16), grid)


class _Thorax:
    """The shapes that several organs share: thoracic cage, spine and diaphragm."""

    def __init__(self, rng: np.random.Generator) -> None:
        heights = (-190, -110, -50, 0, 50, 85, 110, 140, 190)
        depth = rng.uniform(0.95, 1.06)
        self.half_width = profile(heights, (128, 138, 137, 131, 117, 97, 76, 50, 45))
        self.half_depth = profile(heights, np.multiply((78, 86, 88, 85, 74, 60, 46, 36, 36), depth))
        self.middle = profile(heights, (-2, 0, 0, 4, 12, 16, 17, 14, 8))  # y
        kyphosis = rng.uniform(0.7, 1.25)
        self.spine_y = profile(heights, np.multiply((-14, -4, 2, 4, 2, -6, -16, -27, -34), kyphosis) + 60)
        self.spine_x = profile((-190, -60, 60, 190), rng.uniform(-4, 4, 4))
        self.first_vertebra, self.vertebra = 136.0, rng.uniform(22, 24)  # centre of T1, and height with disc
        right = rng.uniform(-58, -40)
        self.dome_top = {RIGHT: right, LEFT: right - rng.uniform(6, 14)}
        self.sulcus = rng.uniform(55, 72)  # depth of the lung's lower edge below the dome
        self.apex = rng.uniform(118, 126)

    def cage(self, axes: Axes) -> np.ndarray:
        """Return the inner surface of the chest wall and, below it, of the abdominal wall."""
        x, y, z = axes
        return _section(x, y - self.middle(z), self.half_width(z), self.half_depth(z))

    def cage_point(self, side: int, angle: np.ndarray, z: np.ndarray, outside: float) -> np.ndarray:
        """Return points (n, 3) `outside` mm off the cage, at angles from 0 (back) over the flank to π (front)."""
        sine, cosine = np.sin(angle), np.cos(angle)
        x = (self.half_width(z) + outside) * np.abs(sine) ** (2 / SQUARENESS)
        y = (self.half_depth(z) + outside) * np.abs(cosine) ** (2 / SQUARENESS) * np.sign(cosine)
        return np.stack([side * x, self.middle(z) + y, z], -1)

    def dome(self, x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
        """Return the height z of one hemidiaphragm: steep to the flank and the back, flat under the heart."""
        lateral = side * x - 62
        across = lateral / np.where(lateral > 0, np.float32(76), np.float32(300))
        along = (y + 12) / np.where(y > -12, np.float32(92), np.float32(96))
        return self.dome_top[side] - self.sulcus * np.minimum(across**2 + along**2, 1.6) ** 1.3

    def diaphragm(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height z of the roof of the abdomen."""
        return join(self.dome(x, y, RIGHT), self.dome(x, y, LEFT), 8)

    def lung(self, axes: Axes, side: int) -> np.ndarray:
        """Return the pleural space of one side, not yet reduced by the heart, the spine and the large vessels."""
        x, y, z = axes
        spine = 20 * np.exp(-(((y - self.spine_y(z)) / 26) ** 2))
        # The mediastinum lies a little left; it widens above the aortic arch, and under the heart.
        medial = 5 + 3 * side + spine + 17 / (1 + np.exp((72 - z) / 9)) + 14 / (1 + np.exp((z + 50) / 10))
        top = self.apex - ((side * x - 50) ** 2 + (y - 22) ** 2) / 75
        bound = join(self.cage(axes), medial - side * x, 18)
        return join(bound, join(0.75 * (self.dome(x, y, side) - z), 0.8 * (z - top), 4), 8)


def _section(x: np.ndarray, y: np.ndarray, half_width: np.ndarray, half_depth: np.ndarray) -> np.ndarray:
    """Return the radial distance to the outline of a super-ellipse in each axial plane."""
    level = (np.abs(x) / half_width) ** SQUARENESS + (np.abs(y) / half_depth) ** SQUARENESS
    distance: np.ndarray = np.hypot(x, y) * (1 - np.maximum(level, 1e-6) ** (-1 / SQUARENESS))
    return distance


def _hilum(side: int) -> np.ndarray:
    """Return the point (3,) where the vessels enter the lung; the left hilum is higher."""
    return np.array((-40.0, 6.0, 18.0) if side == RIGHT else (44.0, 8.0, 27.0))


def _bronchus(side: int) -> np.ndarray:
    """Return the point (3,) where the main bronchus branches, behind and below the vessels."""
    fork: np.ndarray = np.add(_hilum(side), (0, 6, -14))
    return fork


def _lung_points(rng: np.random.Generator, thorax: _Thorax, side: int, n: int, depth: float) -> np.ndarray:
    """Return random points (n, 3) in a lung, at least `depth` mm below its surface."""
    x, y, z = rng.uniform((0, -100, -140), (140, 100, 130), (20 * n, 3)).T
    x *= side
    return np.stack([x, y, z], -1)[thorax.lung((x, y, z), side) < -depth][:n]


def _torso(scene: Scene, rng: np.random.Generator, thorax: _Thorax) -> None:
    """Draw skin, fat and muscle, wider at the shoulders and narrower at the neck, with or without breasts."""
    heights = (-190, -110, -50, 0, 50, 85, 110, 140, 165, 190)
    wide = profile(heights, (24, 22, 24, 28, 46, 70, 78, 42, 16, 14))  # muscle and bone, beyond the cage
    deep = profile(heights, (24, 24, 23, 24, 31, 40, 44, 42, 38, 36))
    fat, belly = rng.uniform(6, 17), rng.uniform(0, 8)
    x, y, z = scene.window((-999,) * 3, (999,) * 3)[1]
    y = y - thorax.middle(z)
    muscle = _section(x, y - 3, thorax.half_width(z) + wide(z), thorax.half_depth(z) + deep(z) - 3)
    # Fat is thickest on the abdomen and thin in the neck.
    skin = muscle - (2 + fat + belly / (1 + np.exp((z + 60) / 20)) - 0.6 * fat / (1 + np.exp((115 - z) / 10)))
    cup, distance, sag = rng.uniform(22, 42), rng.uniform(72, 84), rng.uniform(-35, -15)
    if rng.random() < 0.5:
        for side in (RIGHT, LEFT):
            breast = ellipsoid((x, y, z), (side * distance, -92 - 0.3 * fat, sag + 4 * side), (58, cup, 56))
            skin = -join(-skin, -breast, 25)
    soft = scene.texture(rng, 12.0)
    scene.paint(skin, 20.0)
    scene.paint(skin + 2, FAT + 6 * soft)
    scene.paint(muscle, MUSCLE + 9 * soft)
    # Fat between the organs, which are painted over it afterwards.
    region, axes = scene.window((-150, -120, -999), (150, 120, 115))
    scene.paint(join(thorax.cage(axes), axes[2] - 105, 10), FAT + 15 + 10 * soft[region], region)


def _abdomen(scene: Scene, rng: np.random.Generator, thorax: _Thorax, contrast: bool) -> None:
    """Draw bowel, liver, spleen, and the stomach with its gas in front, as in a supine patient."""
    region, axes = scene.window((-150, -120, -999), (150, 120, -25))
    x, y, z = axes
    roof = 0.75 * (z - thorax.diaphragm(x, y))
    inside = join(thorax.cage(axes) + 2, roof, 8)
    scene.paint(inside, MUSCLE, region)  # the diaphragm itself
    mixture = np.clip(scene.texture(rng, 16.0)[region], -1, 1)
    scene.paint(inside + 3, -15 + 55 * mixture, region)  # bowel and the fat around it
    enhanced = rng.uniform(30, 55) if contrast else 0.0

    spleen = ellipsoid(axes, (104, 42, -112), (30, 44, rng.uniform(38, 52)))
    scene.paint(join(spleen, inside + 4, 6), 50 + enhanced, region)
    # The liver's left lobe ends under the heart; its lower edge climbs from the right flank to there.
    edge = (x - rng.uniform(35, 60) + 0.85 * (thorax.dome_top[RIGHT] - z) + 0.35 * y) / 1.35
    scene.paint(join(inside + 3, edge, 20), 60 + enhanced + 4 * mixture, region)
    size = rng.uniform(0.85, 1.1)
    stomach = ellipsoid(axes, (58, -8, -98), (46 * size, 46 * size, 44 * size))
    stomach = join(stomach, inside + 4, 8)
    scene.paint(stomach, 45.0, region)
    scene.paint(join(stomach + 4, y - rng.uniform(-25, 0), 1), GAS, region)
    scene.paint(np.maximum(stomach + 4, rng.uniform(0, 4) - y), 20.0, region)


def _lungs(scene: Scene, rng: np.random.Generator, thorax: _Thorax) -> None:
    """Draw lung parenchyma, denser towards the back and the base."""
    inflation = rng.uniform(-880, -835)
    grain = scene.texture(rng, 6.0)
    for side in (RIGHT, LEFT):
        x0, x1 = sorted((-5 * side, 150 * side))
        region, axes = scene.window((x0, -110, -140), (x1, 110, 130))
        hu = inflation + 0.3 * axes[1] - 0.12 * axes[2] + 13 * grain[region]
        scene.paint(thorax.lung(axes, side), hu, region)


def _lung_trees(scene: Scene, rng: np.random.Generator, thorax: _Thorax, blood: float) -> None:
    """Draw pulmonary arteries and veins down to a radius of 0.85 mm, and bronchi with walls."""
    vessels: list[Tube] = []
    bronchi: list[Tube] = []
    for side, count in ((RIGHT, 210), (LEFT, 180)):
        for start in (_hilum(side), np.add(_hilum(side), (-8 * side, 8, -22))):
            vessels += tree(start, _lung_points(rng, thorax, side, count, 4.0), 0.85)
        bronchi += tree(_bronchus(side), _lung_points(rng, thorax, side, 20, 25.0), 1.3)
    scene.tubes(vessels, min(blood, 150.0))
    scene.tubes([(points, radii + 0.6) for points, radii in bronchi], 0.0)
    scene.tubes(bronchi, -960.0)


def _heart(scene: Scene, rng: np.random.Generator, thorax: _Thorax, blood: float) -> None:
    """Draw the four chambers in their muscle; the apex points left, forward and down into the cardiac notch."""
    size = rng.uniform(0.94, 1.1)
    lowered = 0.7 * (thorax.dome_top[LEFT] + 62)  # it rests on the diaphragm
    shift = rng.uniform((0, -3, lowered - 6), (9, 3, lowered))
    region, axes = scene.window((-80, -110, -120), (130, 75, 60))
    apex = np.array([0.80, -0.42, -0.42 - rng.uniform(-0.1, 0.15)])
    apex /= np.linalg.norm(apex)
    front = np.cross(apex, (0, 0, 1.0))
    front /= np.linalg.norm(front)
    frame = np.stack([apex, front, np.cross(apex, front)])
    chambers = [  # centre, radii, frame, thickness of the wall
        ((38, -22, -24), (51, 38, 37), frame, 11),  # left ventricle
        ((6, -46, -22), (40, 25, 36), UPRIGHT, 5),  # right ventricle
        ((-16, -14, -14), (27, 32, 37), UPRIGHT, 4),  # right atrium
        ((8, 19, 2), (36, 21, 25), UPRIGHT, 4),  # left atrium
    ]
    surfaces = [
        ellipsoid(axes, np.add(centre, shift), np.multiply(radii, size), orientation)
        for centre, radii, orientation, _ in chambers
    ]
    outside = -surfaces[0]
    for surface in surfaces[1:]:
        outside = join(outside, -surface, 14)
    scene.paint(-outside, 45 + 0.35 * max(blood - 45, 0), region)
    for surface, (_, _, _, wall) in zip(surfaces, chambers, strict=True):
        scene.paint(surface + wall, blood, region)


def _great_vessels(scene: Scene, rng: np.random.Generator, thorax: _Thorax, blood: float) -> None:
    """Draw the aorta, with its arch over the left bronchus and its branches, caval vein and pulmonary arteries."""
    arch, lateral, width = rng.uniform(66, 80), rng.uniform(24, 32), rng.uniform(11, 14)
    descending = [(lateral - 0.07 * (50 - z), float(thorax.spine_y(z)) - 15, z) for z in (40, -20, -90, -190)]
    bend = [(0, -22, arch - 6), (19, 6, arch), (lateral, 34, arch - 12)]
    aorta = tube(
        [(6, -22, -12), (-12, -36, 35), *bend, *descending],
        np.array([1.2, 1.3, 1.15, 1.05, 1, 1, 0.95, 0.9, 0.8]) * width,
        40,
    )
    cava = tube([(-20, -5, 140), (-25, -14, 80), (-27, -16, 10)], [7, 9, 11])
    trunk = tube([(12, -44, -14), (20, -28, 32), (30, -6, 38), _hilum(LEFT)], [14, 14, 11, 8])
    right_branch = tube([(20, -22, 34), (-12, -6, 32), _hilum(RIGHT)], [11, 10, 8])
    head = [
        tube([(-4, -16, arch), (-14, -4, arch + 25), (-28, 4, 170)], [7, 6, 4]),
        tube([(8, 0, arch), (15, 4, arch + 25), (28, 6, 170)], [5, 4, 4]),
        tube([(18, 14, arch), (22, 8, arch + 30), (38, -4, 126), (95, -12, 114)], [5, 5, 5, 4]),
    ]
    scene.tubes([aorta, cava, trunk, right_branch, *head], blood)


def _airways(scene: Scene, rng: np.random.Generator) -> None:
    """Draw the trachea and the main bronchi, the right one steeper and wider."""
    carina = np.array([rng.uniform(-3, 3), 16.0, rng.uniform(42, 52)])
    width = rng.uniform(7.5, 9.5)
    tubes = [tube([(0, -4, 200), (1, 2, 130), (2, 10, 90), carina], [width] * 4)]
    for side, share in ((RIGHT, 0.8), (LEFT, 0.7)):
        tubes.append(tube([carina, _bronchus(side)], [share * width, 0.65 * width]))
    scene.tubes(tubes, 30.0, inset=-2)  # wall
    scene.tubes(tubes, GAS)


def _spine(scene: Scene, rng: np.random.Generator, thorax: _Thorax) -> None:
    """Draw vertebrae that repeat along z: body, disc, canal, arch, transverse and spinous processes."""
    cortex, marrow = CORTEX * rng.uniform(0.7, 1.0), MARROW * rng.uniform(0.7, 1.1)
    region, (x, y, z) = scene.window((-60, 0, -999), (60, 130, 999))
    pitch = thorax.vertebra
    # Height above the middle of the nearest vertebra.
    level = (z - thorax.first_vertebra + pitch / 2) % pitch - pitch / 2
    x, y = x - thorax.spine_x(z), y - thorax.spine_y(z)
    girth = (16 - 0.018 * z) * (1 + 0.0012 * level**2)  # larger downwards, waisted
    column = (np.sqrt((x / 1.15) ** 2 + y**2 + 1e-6) - girth) * 1.05
    body = join(column, np.abs(level) - (pitch / 2 - 2.8), 3)
    scene.paint(column + 1.5, 85.0, region)  # discs
    canal = np.hypot(x / 1.15, y - girth - 7) - 8
    arch = np.maximum(np.hypot(x / 1.2, y - girth - 8) - 14, np.abs(level + 2) - 7)
    out = np.maximum(np.abs(x) - 12, 0)  # along a transverse process, which points out, back and slightly up
    transverse = np.sqrt((y - girth - 9 - 0.45 * out) ** 2 + (level - 2 - 0.1 * out) ** 2) - 5
    transverse = np.maximum(transverse, np.abs(x) - 36)
    lean = (z - thorax.first_vertebra + 0.5 * (y - girth - 18) + 4 + pitch / 2) % pitch - pitch / 2
    spinous = np.maximum(np.hypot(x * 1.6, lean * 0.75) - 4.5, np.maximum(girth + 18 - y, y - girth - 40))
    bone = np.minimum(np.minimum(body, np.minimum(arch, transverse)), spinous)
    scene.paint(bone, cortex, region)
    scene.paint(bone + 1.8, marrow, region)
    scene.paint(canal, 30.0, region)


def _bone(scene: Scene, tubes: Sequence[Tube], stretch: Point, shell: float, cortex: float = CORTEX) -> None:
    """Draw tubes of cortical bone, `shell` mm thick, around marrow."""
    scene.tubes(tubes, cortex, stretch)
    scene.tubes(tubes, MARROW, stretch, inset=shell)


def _ribs(scene: Scene, rng: np.random.Generator, thorax: _Thorax) -> None:
    """Draw twelve pairs of ribs from the spine around the cage, down and forward; seven reach the sternum."""
    ends = np.deg2rad([145, 152, 156, 158, 156, 153, 148, 140, 130, 122, 98, 70])
    drops = np.multiply([32, 50, 66, 78, 88, 94, 98, 100, 98, 90, 62, 40], rng.uniform(0.8, 1.1))
    sternum_z = np.linspace(80, -48, 7)
    sternum_y = thorax.middle(sternum_z) - thorax.half_depth(sternum_z) - 5
    ribs, cartilages = [], []
    for side in (RIGHT, LEFT):
        for i, (end, drop) in enumerate(zip(ends, drops + rng.uniform(-3, 3, 12), strict=True)):
            head = thorax.first_vertebra - i * thorax.vertebra + 3.0
            spine_x, spine_y = float(thorax.spine_x(head)), float(thorax.spine_y(head))
            angle = np.linspace(np.deg2rad(24), end, 22)
            shaft = thorax.cage_point(side, angle, head - 3 - drop * (1 - np.cos(angle)) / 2, 5.0)
            neck = [(spine_x + side * 17, spine_y + 8, head), (spine_x + side * 34, spine_y + 22, head)]
            points = np.concatenate([neck, shaft])
            ribs.append((points, np.full(len(points), 4.2 if i < 10 else 3.5)))
            if i < 7:
                tip = np.array([side * 14, sternum_y[i], sternum_z[i]])
                bend = (shaft[-1] + tip) / 2 - np.array([0, 3, 6])
                cartilages.append(tube([shaft[-1], bend, tip], [4.5, 4.5, 4.5], 8))
    scene.tubes(cartilages, CARTILAGE)
    _bone(scene, ribs, (1, 1, 1.6), 1.7)


def _shoulder_girdle(scene: Scene, rng: np.random.Generator, thorax: _Thorax) -> None:
    """Draw the sternum, the clavicles and the shoulder blades."""
    z = np.array([88, 76, 60, 52, 20, -20, -45, -62], float)
    front = thorax.middle(z) - thorax.half_depth(z) - 6
    width = np.array([23, 24, 18, 14, 15, 17, 13, 5], float)
    sternum = (np.stack([np.zeros_like(z), front, z], -1), width)
    _bone(scene, [sternum], (1, 0.33, 0.33), 1.2, 550.0)

    clavicles, rise = [], rng.uniform(-4, 8, 2)
    for side, up in zip((RIGHT, LEFT), rise.tolist(), strict=True):
        points = [(20, front[0] - 2, 90), (55, front[0] - 12, 97), (100, -20, 106 + up), (134, 6, 110 + up)]
        clavicles.append(tube(np.multiply(points, (side, 1, 1)), [8, 5.5, 5.5, 6.5]))
    _bone(scene, clavicles, (1, 1, 1), 1.8)

    # A blade is the part of a thin shell around the cage within an ellipsoid, with its spine on top.
    for side in (RIGHT, LEFT):
        x0, x1 = sorted((40 * side, 160 * side))
        region, axes = scene.window((x0, 0, -30), (x1, 125, 125))
        shell = np.abs(thorax.cage(axes) - 20) - 2.2
        blade = np.maximum(shell, ellipsoid(axes, (side * 100, 70, 48), (42, 60, 62)))
        scene.paint(blade, 420.0, region)
        spine = tube([(side * 78, 98, 72), (side * 115, 72, 92), (side * 140, 22, 108)], [3, 4.5, 6])
        _bone(scene, [spine], (1, 1, 1.3), 1.6)
