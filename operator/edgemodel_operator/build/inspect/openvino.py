"""Reading OpenVINO IR: the graph in a `.xml` file, its weights in a `.bin` file beside it.

Format: https://docs.openvino.ai/latest/documentation/openvino-ir-format.html. Inputs are the layers of type
Parameter, outputs those of type Result; a Const layer names its bytes in the `.bin` file. The XML goes
through expat as a stream; a document type, and with it every entity and everything external, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat  # document types, the way to every attack on expat's users, are refused below

from edgemodel_operator.build.inspect.found import FREE, Found, Tensor
from edgemodel_operator.build.inspect.memory import Step, count_bytes, count_elements, peak_bytes
from edgemodel_operator.build.inspect.objection import Objection

VERSIONS = frozenset({"10", "11"})
MAX_XML_BYTES = 256 * 1024 * 1024
MAX_DEPTH = 200
"""How deep elements may lie in each other: loops in loops in loops need about five levels each."""
SETS = "opset"
"""The common beginning of the names of OpenVINO's own sets of operators: opset1 and so on."""

DATATYPES: Mapping[str, str] = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "string": "BYTES",
}
"""Those of the Open Inference Protocol that a server can answer with, by `element_type`."""

_OTHER_BITS = {
    "boolean": 8, "bf16": 16, "f8e4m3": 8, "f8e5m2": 8, "f8e8m0": 8, "f4e2m1": 4, "nf4": 4, "i4": 4, "u4": 4,
    "u6": 6, "u3": 3, "u2": 2, "i2": 2, "u1": 1, "bin": 1, "string": 128,
}  # fmt: skip
_PRECISIONS = {"BOOL": "boolean", "FP16": "f16", "FP32": "f32", "FP64": "f64", "BF16": "bf16"}
"""Where `precision` of a port is not the `element_type` in capitals."""
_CHUNK_BYTES = 256 * 1024
_LAYER = ["net", "layers", "layer"]

Port = tuple[str, str]
"""A tensor: the number of the layer that makes it, and that of its port."""


def inspect_openvino(graph: Path, weights_bytes: int) -> Found:
    """Read the whole graph and hold it against the size of its weights; raises Objection."""
    if graph.stat().st_size > MAX_XML_BYTES:
        raise Objection(f"Its .xml file has more than {MAX_XML_BYTES} bytes: is it not the .bin file?")
    found = _Graph(weights_bytes)
    parser = expat.ParserCreate("utf-8")  # whatever the file declares: codecs are code, too
    parser.StartElementHandler = found.begin
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.text
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


def _refuse_doctype(*_declaration: object) -> None:
    raise Objection("Its .xml file has a document type declaration, which no OpenVINO IR has.")


@dataclass
class _Layer:
    """A layer that is open."""

    id: str
    kind: str
    name: str
    datatype: str = ""
    shape: list[int | None] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)


@dataclass
class _Graph:
    """What has been read so far."""

    weights_bytes: int
    path: list[str] = field(default_factory=list)
    """The names of the elements that are open."""
    version: str = ""
    inputs: list[Tensor] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    """The names of the outputs, by the number of their layer."""
    operators: set[str] = field(default_factory=set)
    newest_set: int = 0
    parameters: int = 0
    stored_bytes: int = 0
    layers: list[_Layer] = field(default_factory=list)
    """The layers that are open: the bodies of loops lie within their layers."""
    order: dict[str, list[Port]] = field(default_factory=dict)
    """What each layer makes, the layers in the order of the file."""
    ports: dict[Port, tuple[str, list[int | None]]] = field(default_factory=dict)
    """Type and shape of each tensor of the main graph."""
    constants: set[Port] = field(default_factory=set)
    """The tensors that are stored."""
    edges: dict[str, list[Port]] = field(default_factory=dict)
    """What each layer takes."""
    dimension: str = ""

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        self.path.append(name)
        if len(self.path) > MAX_DEPTH:
            raise Objection(f"Elements of its .xml file lie more than {MAX_DEPTH} deep in each other.")
        if self.path == ["net"]:
            self._begin_net(attributes)
        elif name == "layer":
            self._begin_layer(attributes)
        elif name == "data" and self.layers:
            self._begin_data(attributes)
        elif self.path == [*_LAYER, "output", "port"]:
            self._begin_port(attributes)
        elif self.path == ["net", "edges", "edge"]:
            made = (attributes.get("from-layer", ""), attributes.get("from-port", ""))
            self.edges.setdefault(attributes.get("to-layer", ""), []).append(made)
        self.dimension = ""

    def text(self, text: str) -> None:
        """Take text: of it only the sizes in ports matter."""
        if self.path[-1:] == ["dim"]:
            self.dimension = (self.dimension + text)[:32]

    def end(self, name: str) -> None:
        """Take the end of an element."""
        if self.path == [*_LAYER, "output", "port", "dim"] and self.layers and self.layers[-1].outputs:
            self.ports[self.layers[-1].outputs[-1]][1].append(_size(self.dimension))
        self.path.pop()
        if name == "layer":
            self.layers.pop()

    def describe(self) -> Found:
        """Say what was found; raises Objection where it is no model."""
        if not self.version:
            raise Objection("It is not an OpenVINO IR: the .xml file does not begin with <net>.")
        return Found(
            inputs=self.inputs,
            outputs=[self._describe_output(layer, name) for layer, name in self.outputs.items()],
            operator_sets={SETS: self.newest_set} if self.newest_set else {},
            operators=frozenset(self.operators),
            parameters=self.parameters,
            memory_bytes=self.stored_bytes + self._peak(),
        )

    def _begin_net(self, attributes: dict[str, str]) -> None:
        self.version = attributes.get("version", "")
        if self.version not in VERSIONS:
            known = " and ".join(sorted(VERSIONS))
            raise Objection(f"Its IR version is {self.version[:16] or 'missing'}; {known} are known.")

    def _begin_layer(self, attributes: dict[str, str]) -> None:
        layer = _Layer(attributes.get("id", ""), attributes.get("type", ""), attributes.get("name", ""))
        self.layers.append(layer)
        self._count_operator(layer.kind, attributes.get("version", ""))
        if self.path != _LAYER:
            return  # in the body of a loop
        self.order[layer.id] = layer.outputs
        if layer.kind == "Result":
            self.outputs[layer.id] = attributes.get("output_names") or layer.name

    def _count_operator(self, kind: str, version: str) -> None:
        number = version.removeprefix(SETS)
        if version != number and number.isascii() and number.isdigit() and len(number) < 5:
            self.operators.add(f"{kind}@{int(number)}")
            self.newest_set = max(self.newest_set, int(number))
        else:
            self.operators.add(f"{version or 'unnamed'}:{kind}")

    def _begin_data(self, attributes: dict[str, str]) -> None:
        layer = self.layers[-1]
        if layer.kind == "Const":
            self._count_weights(attributes)
        elif self.path == [*_LAYER, "data"] and layer.kind == "Parameter":
            layer.datatype = attributes.get("element_type", "")
            layer.shape = _shape(attributes.get("shape", ""))
            self.inputs.append(_describe(layer.name, layer.datatype, layer.shape, "input"))

    def _begin_port(self, attributes: dict[str, str]) -> None:
        layer = self.layers[-1]
        port = (layer.id, attributes.get("id", ""))
        layer.outputs.append(port)
        precision = attributes.get("precision", "")
        self.ports[port] = (_PRECISIONS.get(precision, precision.lower()), [])
        if layer.kind == "Const":
            self.constants.add(port)
        if layer.kind == "Parameter" and self.inputs:
            names = attributes.get("names", "").split(",")
            if names[0]:
                self.inputs[-1] = Tensor(names[0], self.inputs[-1].datatype, self.inputs[-1].shape)

    def _count_weights(self, attributes: dict[str, str]) -> None:
        offset, size = (_whole(attributes.get(name, "0")) for name in ("offset", "size"))
        if offset + size > self.weights_bytes:
            raise Objection(
                f"Its .xml file refers to byte {offset + size} of the .bin file, which has "
                f"{self.weights_bytes}: they do not belong together."
            )
        self.parameters += count_elements(_shape(attributes.get("shape", "")))
        self.stored_bytes += size

    def _describe_output(self, layer: str, name: str) -> Tensor:
        """Describe what a Result layer takes."""
        taken = self.edges.get(layer, [])
        datatype, shape = self.ports.get(taken[0], ("", [])) if taken else ("", [])
        return _describe(name, datatype, shape, "output")

    def _peak(self) -> int:
        sizes = {
            port: count_bytes(count_elements(shape), _bits(datatype))
            for port, (datatype, shape) in self.ports.items()
            if port not in self.constants
        }
        steps = [Step(self.edges.get(layer, []), makes) for layer, makes in self.order.items()]
        return peak_bytes(steps, sizes, [], [])


def _describe(name: str, element_type: str, shape: list[int | None], what: str) -> Tensor:
    datatype = DATATYPES.get(element_type)
    if datatype is None:
        raise Objection(
            f"Its {what} {name[:100]!r} is of a type that clients cannot send or receive "
            f"({element_type[:16] or 'none is named'}); convert the model with f32 or f16 there."
        )
    return Tensor(name, datatype, tuple(FREE if size is None else str(size) for size in shape))


def _bits(element_type: str) -> int:
    """Give the bits of an element: `f32` has 32. 0 for a type that is not known."""
    digits = element_type.lstrip("fiu")
    return _OTHER_BITS.get(element_type) or (int(digits) if digits.isdigit() and len(digits) < 3 else 0)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Objection(f"Its .xml file has {text[:32]!r} where a number of bytes belongs.")
    return int(text)


def _shape(text: str) -> list[int | None]:
    """Read `1,3,?,224`; dimensions that are free, or ranges such as `1..8`, are None."""
    return [_size(size.strip()) for size in text.split(",")] if text.strip() else []


def _size(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
