"""Reading Dockerfiles: what is refused before a builder sees it, and where labels go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.build.dockerfile.instructions import (
    Instruction,
    InvalidDockerfile,
    check_dockerfile,
    decode_dockerfile,
    labelled_steps,
    parse_dockerfile,
    with_labels,
)

FROM = "ARG RUNTIME_IMAGE\nFROM ${RUNTIME_IMAGE}\n"


def test_comments_blank_and_continued_lines_are_read_as_builders_do() -> None:
    text = "# hello \\\\\r\n\nfrom base\nRUN one \\\n# between\n\n   two\\  \n  three\n CMD x"
    assert parse_dockerfile(text) == (
        Instruction("FROM", "base", 3, 3),
        Instruction("RUN", "one twothree", 4, 8),
        Instruction("CMD", "x", 9, 9),
    )


def test_the_escape_directive_changes_what_continues_a_line() -> None:
    text = "# escape=`\nFROM base\nCOPY c:\\ `\n d\n"
    assert [instruction.arguments for instruction in parse_dockerfile(text)] == ["base", "c:\\ d"]
    late = "FROM base\n# escape=`\nRUN a \\\n b\n"
    assert parse_dockerfile(late)[1].arguments == "a b"


def test_an_unfinished_instruction_and_a_wrong_directive_are_refused() -> None:
    with pytest.raises(InvalidDockerfile, match="line 2"):
        parse_dockerfile("FROM base\nRUN a \\\n")
    with pytest.raises(InvalidDockerfile, match="escape=x"):
        parse_dockerfile("# escape=x\nFROM base\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ADD https://registry.plant-a.local/x /x", "Line 3 .* adds something from elsewhere"),
        ("ADD --chown=1:1 'http://a/b' /x", "elsewhere"),
        ('ADD ["HTTP://a/b", "/x"]', "elsewhere"),
        ("ADD a git@a.local:b.git /x", "elsewhere"),
        ("ADD deploy@a.local:b.git /x", "elsewhere"),
        ("ADD ${WHERE} /x", "elsewhere"),
        ("add $WHERE /x", "elsewhere"),
        ("ADD \\\n http://a/b /x", "elsewhere"),
        ("ONBUILD ADD http://a/b /x", "elsewhere"),
        ("COPY <<EOF /x", "here-document"),
        ("RUN cat <<-'EOF' > /x", "here-document"),
    ],
)
def test_what_reaches_elsewhere_or_needs_another_builder_is_refused(line: str, said: str) -> None:
    with pytest.raises(InvalidDockerfile, match=said):
        check_dockerfile(parse_dockerfile(f"{FROM}{line}\n"))


@pytest.mark.parametrize(
    "end", ["\\\\", "\\\\ \t", "\\\x1c", "\\\x1f ", "\\\u2028", "\\\x85", "\\\xa0", "\x00\\", "\\\x0b"]
)
def test_an_instruction_cannot_hide_behind_a_line_that_builders_read_in_different_ways(end: str) -> None:
    """The BuildKit of the Docker Engine ends the first instruction here, and runs the second."""
    text = f"{FROM}ENV A=b{end}\nADD http://a.local/latest /x\n"
    with pytest.raises(InvalidDockerfile, match=r"line 3|Line 4"):
        check_dockerfile(parse_dockerfile(text))


def test_a_doubled_escape_within_a_line_is_a_text_like_any_other() -> None:
    (_, _, run) = parse_dockerfile(f"{FROM}RUN printf 'a\\\\n' \\\n b\n")
    assert run.arguments == "printf 'a\\\\n' b"


@pytest.mark.parametrize(
    "line", ["ADD a.tar /x", 'ADD ["a b", "/x"]', "COPY $A /x", "RUN echo http://a $((1<<2))", "ONBUILD"]
)
def test_what_is_in_the_context_may_be_added(line: str) -> None:
    check_dockerfile(parse_dockerfile(f"{FROM}{line}\n"))


def test_a_dockerfile_is_text_of_a_bounded_size_with_a_stage() -> None:
    assert decode_dockerfile(b"\xef\xbb\xbfFROM x") == "FROM x"
    with pytest.raises(InvalidDockerfile, match="not UTF-8"):
        decode_dockerfile(b"FROM \xff")
    with pytest.raises(InvalidDockerfile, match="at most"):
        decode_dockerfile(b"#" * (1024 * 1024 + 1))
    with pytest.raises(InvalidDockerfile, match="has no FROM"):
        check_dockerfile(parse_dockerfile("RUN x"))


def test_every_stage_gets_the_labels_and_every_step_its_instruction() -> None:
    text = "ARG A\nFROM x AS \\\n  y\nRUN one\nfrom z\nCMD two"
    labelled = with_labels(text, {"b": "2", "a": '"1"'})
    assert labelled == (
        'ARG A\nFROM x AS \\\n  y\nLABEL a="\\"1\\"" b="2"\nRUN one\nfrom z\nLABEL a="\\"1\\"" b="2"\nCMD two'
    )
    steps = labelled_steps(parse_dockerfile(text))
    assert [step.first_line for step in steps] == [1, 2, 2, 4, 5, 5, 6]
    assert len(steps) == len(parse_dockerfile(labelled))


LINES = st.sampled_from(
    ["FROM a", "from b AS c", "RUN x \\", "RUN y", "# c", "", "  \\", "LABEL a=b", "# escape=`", "COPY a `"]
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_labels_change_no_instruction(text: str) -> None:
    try:
        before = parse_dockerfile(text)
    except InvalidDockerfile:
        return
    after = parse_dockerfile(with_labels(text, {"l": "v"}))
    kept = [(one.keyword, one.arguments) for one in after if one.arguments != 'l="v"']
    assert kept == [(one.keyword, one.arguments) for one in before]
    assert [one.keyword for one in after if one.arguments == 'l="v"'] == ["LABEL"] * sum(
        one.keyword == "FROM" for one in before
    )
