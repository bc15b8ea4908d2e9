"""Clips judged by a service instead of here, through its client."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.output import fail
from pipeline.errors import DetectError, MediaError

if TYPE_CHECKING:
    from cli.scan import Tell

KEY_VARIABLE = "DEEPFAKE_DETECT_API_KEY"
"""An argument would be seen by everybody who lists the processes."""
PATIENCE_S = 600.0
"""Seconds that one clip waits for a service which is busy; a wrong address is told at once."""
OF_THE_CLIP = frozenset({400, 408, 413, 415, 422, 504})
"""What the service says of one clip; another one may fare better."""


class ServiceFailed(DetectError):
    """The service is of no use for any clip, so that a scan had better end."""


class ClipRefused(MediaError):
    """The service says what is wrong with a clip. `problem` is the last part of the type of the problem."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = kind.rsplit("/", 1)[-1]


class Remote:
    """Asks one service about clips. digest: of the bundle that will judge."""

    def __init__(self, url: str, *, model: str | None, max_faces: int | None, explain: bool) -> None:
        try:
            import deepfake_detect_client as package
        except ModuleNotFoundError as e:
            fail(f"scan --server needs {e.name}: `make client`, or install clients/python of the sources")
        self._package = package
        self._options: Any = {"model": model, "max_faces": max_faces, "explain": explain or None}
        key = os.environ.get(KEY_VARIABLE) or None
        try:
            hasty = package.Client(url, api_key=key, retries=package.Retries(attempts=3))
        except ValueError as e:
            fail(str(e))
        self._client = package.Client(
            url, api_key=key, retries=package.Retries(attempts=30, patience_s=PATIENCE_S)
        )
        with self._problems(), hasty:
            served = hasty.models()
            wanted = model or served.default
            digests = [m.digest for m in served.models if m.id == wanted]
        if not digests:
            fail(f"{url} serves no model {wanted!r}, only {', '.join(m.id for m in served.models)}")
        self.digest = digests[0]

    def judge(self, file: Path, tell: "Tell") -> dict[str, Any]:
        """The answer about one clip. Raises MediaError, OSError or ServiceFailed."""
        package = self._package
        answer: dict[str, Any] | None = None

        def sent(done: int, total: int | None) -> None:
            if total:
                tell(done / total / 2)

        with self._problems(), self._client.stream(file, on_progress=sent, **self._options) as events:
            for event in events:
                if isinstance(event, package.Progress) and event.planned:
                    tell(0.5 + event.bursts / event.planned / 2)
                if isinstance(event, package.Answer):
                    answer = event.model_dump(mode="json")
        assert answer is not None  # noqa: S101 - it is the last event, or there is an error
        return answer

    @contextmanager
    def _problems(self) -> Iterator[None]:
        package = self._package
        try:
            yield
        except package.ProblemError as e:
            if e.status in OF_THE_CLIP:
                raise ClipRefused(e.type, e.detail) from e
            hint = f"; is {KEY_VARIABLE} set?" if isinstance(e, package.KeyRefused) else ""
            raise ServiceFailed(f"the service: {e}{hint}") from e
        except package.ClientError as e:
            raise ServiceFailed(f"the service: {e}") from e
