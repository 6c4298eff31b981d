"""Strange X-rays: what is far from the training, told from what is not."""

from pathlib import Path

import numpy as np
import pytest

from raylift.errors import BadInput
from raylift.geometry import View
from raylift.radiographs.out_of_distribution import OOD_THRESHOLD, OODDetector

ROWS, COLUMNS = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij")
TURNS = (0.0, 30.0, 90.0, 215.0)


def body(patient: int, angle: float, shift: float = 0.0) -> np.ndarray:
    """An upright ellipse, wider from the front, with a heart on one side; patients differ in size."""
    generator = np.random.default_rng(patient)
    wide = (0.55 + 0.2 * abs(np.cos(np.radians(angle)))) * generator.uniform(0.9, 1.1)
    outline = np.clip(1.2 - (COLUMNS / wide) ** 2 - (ROWS - shift) ** 4 / generator.uniform(0.6, 0.9), 0, None)
    heart = np.exp(-(((COLUMNS - 0.2 * np.cos(np.radians(angle))) ** 2 + (ROWS - 0.3 - shift) ** 2) / 0.05))
    return (6 * outline * (1 - 0.4 * np.exp(-(ROWS**2) * 4)) + heart).astype(np.float32)


@pytest.fixture(scope="module")
def ood_detector() -> OODDetector:
    generator = np.random.default_rng(0)
    drawn = [(patient, angle) for patient in range(8) for angle in TURNS for _ in range(6)]
    images = np.stack([body(patient, angle, generator.uniform(-0.1, 0.1)) for patient, angle in drawn])
    return OODDetector.fit(images, [View(angle) for _, angle in drawn], [patient for patient, _ in drawn])


@pytest.mark.parametrize("angle", TURNS)
def test_a_new_patient_is_familiar(ood_detector: OODDetector, angle: float) -> None:
    distance = ood_detector.distances(np.stack([body(99, angle)]), [View(angle)])
    assert distance.shape == (1,)
    assert 0 < distance[0] < OOD_THRESHOLD


@pytest.mark.parametrize(
    "change",
    [np.rot90, np.flipud, lambda image: image.max() - image, lambda image: 3 * image,
     lambda image: np.random.default_rng(1).uniform(0, 6, image.shape)],
    ids=["turned", "upside down", "inverted", "three times as bright", "noise"],
)  # fmt: skip
def test_what_is_no_such_image_is_strange(ood_detector: OODDetector, change: object) -> None:
    image = np.ascontiguousarray(change(body(99, 0.0)), dtype=np.float32)  # type: ignore[operator]
    assert ood_detector.distances(image[None], [View(0.0)])[0] > OOD_THRESHOLD


def test_the_view_matters(ood_detector: OODDetector) -> None:
    frontal = body(99, 0.0)[None]
    right, wrong = (ood_detector.distances(frontal, [View(angle)])[0] for angle in (0.0, 90.0))
    assert wrong > 1.5 * right


def test_a_mirrored_view_is_turned_back(ood_detector: OODDetector) -> None:
    image = body(99, 0.0)
    plain = ood_detector.distances(image[None], [View(0.0)])
    assert ood_detector.distances(image[None, :, ::-1].copy(), [View(0.0, mirrored=True)]) == pytest.approx(plain)


def test_finer_images_are_averaged(ood_detector: OODDetector) -> None:
    image = body(99, 0.0)
    fine, coarse = (ood_detector.distances(i[None], [View(0.0)]) for i in (image.repeat(4, 0).repeat(4, 1), image))
    assert fine == pytest.approx(coarse, rel=1e-3)


def test_distances_are_those_of_the_normal_distribution() -> None:
    """Images drawn from a known normal distribution have a root mean squared distance of 1 per dimension."""
    generator = np.random.default_rng(3)
    images = generator.normal(2, 0.5, (4000, 8, 8)).astype(np.float32)
    views = [View(float(angle)) for angle in generator.integers(0, 360, len(images))]
    model = OODDetector.fit(images, views, generator.integers(0, 4, len(images)).tolist())
    assert float(np.sqrt(np.mean(np.square(model.distances(images, views) * model.scale)))) == pytest.approx(
        1, abs=0.02
    )


def test_survives_its_file(ood_detector: OODDetector, tmp_path: Path) -> None:
    ood_detector.save(tmp_path / "ood.safetensors")
    again = OODDetector.load(tmp_path / "ood.safetensors")
    images, views = np.stack([body(5, 0.0), body(6, 90.0)]), [View(0.0), View(90.0)]
    assert again.distances(images, views) == pytest.approx(ood_detector.distances(images, views), rel=1e-4)
    (tmp_path / "ood.safetensors").write_bytes(b"no such thing")
    with pytest.raises(BadInput, match=r"ood\.safetensors: damaged"):
        OODDetector.load(tmp_path / "ood.safetensors")
