"""The Storage Server: binds pynetdicom's events to admission, the C-STORE operation and the Association rows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import build_context
from pynetdicom.transport import AddressInformation

from dicomnode.config import Config
from dicomnode.dicom.commitment import EventStatus
from dicomnode.dicom.sop_classes import VERIFICATION
from dicomnode.dicom.status import Status
from dicomnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.receive.admission import Admission, Rejection, Request, plain_address
from dicomnode.receive.arrival import StoreRequest
from dicomnode.receive.commitment import CommitmentReports
from dicomnode.receive.contexts import accepted_contexts, is_not_only_storage, storage_services
from dicomnode.receive.listener import AssociationListener
from dicomnode.receive.recovery import recover
from dicomnode.receive.register import Register
from dicomnode.receive.scp import StorageScp
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool

QUIET_S = 1.0
CLOSE_S = 2.0
REAP_S = 1.0
_log = logging.getLogger(__name__)


class StorageServer:
    """Storage and Verification SCP of the node. One per data folder."""

    def __init__(self, config: Config, store: Store, spool: Spool, *, clock: Callable[[], float] = time.time) -> None:
        """Prepare; nothing listens yet. ``clock`` gives the times of rows, in seconds since the epoch."""
        self._config, self._store, self._spool, self._clock = config, store, spool, clock
        admission = Admission(config)
        self._register = Register(admission, store, clock)
        self._reports = CommitmentReports(admission, store, clock)
        self._scp = StorageScp(config, store, spool, clock)
        self._ae = _application_entity(config)
        self._listener: AssociationListener | None = None
        self._stopped = threading.Event()
        self._refusing = threading.Event()

    def start(self) -> int:
        """Clean up after an earlier run, listen, and return the bound port.

        Raises OSError when the port cannot be bound, Transient when the database is not available.
        """
        recover(self._store, self._spool, self._clock())
        made = self._ae.make_server(
            (self._config.node.host, self._config.node.port),
            contexts=[build_context(VERIFICATION)],
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_SOP_COMMON, self._on_sop_common),
                (evt.EVT_C_ECHO, self._on_echo),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_N_EVENT_REPORT, self._on_report),
                (evt.EVT_N_ACTION, self._on_action),
                (evt.EVT_RELEASED, self._on_released),
                (evt.EVT_ABORTED, self._on_aborted),
            ],
            server_class=AssociationListener,
        )
        listener = self._listener = cast("AssociationListener", made)
        threading.Thread(target=listener.serve_forever, args=(0.1,), name="listener", daemon=True).start()
        threading.Thread(target=self._reap, name="associations", daemon=True).start()
        return int(listener.server_address[1])

    def stop(self, grace_s: float) -> None:
        """Take no new Association, let the open ones go on while they send, for ``grace_s`` at most, then close.

        A running C-STORE always ends and is answered. Associations that are cut off count as lost: their peers are
        expected to send again what was not acknowledged.
        """
        if self._listener is None:
            return
        deadline = time.monotonic() + grace_s
        self._register.close()
        self._listener.shutdown()
        self._listener = None
        self._wait(deadline, QUIET_S)
        self._refusing.set()
        self._wait(time.monotonic() + CLOSE_S, 0.0)
        self._register.cut_off(CLOSE_S)
        self._stopped.set()

    def _wait(self, deadline: float, quiet_s: float) -> None:
        while time.monotonic() < deadline and not self._register.quiet_for(quiet_s):
            time.sleep(0.02)

    def _reap(self) -> None:
        while not self._stopped.wait(REAP_S):
            self._register.reap()

    def _on_requested(self, event: Event) -> None:
        association, requested = event.assoc, _requested(event)
        address = plain_address(cast("AddressInformation", association.requestor.address_info).address)
        proposed = requested.presentation_context_definition_list
        titles = requested.calling_ae_title.strip(), requested.called_ae_title.strip()
        request = Request(*titles, address, not_only_storage=is_not_only_storage(proposed))
        rejection = self._register.admit(association, request)
        if isinstance(rejection, Rejection):
            association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            association.kill()
            return
        known = self._register.find(association)
        may_store, may_report = (known.may_store, known.may_report) if known else (False, False)
        supported = accepted_contexts(proposed, storage=may_store, reports=may_report)
        association.acceptor.supported_contexts = supported

    def _on_sop_common(self, event: Event) -> Any:
        contexts = _requested(event).presentation_context_definition_list
        return storage_services({str(context.abstract_syntax) for context in contexts})

    def _on_echo(self, _event: Event) -> int:
        return Status.SUCCESS

    def _on_store(self, event: Event) -> int:
        association = self._register.find(event.assoc)
        if association is None or self._refusing.is_set():
            return Status.OUT_OF_RESOURCES
        with association.storing():
            return int(self._scp.store(association, _request(event)))

    def _on_report(self, event: Event) -> tuple[int, None]:
        association = self._register.find(event.assoc)
        if association is None or self._refusing.is_set() or not association.may_report:
            return EventStatus.RESOURCE_LIMITATION, None
        with association.storing():
            return self._reports.take(association, event), None

    def _on_action(self, _event: Event) -> tuple[int, None]:
        """The node commits nothing for others: it is no Storage Commitment SCP."""
        return Status.UNRECOGNIZED_OPERATION, None

    def _on_released(self, event: Event) -> None:
        self._register.end(event.assoc, "released")

    def _on_aborted(self, event: Event) -> None:
        self._register.end(event.assoc, "aborted")


def _requested(event: Event) -> A_ASSOCIATE:
    return cast("A_ASSOCIATE", event.assoc.requestor.primitive)


def _request(event: Event) -> StoreRequest:
    request, context = cast("C_STORE", event.request), event.context
    data = request.DataSet.getbuffer() if request.DataSet is not None else b""
    return StoreRequest(
        str(request.AffectedSOPClassUID),
        str(request.AffectedSOPInstanceUID),
        str(context.abstract_syntax),
        str(context.transfer_syntax),
        data,
    )


def _application_entity(config: Config) -> AE:
    """The pynetdicom AE. The one place that sets the library's process-wide options."""
    _config.LOG_HANDLER_LEVEL = "none"
    ae = AE(config.node.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = config.receive.max_pdu
    ae.acse_timeout = config.receive.acse_timeout_s
    ae.dimse_timeout = config.receive.dimse_timeout_s
    ae.network_timeout = config.receive.network_timeout_s
    ae.maximum_associations = 100_000
    return ae
