"""Reading OpenVINO IR: the graph in a `.xml` file, its weights in a `.bin` file beside it.

Format: https://docs.openvino.ai/latest/documentation/openvino-ir-format.html. Inputs are the layers of type
Parameter, outputs those of type Result; a Const layer names its bytes in the `.bin` file. The XML goes
through expat as a stream; a document type, and with it every entity and everything external, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat  # document types, the way to every attack on expat's users, are refused below

from edgemodel_operator.build.inspect.objection import Objection

VERSIONS = frozenset({"10", "11"})
MAX_XML_BYTES = 256 * 1024 * 1024
MAX_DEPTH = 200
"""How deep elements may lie in each other: loops in loops in loops need about five levels each."""
_CHUNK_BYTES = 256 * 1024
_LAYER = ["net", "layers", "layer"]


def inspect_openvino(graph: Path, weights: Path) -> dict[str, Any]:
    """Read the whole graph and hold it against its weights; raises Objection."""
    if graph.stat().st_size > MAX_XML_BYTES:
        raise Objection(f"Its .xml file has more than {MAX_XML_BYTES} bytes: is it not the .bin file?")
    found = _Graph(weights.stat().st_size)
    parser = expat.ParserCreate("utf-8")  # whatever the file declares: codecs are code, too
    parser.StartElementHandler = found.begin
    parser.EndElementHandler = found.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        with graph.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Objection(
            f"It is not an OpenVINO IR: its .xml file is not XML (line {error.lineno})."
        ) from error
    return found.describe()


def _refuse_doctype(*_declaration: Any) -> None:
    raise Objection("Its .xml file has a document type declaration, which no OpenVINO IR has.")


@dataclass
class _Graph:
    """What has been read so far."""

    weights_bytes: int
    path: list[str] = field(default_factory=list)
    """The names of the elements that are open."""
    version: str = ""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    layers: int = 0
    types: list[str] = field(default_factory=list)
    """The types of the layers that are open: the bodies of loops lie within their layers."""

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        self.path.append(name)
        if len(self.path) > MAX_DEPTH:
            raise Objection(f"Elements of its .xml file lie more than {MAX_DEPTH} deep in each other.")
        if self.path == ["net"]:
            self._begin_net(attributes)
        elif name == "layer":
            self._begin_layer(attributes)
        elif name == "data" and self.types and self.types[-1] == "Const":
            self._check_weights(attributes)
        elif name == "data" and self.path == [*_LAYER, "data"] and self.types == ["Parameter"]:
            shape = attributes.get("shape", "")
            self.inputs[-1] |= {"type": attributes.get("element_type", ""), "shape": _shape(shape)}

    def end(self, name: str) -> None:
        """Take the end of an element."""
        self.path.pop()
        if name == "layer":
            self.types.pop()

    def describe(self) -> dict[str, Any]:
        """Say what was found; raises Objection where it is no model."""
        if not self.version:
            raise Objection("It is not an OpenVINO IR: the .xml file does not begin with <net>.")
        if not self.inputs or not self.outputs:
            raise Objection("Its graph has no inputs or no outputs.")
        return {
            "irVersion": int(self.version),
            "layers": self.layers,
            "inputs": self.inputs,
            "outputs": self.outputs,
        }

    def _begin_net(self, attributes: dict[str, str]) -> None:
        self.version = attributes.get("version", "")
        if self.version not in VERSIONS:
            known = " and ".join(sorted(VERSIONS))
            raise Objection(f"Its IR version is {self.version[:16] or 'missing'}; {known} are known.")

    def _begin_layer(self, attributes: dict[str, str]) -> None:
        kind = attributes.get("type", "")
        self.types.append(kind)
        self.layers += 1
        if self.path != _LAYER:
            return  # in the body of a loop
        if kind == "Parameter":
            self.inputs.append({"name": attributes.get("name", "")})
        elif kind == "Result":
            self.outputs.append({"name": attributes.get("output_names") or attributes.get("name", "")})

    def _check_weights(self, attributes: dict[str, str]) -> None:
        offset, size = (_whole(attributes.get(name, "0")) for name in ("offset", "size"))
        if offset + size > self.weights_bytes:
            raise Objection(
                f"Its .xml file refers to byte {offset + size} of the .bin file, which has "
                f"{self.weights_bytes}: they do not belong together."
            )


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Objection(f"Its .xml file has {text[:32]!r} where a number of bytes belongs.")
    return int(text)


def _shape(text: str) -> list[int | None]:
    """Read `1,3,?,224`; dimensions that are free, or ranges such as `1..8`, are None."""
    sizes = [size.strip() for size in text.split(",")] if text.strip() else []
    return [int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None for size in sizes]
