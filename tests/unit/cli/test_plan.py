"""From files and options to the images to build, and a model on this machine as their source."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.cli.documents import Documents
from edgemodel_operator.cli.local_source import local_source
from edgemodel_operator.cli.plan import NotPossible, Wishes, plan_jobs
from edgemodel_operator.settings import NamedClass, Settings
from support.command_line import model_document

RUNTIME = "registry.plant-a.local/runtimes/onnx@sha256:" + "a" * 64
NPU = AcceleratorClassSpec.model_validate(
    {
        "runtimes": [{"format": "ONNX", "variant": "npu", "provider": "CPUExecutionProvider"}],
        "sharing": "Shared",
    }
)
CPU = {"onnxruntime-cpu": RUNTIME}


def documents(*targets: str, **classes: AcceleratorClassSpec) -> Documents:
    raw = model_document(
        {"http": {"url": "https://models.plant-a.local/line.onnx"}},
        "registry.plant-a.local/models/line",
        targets=[{"accelerator": name} for name in targets],
    )
    return Documents({"line": EdgeModelSpec.model_validate(raw["spec"])}, classes)


def test_each_variant_that_the_targets_need_becomes_an_image() -> None:
    jobs = plan_jobs(documents("npu", "cpu", npu=NPU), Settings(), Wishes({**CPU, "npu": RUNTIME}))
    assert [(job.model_name, job.variant, job.runtime) for job in jobs] == [
        ("line", "npu", RUNTIME),
        ("line", "onnxruntime-cpu", RUNTIME),
    ]


def test_an_option_counts_before_the_configuration() -> None:
    settings = Settings(runtimes={"onnxruntime-cpu": RUNTIME})
    (job,) = plan_jobs(documents("cpu"), settings, Wishes({"onnxruntime-cpu": "oci:/runtimes"}))
    assert job.runtime == "oci:/runtimes"
    (job,) = plan_jobs(documents("cpu"), settings, Wishes({}))
    assert job.runtime == RUNTIME


def test_classes_come_from_the_files_before_the_configuration() -> None:
    other = NPU.model_copy(update={"runtimes": (NPU.runtimes[0].model_copy(update={"variant": "other"}),)})
    settings = Settings(accelerator_classes=(NamedClass(name="npu", spec=other),))
    runtimes = {"npu": RUNTIME, "other": RUNTIME}
    (job,) = plan_jobs(documents("npu"), settings, Wishes(runtimes))
    assert job.variant == "other"
    (job,) = plan_jobs(documents("npu", npu=NPU), settings, Wishes(runtimes))
    assert job.variant == "npu"


def test_only_the_chosen_variants_are_built() -> None:
    wishes = Wishes({**CPU, "npu": RUNTIME}, ("npu",))
    assert [job.variant for job in plan_jobs(documents("npu", "cpu", npu=NPU), Settings(), wishes)] == ["npu"]


@pytest.mark.parametrize(
    ("given", "wishes", "sentence"),
    [
        (
            documents("npu"),
            Wishes(CPU),
            "AcceleratorClass npu is not known: give its file with `--class-file`",
        ),
        (documents("cpu"), Wishes({}), "add `--runtime onnxruntime-cpu=IMAGE`"),
        (documents("cpu"), Wishes(CPU, ("npu",)), "do not need the variant npu; they need: onnxruntime-cpu"),
        (
            documents("npu", npu=NPU.model_copy(update={"runtimes": ()})),
            Wishes(CPU),
            "has no runtime for ONNX models",
        ),
    ],
)
def test_what_cannot_be_built_says_what_to_write(given: Documents, wishes: Wishes, sentence: str) -> None:
    with pytest.raises(NotPossible, match=r"^[^\n]+$") as caught:
        plan_jobs(given, Settings(), wishes)
    assert sentence in str(caught.value)


def spec(format_: str = "ONNX", **source: Any) -> ModelSpec:
    given = source or {"http": {"url": "https://models.plant-a.local/line"}}
    return ModelSpec.model_validate({"format": format_, "version": "7", "source": given})


def test_a_file_keeps_the_digest_that_the_spec_demands(tmp_path: Path) -> None:
    (tmp_path / "line.onnx").write_bytes(b"model")
    model = spec(http={"url": "https://models.plant-a.local/line", "sha256": "a" * 64})
    with local_source(tmp_path / "line.onnx", model) as local:
        assert local.source.digests == ("a" * 64,)
        assert local.source.pvc is not None
        assert (local.folder / local.source.pvc.path).read_bytes() == b"model"


def test_the_weights_of_an_openvino_model_lie_beside_it(tmp_path: Path) -> None:
    weights = {"weights": {"url": "https://models.plant-a.local/bin"}}
    model = spec("OpenVINO", http={"url": "https://models.plant-a.local/line", **weights})
    with (
        pytest.raises(NotPossible, match=r"no line\.bin beside it"),
        local_source(tmp_path / "line.xml", model),
    ):
        pass
    (tmp_path / "line.bin").touch()
    with local_source(tmp_path / "line.xml", model) as local:
        assert local.source.pvc is not None
        assert local.source.pvc.weights is not None
        assert local.source.pvc.weights.path == "line.bin"


def test_weights_with_a_name_of_their_own_need_the_folder(tmp_path: Path) -> None:
    model = spec(http={"url": "https://a.local/x", "weights": {"url": "https://a.local/y"}})
    with pytest.raises(NotPossible, match="give the folder"), local_source(tmp_path / "line.onnx", model):
        pass


def test_a_folder_is_packed_the_same_way_whatever_its_times_and_modes_are(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    for name in ("b.pb", "a.pb", "variables/v.index"):
        (folder / name).write_bytes(name.encode())
    (folder / "link").symlink_to("/etc/passwd")
    digests = set()
    for number, mode in ((1, 0o600), (2, 0o755)):
        os.utime(folder / "a.pb", (number, number))
        (folder / "a.pb").chmod(mode)
        with local_source(folder, spec()) as local:
            assert local.source.archive is not None
            assert local.source.pvc is not None
            packed = local.folder / local.source.pvc.path
            digests.add(hashlib.sha256(packed.read_bytes()).hexdigest())
            with tarfile.open(packed) as archive:
                assert archive.getnames() == ["a.pb", "b.pb", "variables", "variables/v.index"]
        assert not packed.exists()
    assert len(digests) == 1
