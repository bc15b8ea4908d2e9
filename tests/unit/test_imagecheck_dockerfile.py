"""What a Dockerfile says is read as an engine reads it, and what is not understood is refused."""

import pytest

from imagecheck.dockerfile import BASE_ENVIRONMENT, DockerfileError, chain, config, parse

FILE = """\
# a comment
FROM image:1 AS base
ENV A=1 B="two words" \\
    # a comment in between
    PATH=/opt/bin:$PATH
ARG SECRET=none
RUN one \\
 && two

FROM base AS last
ENV A=${A}1 C=$SECRET
LABEL name="some thing"
COPY --from=base /a /b
WORKDIR /tmp
USER 5:6
HEALTHCHECK --interval=15s --retries=4 \\
  CMD ["sh", "-c", "true"]
ENTRYPOINT ["init", "--"]
CMD ["serve"]
"""


def test_lines_are_joined_and_comments_dropped() -> None:
    stages = parse(FILE)
    assert list(stages) == ["base", "last"]
    assert [str(i) for i in stages["base"].all("RUN")] == ["RUN one && two"]
    assert [stage.name for stage in chain(stages, "last")] == ["base", "last"]
    assert stages["base"].base == "image:1"


def test_flags_are_told_from_the_rest() -> None:
    (copy,) = parse(FILE)["last"].all("COPY")
    assert (copy.flags, copy.rest) == ({"from": "base"}, "/a /b")
    assert str(copy) == "COPY --from=base /a /b"


def test_configuration_is_what_all_stages_say() -> None:
    said = config(parse(FILE), "last")
    assert said.environment == {
        **BASE_ENVIRONMENT,
        "A": "11",
        "B": "two words",
        "PATH": f"/opt/bin:{BASE_ENVIRONMENT['PATH']}",
        "C": "$SECRET",
    }
    assert said.labels == {"name": "some thing"}
    assert (said.workdir, said.user) == ("/tmp", (5, 6))
    assert said.healthcheck == ("sh", "-c", "true")
    assert (said.entrypoint, said.command) == (("init", "--"), ("serve",))


def test_arguments_hold_in_their_stage_and_may_be_given() -> None:
    (argument,) = parse(FILE)["base"].all("ARG")
    said = config(parse(FILE), "base")
    assert said.arguments == {"SECRET": "none"}
    assert said.after(argument, {"SECRET": "given", "OTHER": "x"}).arguments == {"SECRET": "given"}
    assert config(parse(FILE), "last").arguments == {}


@pytest.mark.parametrize(
    "line",
    [
        "ADD a /b",
        "ONBUILD RUN x",
        "VOLUME /data",
        "SHELL ['bash']",
        "COPY --chown=1:1 a /b",
        "RUN --mount=type=cache,target=/x y",
        "RUN <<EOF",
        "FROM image:1",
        "FROM image:1 AS base",
    ],
)
def test_what_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(DockerfileError):
        parse(f"FROM image:1 AS base\n{line}\n")


@pytest.mark.parametrize(
    "line",
    ["USER detector", "WORKDIR here", "CMD serve", "ENTRYPOINT serve", "HEALTHCHECK NONE", "ENV A 1"],
)
def test_forms_that_leave_something_open_are_refused(line: str) -> None:
    with pytest.raises(DockerfileError):
        config(parse(f"FROM image:1 AS base\n{line}\n"), "base")


def test_nothing_comes_before_a_stage() -> None:
    with pytest.raises(DockerfileError):
        parse("ARG A=1\nFROM image:1 AS base\n")
