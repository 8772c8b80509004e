"""Reading a Dockerfile far enough to check it before a builder sees it, and to label what it makes. Pure.

Format: the Dockerfile reference, as the builder of the Docker Engine and Buildah read it: comments, blank
lines, continued lines, the `escape` directive. What an instruction means is the builder's business.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MAX_BYTES = 1024 * 1024
"""No Dockerfile is larger; what is, was not written by anybody."""

_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"^\d*<<-?[\"']?[a-zA-Z_]\w*[\"']?$")
_SECURE_COPY = re.compile(r"^[\w.-]+@[\w.-]+:")
"""`user@host:path`, which is fetched by Git."""
_ESCAPES = ("\\", "`")
_BLANKS = " \t\r"
_TAKE_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})


class InvalidDockerfile(ValueError):  # noqa: N818 - reads as the fact it states
    """The Dockerfile cannot be built here; the message is a sentence that says what to write instead."""


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    keyword: str
    """In capitals: `FROM`, `RUN`, …"""
    arguments: str
    first_line: int
    """Counted from 1."""
    last_line: int

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments without their flags (`--chown=…`)."""
        words = self.arguments.split()
        while words and words[0].startswith("--"):
            del words[0]
        return tuple(words)


def decode_dockerfile(content: bytes) -> str:
    """Give the text of a Dockerfile; raises InvalidDockerfile."""
    if len(content) > MAX_BYTES:
        raise InvalidDockerfile(f"The Dockerfile has {len(content)} bytes; at most {MAX_BYTES} are read.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDockerfile("The Dockerfile is not UTF-8 text.") from error


def parse_dockerfile(text: str) -> tuple[Instruction, ...]:
    """Read the instructions in order.

    Raises InvalidDockerfile when the last one is not finished, and where builders read a line in different
    ways: what one of them takes for a part of a text is an instruction to another.
    """
    escape = _escape_character(text)
    continued = re.compile(rf"{re.escape(escape)}[ \t]*$")
    instructions: list[Instruction] = []
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(_BLANKS)
        if not stripped or stripped.startswith("#"):
            continue  # also between the lines of one instruction, as builders do
        if stripped != line.strip() or any(map(_is_control, stripped)) or stripped.endswith(2 * escape):
            raise InvalidDockerfile(
                f"Builders do not agree on how line {number} of the Dockerfile ends: write it without "
                "control characters, with no other white space around it than spaces and tabs, and not with "
                f"two {escape} at its end."
            )
        first = first or number
        body = continued.sub("", stripped)
        parts.append(body)
        if body == stripped:
            instructions.append(_instruction("".join(parts), first, number))
            parts, first = [], 0
    if parts:
        raise InvalidDockerfile(f"The instruction in line {first} of the Dockerfile is never finished.")
    return tuple(instructions)


def check_dockerfile(instructions: Sequence[Instruction]) -> None:
    """Refuse what no builder here can do, and what would reach around its lack of a network.

    Raises InvalidDockerfile.
    """
    if not any(instruction.keyword == "FROM" for instruction in instructions):
        raise InvalidDockerfile(
            "The Dockerfile has no FROM: begin it with `ARG RUNTIME_IMAGE` and `FROM ${RUNTIME_IMAGE}`."
        )
    for instruction in instructions:
        _check(_triggered(instruction))


def with_labels(text: str, labels: Mapping[str, str]) -> str:
    """Give the Dockerfile with these labels on every stage: on all that is made of it, finished or not.

    The line numbers of what follows change; `original_line` translates them back.
    """
    line = "LABEL " + " ".join(f"{name}={json.dumps(value)}" for name, value in sorted(labels.items()))
    lines = text.split("\n")
    for instruction in reversed(parse_dockerfile(text)):
        if instruction.keyword == "FROM":
            lines.insert(instruction.last_line, line)
    return "\n".join(lines)


def labelled_steps(instructions: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """Give the instruction behind each step of a build of `with_labels`: its labels belong to their FROM."""
    return tuple(_repeat_stages(instructions))


def _repeat_stages(instructions: Sequence[Instruction]) -> Iterator[Instruction]:
    for instruction in instructions:
        yield instruction
        if instruction.keyword == "FROM":
            yield instruction


def _escape_character(text: str) -> str:
    """Read the directives: comments of the form `name=value` before anything else."""
    for line in text.split("\n"):
        if (directive := _DIRECTIVE.match(line.strip())) is None:
            break
        if directive[1].lower() == "escape":
            if directive[2] not in _ESCAPES:
                raise InvalidDockerfile(f"The directive escape={directive[2]} is none: write \\ or `.")
            return directive[2]
    return _ESCAPES[0]


def _is_control(letter: str) -> bool:
    return letter != "\t" and unicodedata.category(letter) == "Cc"


def _instruction(text: str, first: int, last: int) -> Instruction:
    keyword, *rest = text.split(None, 1)
    return Instruction(keyword.upper(), rest[0].strip() if rest else "", first, last)


def _triggered(instruction: Instruction) -> Instruction:
    """Give what an ONBUILD will do, and every other instruction as it is."""
    if instruction.keyword != "ONBUILD":
        return instruction
    return _instruction(instruction.arguments or "ONBUILD", instruction.first_line, instruction.last_line)


def _check(instruction: Instruction) -> None:
    where = f"Line {instruction.first_line} of the Dockerfile"
    if instruction.keyword in _TAKE_HEREDOCS and any(map(_HEREDOC.match, instruction.words)):
        raise InvalidDockerfile(f"{where} uses a here-document: put its text into a file of the context.")
    if instruction.keyword == "ADD" and any(map(_leads_away, _sources(instruction))):
        raise InvalidDockerfile(
            f"{where} adds something from elsewhere: put the file into the context, and write "
            "`COPY file /where/it/goes` (a source of ADD may be no URL and hold no variable)."
        )


def _sources(instruction: Instruction) -> tuple[str, ...]:
    """Give everything but the target of an ADD, in both of its forms."""
    joined = " ".join(instruction.words)
    try:
        listed = json.loads(joined)
    except ValueError:
        return instruction.words[:-1]
    return tuple(map(str, listed))[:-1] if isinstance(listed, list) else instruction.words[:-1]


def _leads_away(source: str) -> bool:
    """Tell whether a source of ADD may be fetched: by the builder, from wherever it can reach."""
    plain = source.strip("\"'").lower()
    if "://" in plain or "$" in plain or plain.startswith("github.com/"):
        return True
    return _SECURE_COPY.match(plain) is not None
