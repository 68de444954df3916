"""A real Orthanc on loopback, with its own configuration and storage, stopped by its process id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import free_port

AE_TITLE = "ORTHANC"
START_S = 120.0
STOP_S = 120.0
ANSWER_S = 120.0


class Orthanc:
    """Context manager: ``with Orthanc(folder) as orthanc``. ``stop`` and ``start`` play a PACS that is down.

    The ports and the storage stay the same over a restart.
    """

    def __init__(self, folder: Path, *, ae_title: str = AE_TITLE, settings: dict[str, Any] | None = None) -> None:
        self.folder, self.ae_title = folder, ae_title
        self.dicom_port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "orthanc.json"
        self._config.write_text(json.dumps({**self._settings(), **(settings or {})}), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until both ports answer."""
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self._config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                self.get("/system")
                socket.create_connection(("127.0.0.1", self.dicom_port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        text = (self.folder / "orthanc.log").read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"Orthanc did not start:\n{text[-2000:]}")

    def stop(self) -> None:
        """Stop this process, by its id."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(STOP_S)

    def get(self, path: str) -> Any:
        """The JSON answer of the REST API."""
        return json.loads(self._request("GET", path))

    def series_of_study(self, study: str) -> list[dict[str, Any]]:
        """Orthanc's account of every Series in the Study with this UID."""
        question = {"Level": "Series", "Query": {"StudyInstanceUID": study}, "Expand": True}
        return json.loads(self._request("POST", "/tools/find", question))

    def modalities_of_study(self, study: str) -> list[str]:
        """The Modality of every Instance in the Study: one entry per Instance."""
        found = self.series_of_study(study)
        return [series["MainDicomTags"]["Modality"] for series in found for _ in series["Instances"]]

    def instances(self) -> list[str]:
        """The SOP Instance UID of every Instance there is."""
        return [entry["MainDicomTags"]["SOPInstanceUID"] for entry in self.get("/instances?expand")]

    def download_all(self, folder: Path) -> list[Path]:
        """Write every Instance into ``folder`` as it is stored; returns the files."""
        files = []
        for entry in self.get("/instances?expand"):
            file = folder / f"{entry['MainDicomTags']['SOPInstanceUID']}.dcm"
            file.write_bytes(self._request("GET", f"/instances/{entry['ID']}/file"))
            files.append(file)
        return files

    def delete_instance(self, sop_instance_uid: str) -> None:
        """Remove one Instance, as an archive that lost it."""
        for entry in self.get("/instances?expand"):
            if entry["MainDicomTags"]["SOPInstanceUID"] == sop_instance_uid:
                self._request("DELETE", f"/instances/{entry['ID']}")

    def allow_storage_commitment(self, ae_title: str, port: int) -> None:
        """Make the node on this loopback port known as one that may ask for storage commitment."""
        modality = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
        self._request("PUT", "/modalities/node", modality)

    def _request(self, method: str, path: str, body: Any = None) -> bytes:
        """One REST call, past any proxy of the environment."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", content, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=ANSWER_S) as answer:
            return answer.read()

    def _settings(self) -> dict[str, Any]:
        storage = str(self.folder / "storage")
        return {
            "Name": "dicomnode test",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "Plugins": [],
            "HttpPort": self.http_port,
            "HttpServerEnabled": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": True,
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "CheckRevisions": False,
            "SaveJobs": False,
        }
