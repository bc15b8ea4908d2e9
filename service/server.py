"""Runs the application: one process, one line when it is ready, a graceful end."""

import asyncio
import logging
import signal
import socket
import sys
import time
from types import FrameType
from typing import TextIO

import uvicorn
from fastapi import FastAPI

from pipeline.errors import BundleError, FaceModelError
from service import logs
from service.app import create_app
from service.models import open_bundles
from service.sandbox import NotConfined
from service.scratch import scratch
from service.settings import Settings
from service.state import Service
from service.tracing import tracer_of

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Exit code 0, or 1 after one line that says what can not be served."""
    logs.configure(settings.log_level)
    try:
        bundles = open_bundles(settings)
        listening = listen(settings.host, settings.port)
    except BundleError as e:
        return _refuse(str(e))
    except OSError as e:
        return _refuse(f"can not listen on {settings.host}:{settings.port}: {e.strerror or e}")
    with scratch(settings.scratch_dir) as folder:
        service = Service(settings, bundles, folder, tracer_of(settings))
        server = _Server(create_app(service), service, listening)
        server.run(sockets=[listening])
    return 1 if server.failed else 0


class _Server(uvicorn.Server):
    """uvicorn that says when the service is loaded, and stops it in order."""

    def __init__(self, app: FastAPI, service: Service, listening: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(service.settings.shutdown_grace_s)),
            )
        )
        self.failed = False
        self._exit_at: float | None = None
        self._app, self._service = app, service
        host, port = listening.getsockname()[:2]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at once, so that probes are answered while the models load."""
        await super().startup(sockets)
        self._announcing = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        try:
            await asyncio.shield(self._app.state.loading)
        except (BundleError, FaceModelError, NotConfined) as e:
            self.failed = bool(_refuse(str(e)))
            self.should_exit = True
        except Exception:
            log.exception("the service can not be loaded")
            self.failed = bool(_refuse("the service can not be loaded; the log says why"))
            self.should_exit = True
        else:
            _say(f"ready: {self._url}  try: curl -F file=@sample.mp4 {self._url}/v1/detect", sys.stdout)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Readiness falls first; then uvicorn stops listening and waits for what is in flight.

        A second signal ends the pause between the two; a SIGINT after that does not wait for anything.
        """
        self._service.drain()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        delay = 0.0 if self._exit_at is not None else self._service.settings.shutdown_delay_s
        self._exit_at = time.monotonic() + delay
        self.should_exit = self.should_exit or delay == 0

    async def on_tick(self, counter: int) -> bool:
        """Several times a second: whether to stop listening."""
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError.

    It names its protocol: only then does asyncio switch off Nagle's algorithm on what it accepts,
    which together with a client's delayed acknowledgements holds back each answer by 40 ms.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening


def _refuse(why: str) -> int:
    _say("deepfake-detect: " + " ".join(why.split()), sys.stderr)
    return 1


def _say(line: str, stream: TextIO) -> None:
    stream.write(line + "\n")
    stream.flush()
