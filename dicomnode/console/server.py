"""The console's HTTP server: loopback by default, reads only."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicomnode.config import Config
from dicomnode.console.looks import Looks
from dicomnode.console.metrics import prometheus
from dicomnode.console.page import overview
from dicomnode.console.status import read_status
from dicomnode.errors import ConfigError, Transient
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool

REQUEST_S = 15.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


def application(config: Config, store: Store, spool: Spool, clock: Callable[[], float] = time.time) -> Starlette:
    """The pages: ``/``, ``/status`` (JSON), ``/metrics``, ``/healthz``. 503 while the database does not answer.

    The first two show UIDs: who looks at them is recorded.
    """
    looks = Looks(store, clock)

    async def answer(render: Callable[[dict[str, Any]], Response]) -> Response:
        try:
            status = await run_in_threadpool(read_status, config, store, spool, clock())
        except Transient:
            return JSONResponse({"error": "the database does not answer"}, status_code=503, headers=_HEADERS)
        response = render(status)
        response.headers.update(_HEADERS)
        return response

    async def seen(request: Request) -> None:
        address = request.client.host if request.client else "unknown"
        await run_in_threadpool(looks.record, address, request.url.path)

    async def page(request: Request) -> Response:
        await seen(request)
        return await answer(lambda status: HTMLResponse(overview(status)))

    async def status(request: Request) -> Response:
        await seen(request)
        return await answer(JSONResponse)

    async def metrics(_: Request) -> Response:
        return await answer(
            lambda status: PlainTextResponse(prometheus(status), media_type="text/plain; version=0.0.4")
        )

    async def health(_: Request) -> Response:
        return await answer(_health)

    handlers = {"/": page, "/status": status, "/metrics": metrics, "/healthz": health}
    return Starlette(routes=[Route(path, handler, methods=["GET"]) for path, handler in handlers.items()])


def _health(status: dict[str, Any]) -> Response:
    silent = [item["role"] for item in status["processes"] if not item["alive"]]
    return JSONResponse({"ok": not silent, "silent": silent}, status_code=503 if silent else 200)


class Impatient(H11Protocol):
    """Closes a connection that has no request to be answered after ``REQUEST_S``: one that is sent drop by drop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(REQUEST_S, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.loop.call_later(REQUEST_S, self._look)


def serve_console(
    config: Config,
    store: Store,
    spool: Spool,
    stop: threading.Event,
    on_ready: Callable[[int], None],
    clock: Callable[[], float] = time.time,
) -> None:
    """Serve until ``stop``. Raises ConfigError when the address cannot be bound."""
    listener = _listen(config.node.console_host, config.node.console_port)
    settings = uvicorn.Config(
        application(config, store, spool, clock),
        http=Impatient,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="console", daemon=True)
    thread.start()
    on_ready(listener.getsockname()[1])
    while not stop.wait(1.0) and thread.is_alive():
        pass
    server.should_exit = True
    thread.join(10.0)
    listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        raise ConfigError(f"node.console_port: {host}:{port} cannot be used: {error.strerror}") from error
    return listener
