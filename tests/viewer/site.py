"""What the viewer is shown: synthetic studies through a real node, their results in the archive beside the sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.config import Peer
from dicomnode.deliver.send import send_paths
from dicomnode.demo.phantoms import make_studies
from tests.acceptance.eager_models import eager_routes, make_eager_models
from tests.acceptance.node_process import NodeProcess
from tests.acceptance.orthanc import AE_TITLE, Orthanc
from tests.viewer.archive import viewer_archive

SEED = 7
LIMIT_S = 300.0
_RESULTS = '[results]\nprofile = "viewer-rich"\n'


@contextmanager
def filled_archive(folder: Path) -> Iterator[Orthanc]:
    """An archive with a CT, a DX and an MR study and all that the node makes of them for a rich viewer.

    The node's models are eager, so that each study has findings. It is stopped before the archive is handed out.
    """
    studies = [study.write(folder / study.datasets[0].Modality) for study in make_studies(SEED)]
    models = make_eager_models(folder / "models")
    with viewer_archive(folder / "archive") as archive:
        node = NodeProcess(
            folder / "node", archive.dicom_port, node=f'model_dir = "{models}"', routes=eager_routes() + _RESULTS
        )
        try:
            node.start()
            for paths in studies:
                _send(paths, "NODE", node.port)
                _send(paths, AE_TITLE, archive.dicom_port)
            state = node.wait_settled(len(studies), LIMIT_S)
            results = [result for series in state["recent"] for result in series["results"]]
            other = [result["reason"] for result in results if result["outcome"] != "findings"]
            assert len(results) == len(studies)
            assert not other, other
        finally:
            node.close()
        yield archive


def _send(paths: list[Path], ae_title: str, port: int) -> None:
    target = Peer(name="target", ae_title=ae_title, host="127.0.0.1", port=port)
    answers = list(send_paths(paths, target, "SCANNER"))
    assert len(answers) == len(paths)
    assert all(answer.ok for answer in answers), [answer.text for answer in answers if not answer.ok]
