"""A local stand-in for the object store of the Imaging Data Commons, and tiny CT series to put there."""

import logging
import threading
import uuid
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import numpy as np
import pandas as pd
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pydicom.uid import generate_uid
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from dicom_files import ct_slice
from raylift.data.collections import COLUMNS
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume

BUCKET = "idc-open-data"


class Store:
    """Moto's S3 server: says what was asked of it, and can hold back or spoil one object."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        S3FileSystem.clear_instance_cache()  # which know another store's address
        self.downloads: list[str] = []
        self.uploads: list[str] = []
        self.held: str | None = None
        self.spoilt: str | None = None
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.app = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self.s3 = boto3.client("s3", endpoint_url=self.url, **keys)
        self.s3.create_bucket(Bucket=BUCKET)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        bucket, _, key = environ["PATH_INFO"].strip("/").partition("/")
        if environ["REQUEST_METHOD"] == "GET" and bucket == BUCKET and key:
            self.downloads.append(key)
            if key == self.held:
                self.asked.set()
                self.go_on.wait(20)
            if key == self.spoilt:
                content = b"".join(self.app(environ, start_response))
                return [content[:-1] + bytes([content[-1] ^ 0xFF])]
        if environ["REQUEST_METHOD"] == "PUT":
            self.uploads.append(key)
        return self.app(environ, start_response)

    def put(self, key: str, content: bytes) -> None:
        """An object that everybody may read."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content, ACL="public-read")

    def delete(self, key: str) -> None:
        self.s3.delete_object(Bucket=BUCKET, Key=key)

    def close(self) -> None:
        self.go_on.set()
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST")).close()
        self.server.shutdown()

    def add(
        self, patient: str, volume: Volume | None = None, *, collection: str = "lctsc", slices: int = 5
    ) -> dict[str, Any]:
        """Put a patient's series there, of air if there is no volume, and return its row of the index."""
        uid, folder = generate_uid(), str(uuid.uuid4())
        air = Volume(np.full((slices, 4, 4), -1000, np.int16), VolumeGrid.box((0, 0, 0), (slices, 4, 4), 5.0))
        files = dicom_series(volume or air, uid)
        for number, content in enumerate(files):
            self.put(f"{folder}/{number}.dcm", content)
        return {
            "collection_id": collection,
            "PatientID": patient,
            "StudyInstanceUID": f"{uid}.1",
            "SeriesInstanceUID": uid,
            "StudyDate": "2000-01-01",
            "StudyDescription": "",
            "BodyPartExamined": "CHEST",
            "SeriesNumber": "2",
            "SeriesDescription": "",
            "sop_class_name": "CT Image Storage",
            "instanceCount": len(files),
            "series_size_MB": sum(map(len, files)) / 1e6,
            "license_short_name": "CC BY 3.0",
            "source_DOI": "10.7937/example",
            "series_aws_url": f"s3://{BUCKET}/{folder}/*",
        }


def index_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """An index of these series."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def dicom_series(volume: Volume, uid: str) -> list[bytes]:
    """The files of an axial CT series with the volume's voxels (int16 HU) at its places."""
    x, y, z = volume.grid.origin
    files = []
    for k, plane in enumerate(volume.array):
        buffer = BytesIO()
        position = (x, y, z + k * volume.grid.spacing[2])
        ct_slice(plane, position, volume.grid.spacing, uid).save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
