"""Event streams (WHATWG HTML, 9.2) and what the service tells in them."""

from pydantic import ValidationError

from deepfake_detect_client.answers import Answer, Problem, Progress, Running
from deepfake_detect_client.errors import UnexpectedAnswer, problem_error

MEDIA_TYPE = "text/event-stream"
Event = Progress | Running | Answer
_KINDS: dict[str, type[Progress | Running | Answer]] = {
    "progress": Progress,
    "running": Running,
    "answer": Answer,
}


class EventParser:
    """Joins pieces of a stream to events. Its lines end in LF or CR LF, as this service ends them."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[tuple[str, str]]:
        """Names and data of the events that a piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [
            event for line in lines if (event := self._take(line.rstrip(b"\r").decode("utf-8", "replace")))
        ]

    def _take(self, line: str) -> tuple[str, str] | None:
        if not line:
            event = (self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None


def event_of(name: str, data: str) -> Event | None:
    """What one event says, None when it is of a kind that is not known here.

    Raises a ProblemError where the service says that there will be no answer, and UnexpectedAnswer.
    """
    try:
        if name == "problem":
            problem = Problem.model_validate_json(data)
            raise problem_error(problem.status, problem.title, {}, data.encode())
        return _KINDS[name].model_validate_json(data) if name in _KINDS else None
    except ValidationError as e:
        raise UnexpectedAnswer(f"an event {name!r} is not as this client knows it: {e}") from e
