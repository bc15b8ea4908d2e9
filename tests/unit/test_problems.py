"""Every error has one documented problem type, and the document has no other."""

import json
from pathlib import Path

import pytest

from pipeline import errors
from service import problems

DOCS = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def subclasses(of):
    return {of}.union(*(subclasses(c) for c in of.__subclasses__()))


def test_document_is_what_the_table_says():
    assert DOCS.read_text(encoding="utf-8") == problems.all_in_markdown()


def test_document_and_table_name_the_same_types():
    written = {
        line.removeprefix("## ")
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line[:3] == "## "
    }
    assert written == set(problems.PROBLEMS)


@pytest.mark.parametrize("error", sorted(subclasses(errors.MediaError), key=lambda c: c.__name__))
def test_every_media_error_has_its_own_problem(error):
    assert problems.problem_of(error("why")) == error.problem
    assert problems.PROBLEMS[error.problem].status in (415, 422)


def test_no_two_media_errors_share_a_problem():
    kinds = {k for k in subclasses(errors.MediaError) if k.__module__ == errors.__name__}
    assert len({k.problem for k in kinds}) == len(kinds)


@pytest.mark.parametrize("error", sorted(subclasses(problems.ServiceError), key=lambda c: c.__name__))
def test_every_service_error_has_a_problem(error):
    given = {"problem": "overloaded"} if error is problems.Unavailable else {}
    assert problems.problem_of(error("why", **given)) in problems.PROBLEMS


def test_response_is_a_problem_detail():
    response = problems.problem_response(
        "overloaded", "32 clips", request_id="r1", headers={"Retry-After": "3"}
    )
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "3"
    assert json.loads(bytes(response.body)) == {
        "type": "/problems/overloaded",
        "title": "Overloaded",
        "status": 503,
        "detail": "32 clips",
        "request_id": "r1",
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.2, "2"), (30.0, "30")])
def test_retry_after_is_whole_seconds_rounded_up(seconds, header):
    error = problems.Unavailable("busy", problem="overloaded", retry_after_s=seconds)
    assert error.headers == {"Retry-After": header}
