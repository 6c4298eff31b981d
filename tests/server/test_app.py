"""The HTTP interface: what is handed in comes back as a volume, and what is wrong as one sentence."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from fastapi.testclient import TestClient
from PIL import Image
from uploads import picture, submit, uploads

from radiograph_files import grey
from raylift.errors import WrongUsage
from raylift.io.volumes import read_volume
from raylift.server.app import create_app
from raylift.server.settings import ServerSettings

TOKEN = "0123456789abcdef"


def finished(client: TestClient, job_id: str) -> list[dict[str, Any]]:
    """The job's states, as they are told, until it has ended."""
    with client.stream("GET", f"/api/jobs/{job_id}/events") as events:
        return [json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line.startswith("data: ")]


def test_from_xrays_to_every_format(client: TestClient, tmp_path: Path) -> None:
    answer = submit(client, "a.png", "b.png", title="Ours")
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{job['id']}"
    states = finished(client, job["id"])
    assert states[-1]["state"] == "done", states[-1]
    assert states[-1]["xrays"] == ["a.png", "b.png"]
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    assert client.get(f"/api/jobs/{job['id']}").json() == states[-1]
    assert [one["title"] for one in client.get("/api/jobs").json() if one["id"] == job["id"]] == ["Ours"]

    volumes = []
    for name in ("volume.nii.gz", "volume.mha", "volume.nrrd"):
        (tmp_path / name).write_bytes(client.get(f"/api/jobs/{job['id']}/files/{name}").content)
        volumes.append(read_volume(tmp_path / name))
    series = client.get(f"/api/jobs/{job['id']}/files/volume-dicom.zip", params={"download": True})
    assert "attachment" in series.headers["content-disposition"]
    zipfile.ZipFile(io.BytesIO(series.content)).extractall(tmp_path / "dicom")
    volumes.append(read_volume(tmp_path / "dicom" / "volume"))
    for volume in volumes:
        np.testing.assert_array_equal(volume.array, volumes[0].array)
    page = client.get(f"/api/jobs/{job['id']}/files/report.html")
    assert "not a medical device" in page.text
    report = client.get(f"/api/jobs/{job['id']}/files/report.json")
    assert "partial" not in report.text  # no path of this machine
    assert str(tmp_path.parent) not in report.text
    assert any(note.startswith("a.png: ") for note in report.json()["notes"])
    for name in ("preview.png", "agreement.png"):
        assert Image.open(io.BytesIO(client.get(f"/api/jobs/{job['id']}/files/{name}").content)).format == "PNG"

    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert client.get(f"/api/jobs/{job['id']}").status_code == 404


def test_xrays_are_understood_before_they_are_handed_in(client: TestClient) -> None:
    turned = picture(np.rot90(grey(8)))
    asked = {"xrays": [{"view": "pa", "orientation": {"quarter_turns": 3}}]}
    answer = client.post("/api/inspect", files=uploads("a.png", content=turned), data={"options": json.dumps(asked)})
    (found,) = answer.json()["xrays"]
    assert (found["name"], found["view"], found["sure"], found["turnable"]) == ("a.png", "pa", True, True)
    assert found["orientation"] == {"quarter_turns": 3, "mirrored": False, "inverted": False}
    plain = client.post(
        "/api/inspect", files=uploads("a.png"), data={"options": json.dumps({"xrays": [{"view": "pa"}]})}
    )
    assert plain.json()["xrays"][0]["picture"] == found["picture"]


def test_orientation_is_part_of_the_job(client: TestClient) -> None:
    orientations = [{"view": "pa", "orientation": {"quarter_turns": 3}}, {"view": "lateral-left"}]
    files = [("xrays", ("a.png", picture(np.rot90(grey(8))))), ("xrays", ("b.png", picture()))]
    job = client.post("/api/jobs", files=files, data={"options": json.dumps({"xrays": orientations})}).json()
    plain = submit(client, "a.png", "b.png").json()
    for one in (job, plain):
        assert finished(client, one["id"])[-1]["state"] == "done"
    found, expected = (client.get(f"/api/jobs/{one['id']}/files/volume.nrrd").content for one in (job, plain))
    assert found == expected


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"", "cannot be read"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read"),
        ("a.dcm", b"no DICOM", "not a DICOM file"),
        ("a.mhd", b"ElementDataFile = /etc/passwd", "may need other files"),
        ("a.nrrd", b"NRRD0004\ndata file: /etc/passwd", "may need other files"),
        (
            "a.mha",
            b"NDims = 2\nDimSize = 64 64\nElementType = MET_FLOAT\nElementDataFile = /etc/passwd\n",
            "another file",
        ),
        ("a.png", picture(np.full((64, 64), 7, np.uint8)), "grey levels"),
        ("../../../etc/passwd", b"root:x:0:0", "passwd: not a DICOM file"),
        ("a\n\x00b\u202e.png", b"", "cannot be read"),
    ],
)
def test_what_is_no_xray_is_one_sentence(client: TestClient, name: str, content: bytes, words: str) -> None:
    before = len(client.get("/api/jobs").json())
    for path in ("/api/jobs", "/api/inspect"):
        answer = client.post(
            path, files=uploads(name, content=content), data={"options": '{"xrays": [{"view": "pa"}]}'}
        )
        assert answer.status_code == 422, answer.text
        detail = answer.json()["detail"]
        assert words in detail
        assert len(detail) < 500
        assert "xray-0" not in detail
        assert "/jobs/" not in detail
        assert "/uploads/" not in detail
    assert len(client.get("/api/jobs").json()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{", "options"),
        ('{"refin": true}', "options.refin: Extra inputs are not permitted"),
        ('{"xrays": [{"view": "pa"}]}', "2 files, but options for 1 X-rays"),
        ('{"xrays": [{"view": "pa"}, {"view": "front"}]}', "'front' is no view"),
        ('{"xrays": [{"view": "pa"}, {"view": "pa", "orientation": {"quarter_turns": 5}}]}', "quarter_turns"),
        ('{"xrays": [{"view": "pa"}, {"view": "30"}]}', "the weights are for"),
        ("{}", "declares no view"),
    ],
)
def test_options_that_make_no_sense(client: TestClient, options: str, words: str) -> None:
    answer = client.post("/api/jobs", files=uploads("a.png", "b.png"), data={"options": options})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_as_many_files_as_there_may_be(client: TestClient) -> None:
    assert client.post("/api/jobs").status_code == 422
    assert client.post("/api/jobs", files=uploads(*["a.png"] * 9)).status_code == 422


def test_too_large(client: TestClient) -> None:
    assert client.post("/api/jobs", files=uploads("a.png", content=bytes(9 * 2**20))).status_code == 413


@pytest.mark.parametrize("path", ["0" * 32, "0" * 31, "..%2F..%2Fetc", "%00"])
def test_no_such_job(client: TestClient, path: str) -> None:
    for method, end in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("GET", "/files/volume.mha")):
        assert client.request(method, f"/api/jobs/{path}{end}").status_code in (404, 405, 422)


def test_files_that_a_job_does_not_make(client: TestClient) -> None:
    job = submit(client, "a.png", "b.png").json()
    finished(client, job["id"])
    for name in ("../jobs.sqlite", "..%2F..%2Fjobs.sqlite", "xray-0.png", "passwd"):
        assert client.get(f"/api/jobs/{job['id']}/files/{name}").status_code in (404, 422)


@pytest.fixture
def idle(tmp_path: Path, weights: Path) -> Iterator[TestClient]:
    """Without workers, with room for two jobs."""
    with TestClient(
        create_app(ServerSettings(tmp_path, weights=str(weights), workers=0, waiting=2)), "http://localhost"
    ) as client:
        yield client


def test_a_full_server_says_so(idle: TestClient, tmp_path: Path) -> None:
    first, second = (submit(idle, "a.png", "b.png").json() for _ in range(2))
    assert (first["place"], second["place"]) == (0, 1)
    refused = submit(idle, "a.png", "b.png")
    assert refused.status_code == 429
    assert "try again" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert len(list((tmp_path / "jobs").iterdir())) == 2
    assert idle.delete(f"/api/jobs/{first['id']}").status_code == 204
    assert idle.get(f"/api/jobs/{first['id']}").json()["state"] == "cancelled"
    assert submit(idle, "a.png", "b.png").status_code == 201


def test_only_who_brings_the_token_comes_in(tmp_path: Path, weights: Path) -> None:
    with TestClient(
        create_app(ServerSettings(tmp_path, "0.0.0.0", token=TOKEN, weights=str(weights), workers=0)),
        "http://localhost",
    ) as client:
        assert client.get("/api/about").status_code == 401
        assert client.get("/api/about", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/about", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/api/openapi.json").status_code == 401
        assert client.get("/api/health").status_code == 200  # which tells nothing of anybody


def test_other_addresses_need_a_token(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match=r"--host 0\.0\.0\.0: others can reach it, so it needs a token"):
        ServerSettings(tmp_path, "0.0.0.0")
    with pytest.raises(WrongUsage, match="at least 16 printable characters"):
        ServerSettings(tmp_path, token="short")


def test_other_pages_and_names_are_turned_away(client: TestClient) -> None:
    evil = {"Origin": "http://evil.example"}
    assert client.post("/api/jobs", files=uploads("a.png"), headers=evil).status_code == 403
    assert client.get("/api/jobs", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/api/jobs", headers={"Origin": "http://localhost"}).status_code == 200


def test_the_interface_describes_itself(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/about",
        "/api/health",
        "/api/inspect",
        "/api/login",
        "/api/jobs",
        "/api/jobs/{job_id}",
        "/api/jobs/{job_id}/events",
        "/api/jobs/{job_id}/files/{name}",
    }
    for methods in described["paths"].values():
        for described_one in methods.values():
            assert described_one["description"]


def test_line_integrals_from_a_file(client: TestClient, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 5, (64, 64)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(image), str(tmp_path / "a.mha"))
    content = (tmp_path / "a.mha").read_bytes()
    asked = json.dumps({"xrays": [{"view": "0"}]})
    found = client.post("/api/inspect", files=uploads("a.mha", content=content), data={"options": asked}).json()
    assert (found["xrays"][0]["view"], found["xrays"][0]["turnable"]) == ("ap", False)
