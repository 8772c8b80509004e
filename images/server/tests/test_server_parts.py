"""The small parts: processors, settings, the metrics page, where computations run, and noise."""

import asyncio
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ModelMaker

from edgemodel_server import serve
from edgemodel_server.call import Call, Outcome
from edgemodel_server.cpus import count_usable_cpus, measure_usable_cpus
from edgemodel_server.datatypes import TensorSpec
from edgemodel_server.errors import MAX_MESSAGE_CHARACTERS, ApiError, Reason, StartError
from edgemodel_server.http.messages import Request, Response
from edgemodel_server.inference import Signature, parse_infer_request
from edgemodel_server.manifest import read_source
from edgemodel_server.metrics import Result
from edgemodel_server.rest import RestInference
from edgemodel_server.served import INLINE_SECONDS, ServedModel, ServeOptions
from edgemodel_server.settings import NamedPath, parse_settings
from edgemodel_server.startup import Checks, prepare
from edgemodel_server.workers import Workers

DENSE = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()


V1 = "5:cpuset:/other\n4:cpu,cpuacct:/system.slice/edge.service\n0::/\n"
V2 = "0::/system.slice/edge.service\n"


@pytest.mark.parametrize(
    ("own", "files", "want"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
        (V2, {"system.slice/edge.service/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"system.slice/edge.service/cpu.max": "max 100000\n"}, math.inf),
        (
            V2,
            {
                "system.slice/edge.service/cpu.max": "90000 100000\n",
                "system.slice/cpu.max": "25000 100000\n",
                "user.slice/cpu.max": "10000 100000\n",
            },
            0.25,
        ),
        (
            V1,
            {
                "cpu/system.slice/edge.service/cpu.cfs_quota_us": "50000\n",
                "cpu/system.slice/edge.service/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        ("0::/../edge.service\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (None, {"cpu.max": "50000 100000\n"}, 0.5),
    ],
)
def test_processors_follow_the_least_quota_of_the_cgroups(
    tmp_path: Path, own: str | None, files: dict[str, str], want: float
) -> None:
    cgroup, listed = tmp_path / "cgroup", tmp_path / "own"
    if own is not None:
        listed.write_text(own)
    allowed = len(os.sched_getaffinity(0))
    for name, text in files.items():
        (cgroup / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroup / name).write_text(text)
    assert measure_usable_cpus(cgroup, listed) == min(allowed, want)
    assert count_usable_cpus(cgroup, listed) == min(
        allowed, math.inf if want == math.inf else math.ceil(want)
    )


def test_a_budget_is_a_share_of_the_quota_and_not_of_whole_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "measure_usable_cpus", lambda: 0.5)
    pacer = serve._make_pacer(parse_settings(["--max-cpu-percent", "50"]))
    assert pacer is not None
    assert pacer._processors == 0.25


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("/models/a.onnx", NamedPath(None, Path("/models/a.onnx"))),
        ("a=/models/b.onnx", NamedPath("a", Path("/models/b.onnx"))),
        ("a=b=c", NamedPath("a", Path("b=c"))),
        ("./a=b", NamedPath(None, Path("./a=b"))),
    ],
)
def test_models_may_be_given_a_name(text: str, want: NamedPath) -> None:
    assert parse_settings(["--model", text]).models == (want,)


def test_a_golden_sample_for_a_name_comes_before_the_one_for_all() -> None:
    settings = parse_settings(["--golden", "one.json", "--golden", "b=two.json"])
    assert settings.golden_for("a") == Path("one.json")
    assert settings.golden_for("b") == Path("two.json")
    assert parse_settings([]).golden_for("a") is None


@pytest.mark.parametrize(
    "argv",
    [
        ["--unknown"],
        ["--http-port", "70000"],
        ["--http-port", "x"],
        ["--drain-seconds", "-1"],
        ["--drain-seconds", "nan"],
        ["--golden-tolerance", "inf"],
        ["--threads", "0"],
        ["--check", "--prefetch"],
        ["--drain", "5"],
    ],
)
def test_a_wrong_command_line_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings(argv)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_long_reasons_are_cut() -> None:
    assert len(StartError(Reason.LOAD_FAILED, "a\n" * 100000).message) == MAX_MESSAGE_CHARACTERS


class Asker:
    """Takes the answers to its requests."""

    def __init__(self) -> None:
        self.responses: list[Response] = []

    def answer(self, request: Request, response: Response) -> None:
        self.responses.append(response)

    async def until(self, count: int) -> None:
        """Wait for the answers to ``count`` requests."""
        async with asyncio.timeout(60):
            while len(self.responses) < count:  # noqa: ASYNC110 - an answer is a call, there is no event
                await asyncio.sleep(0)

    def request(self, body: bytes) -> Request:
        request = Request(self, 0.0)
        request.body = body
        return request


async def test_fast_computations_run_on_the_loop_until_they_turn_out_slow(
    models: ModelMaker, tmp_path: Path
) -> None:
    path = models.dense(tmp_path / "dense.onnx")
    served = ServedModel("dense", "1", Workers(asyncio.get_running_loop(), 1), ServeOptions(max_queue=4))
    served.start(prepare(read_source(path), Checks()))
    asker, rest = Asker(), RestInference(served)
    rest.infer(asker.request(DENSE))
    await asker.until(1)
    assert [response.status for response in asker.responses] == [200]
    for _ in range(8):
        served._watch_inline(100 * INLINE_SECONDS)
    rest.infer(asker.request(DENSE))
    assert served.metrics.queued == 1
    assert len(asker.responses) == 1
    await asker.until(2)
    assert asker.responses[1].status == 200
    assert served.metrics.queued == 0


async def test_inputs_much_larger_than_the_warm_up_leave_the_loop(models: ModelMaker, tmp_path: Path) -> None:
    path = models.dense(tmp_path / "dense.onnx")
    served = ServedModel("dense", "1", Workers(asyncio.get_running_loop(), 1), ServeOptions(max_queue=4))
    served.start(prepare(read_source(path), Checks()))
    rows = served._inline_bytes // 16 + 1
    entry = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": [0] * rows * 4}
    asker, rest = Asker(), RestInference(served)
    rest.infer(asker.request(json.dumps({"inputs": [entry]}).encode()))
    assert not asker.responses
    await asker.until(1)
    assert asker.responses[0].status == 200


async def test_a_fault_in_one_answer_does_not_cost_the_others_theirs(
    models: ModelMaker, tmp_path: Path
) -> None:
    served = ServedModel("dense", "1", Workers(asyncio.get_running_loop(), 1), ServeOptions())
    served.start(prepare(read_source(models.dense(tmp_path / "dense.onnx")), Checks(max_rows=8)))
    got: list[Outcome] = []

    def fail_once(outcome: Outcome) -> ApiError | None:
        got.append(outcome)
        if not isinstance(outcome, ApiError):
            raise TypeError("a fault of the test's")
        return None

    def take(outcome: Outcome) -> ApiError | None:
        got.append(outcome)
        return None

    inputs = {"x": np.ones((1, 4), np.float32)}
    for finish in (fail_once, take):
        served.submit(Call(inputs, ["y"], finish, received=0.0))
    async with asyncio.timeout(60):
        while len(got) < 3:  # noqa: ASYNC110 - an answer is a call, there is no event
            await asyncio.sleep(0)
    first, error, second = got
    assert isinstance(error, ApiError)
    assert error.status == 500
    assert not isinstance(first, ApiError)
    assert not isinstance(second, ApiError)
    assert served.metrics.results[Result.OK] == served.metrics.results[Result.FAILED] == 1


SIGNATURE = Signature(
    {"x": TensorSpec("x", "FP32", (-1, 4)), "t": TensorSpec("t", "BYTES", (-1,))},
    {"y": TensorSpec("y", "FP32", (-1, 3))},
)
NOISE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "data"]), inner),
    max_leaves=20,
)  # fmt: skip
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "t", "y"]) | NOISE,
        "datatype": st.sampled_from(["FP32", "BYTES", "INT8"]) | NOISE,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | NOISE,
        "data": st.lists(st.integers() | st.floats(allow_nan=False) | st.text(max_size=2)) | NOISE,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40)}) | NOISE,
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": NOISE,
        "inputs": st.lists(ENTRIES, max_size=3) | NOISE,
        "outputs": st.lists(ENTRIES) | NOISE,
    },
)


@given(DOCUMENTS, st.binary(max_size=40), st.integers(-5, 5))
def test_noise_is_either_a_request_that_fits_or_refused(
    document: dict[str, Any], tail: bytes, slip: int
) -> None:
    head = json.dumps(document).encode()
    try:
        request = parse_infer_request(head + tail, max(0, len(head) + slip), SIGNATURE)
    except ApiError as error:
        status = error.status
    else:
        status = 400
        for name, spec in SIGNATURE.inputs.items():
            assert spec.accepts(request.inputs[name].shape)
    assert status == 400
