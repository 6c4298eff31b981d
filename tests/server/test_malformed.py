"""300 malformed uploads: each is refused in a sentence, and the server goes on."""

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from fastapi.testclient import TestClient
from PIL import Image

from radiograph_files import grey, write_dicom

Made = tuple[str, bytes]
EACH = 20  # of the fifteen kinds


def png(levels: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey(8) if levels is None else levels).save(file, "PNG")
    return file.getvalue()


def dicom(folder: Path, **attributes: object) -> bytes:
    return write_dicom(folder / "made.dcm", grey(16) // 16, **attributes).read_bytes()


def nifti(folder: Path, array: np.ndarray | None = None) -> bytes:
    image = np.random.default_rng(0).uniform(0, 5, (64, 64)).astype(np.float32) if array is None else array
    sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / "made.nii"))
    return (folder / "made.nii").read_bytes()


def cut(content: bytes, chance: random.Random, least: int = 0) -> bytes:
    return content[: chance.randrange(least, int(0.9 * len(content)))]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(chance: random.Random) -> bytes:
    """A few kilobytes that unpack to hundreds of megapixels."""
    edge = chance.randrange(12_000, 60_000)
    rows = zlib.compress(bytes(10_000_000), 9)
    header = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb(chance: random.Random) -> bytes:
    """A PNG whose compressed text unpacks to a gigabyte."""
    packed = zlib.compress(bytes(chance.randrange(50, 100) * 1_000_000), 9)
    plain = png()
    return plain[:33] + chunk(b"zTXt", b"Comment\0\0" + packed * 3) + plain[33:]


def flipped_png(chance: random.Random) -> bytes:
    """A bit of its pixels' chunk is another: its checksum tells."""
    content = bytearray(png())
    start = content.index(b"IDAT") + 4
    content[chance.randrange(start, len(content) - 20)] ^= 1 << chance.randrange(8)
    return bytes(content)


def flipped_dicom(folder: Path, chance: random.Random) -> bytes:
    """Rows or columns are others than there are pixels for."""
    return dicom(folder, **{chance.choice(("Rows", "Columns")): chance.randrange(200, 60_000)})


KINDS: dict[str, Callable[[Path, random.Random], Made]] = {
    "PNG cut short": lambda folder, chance: ("a.png", cut(png(), chance)),
    "PNG with a bit flipped": lambda folder, chance: ("a.png", flipped_png(chance)),
    "bomb of pixels": lambda folder, chance: ("a.png", png_bomb(chance)),
    "bomb of text": lambda folder, chance: ("a.png", text_bomb(chance)[: -chance.randrange(1, 30)]),
    "DICOM cut short": lambda folder, chance: ("a.dcm", cut(dicom(folder), chance)),
    "DICOM of another size": lambda folder, chance: ("a.dcm", flipped_dicom(folder, chance)),
    "DICOM of wrong photometric": lambda folder, chance: (
        "a.dcm",
        dicom(folder, PhotometricInterpretation=chance.choice(("RGB", "YBR_FULL", "PALETTE COLOR")), SamplesPerPixel=3),
    ),
    "DICOM of another kind": lambda folder, chance: (
        "a.dcm",
        dicom(folder, Modality=chance.choice(("CT", "MR", "US", "SR", "SEG"))),
    ),
    "DICOM deflated to a bomb": lambda folder, chance: ("a.dcm", deflated(folder, chance)),
    "NIfTI cut short": lambda folder, chance: ("a.nii", cut(nifti(folder), chance, 100)),
    "NIfTI with NaN": lambda folder, chance: (
        "a.nii",
        nifti(folder, np.where(np.random.default_rng(chance.randrange(99)).random((64, 64)) < 0.1, np.nan, 1.0)),
    ),
    "gzip bomb": lambda folder, chance: ("a.nii.gz", gzip.compress(bytes(chance.randrange(20, 60) * 1_000_000))),
    "array that is none": lambda folder, chance: (
        "a.npy",
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (64, 64), }".ljust(128) + bytes(99),
    ),
    "tricks in names": lambda folder, chance: (
        chance.choice(("../../a.png", "/etc/passwd", "a\0.png", "..\\..\\a.dcm", "CON", "a" * 5000, "%2e%2e%2f", "")),
        chance.randbytes(200),
    ),
    "noise": lambda folder, chance: (
        "a" + chance.choice((".png", ".dcm", ".tif", ".jpg", ".mha", ".nii")),
        chance.randbytes(5000),
    ),
}


def deflated(folder: Path, chance: random.Random) -> bytes:
    """A deflated DICOM file that unpacks to far more than it says."""
    plain = dicom(folder)
    dataset = pydicom.dcmread(io.BytesIO(plain))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()[: -chance.randrange(200, 2000)]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Made]]:
    folder, chance = tmp_path_factory.mktemp("made"), random.Random(0)
    return [(kind, make(folder, chance)) for kind, make in KINDS.items() for _ in range(EACH)]


def test_each_is_refused_in_a_sentence(client: TestClient, uploads: list[tuple[str, Made]], tmp_path: Path) -> None:
    assert len(uploads) == 300
    before = client.get("/api/jobs").json()

    def refused(upload: tuple[str, Made]) -> tuple[str, str, int, str] | None:
        kind, (name, content) = upload
        answer = client.post(
            "/api/jobs",
            files=[("xrays", (name, content))],
            data={"options": json.dumps({"xrays": [{"view": "pa"}]})},
        )
        detail = answer.json().get("detail")
        if answer.status_code in range(400, 500) and isinstance(detail, str) and len(detail) <= 500:
            return None
        return kind, name[:40], answer.status_code, answer.text[:200]

    with ThreadPoolExecutor(4) as pool:
        taken = [found for found in pool.map(refused, uploads) if found is not None]
    assert taken == []
    assert client.get("/api/jobs").json() == before
    assert client.get("/api/about").status_code == 200
