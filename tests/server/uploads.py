"""What tests of the server hand in: pictures, and options that say two views."""

import io
import json
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from radiograph_files import grey

TWO_VIEWS = {"xrays": [{"view": "pa"}, {"view": "lateral-left"}]}


def picture(levels: np.ndarray | None = None, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey(8) if levels is None else levels).save(file, form)
    return file.getvalue()


def uploads(*names: str, content: bytes | None = None) -> list[tuple[str, tuple[str, bytes]]]:
    return [("xrays", (name, picture() if content is None else content)) for name in names]


def submit(client: TestClient, *names: str, **options: Any) -> Any:
    return client.post("/api/jobs", files=uploads(*names), data={"options": json.dumps(TWO_VIEWS | options)})
