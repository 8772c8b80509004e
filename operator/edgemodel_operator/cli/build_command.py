"""`edgemodel build`: the images of an EdgeModel without a cluster, by the code that runs in one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgemodel_operator.api.source import Source
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.cli.access import read_access
from edgemodel_operator.cli.docker_config import docker_config_path
from edgemodel_operator.cli.documents import Documents, read_documents
from edgemodel_operator.cli.images import Made, Order, make_images, registries_of
from edgemodel_operator.cli.local_source import local_source
from edgemodel_operator.cli.outcome import run, told
from edgemodel_operator.cli.plan import NotPossible, Wishes, plan_jobs
from edgemodel_operator.cli.progress import Style
from edgemodel_operator.cli.registry import Registries, registry_options
from edgemodel_operator.core.supply import SupplyJob
from edgemodel_operator.oci.image_layout import parse_location
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.settings import Settings, SourceSettings, load_settings

_ANYWHERE = SourceSettings(allowed_networks=("0.0.0.0/0", "::/0"))
"""Without a configuration a source may lie where it wants: whoever runs this could fetch it as well."""
_FILE = click.Path(path_type=Path, allow_dash=True)


@dataclass(frozen=True)
class Options:
    """The command line."""

    files: tuple[Path, ...]
    class_files: tuple[Path, ...]
    output: str | None
    source: Path | None
    config: Path | None
    runtimes: tuple[str, ...]
    variants: tuple[str, ...]
    registries: Registries
    progress: str
    as_json: bool


@click.command("build")
@click.option("-f", "--file", "files", type=_FILE, multiple=True, required=True,
              help="File with the EdgeModel, and with the classes, Secrets and ConfigMaps that it names; "
              "`-`: standard input. Repeatable.")  # fmt: skip
@click.option("-o", "--output", metavar="oci:FOLDER[:TAG]|IMAGE",
              help="Where the image goes: an OCI image layout in a folder, or a repository. "
              "Default: `spec.image.repository`.")  # fmt: skip
@click.option("--source", type=click.Path(path_type=Path, exists=True), metavar="FILE|FOLDER",
              help="The model on this machine, in place of `spec.model.source`.")  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="The operator's settings: `runtimes`, `acceleratorClasses`, `registries`, "
              "`sources`.")  # fmt: skip
@click.option("--runtime", "runtimes", multiple=True, metavar="VARIANT=IMAGE",
              help="The runtime image of a variant, in a registry or `oci:FOLDER`. Repeatable.")  # fmt: skip
@click.option("--variant", "variants", multiple=True,
              help="Build only this one of the variants that the targets need. Repeatable.")  # fmt: skip
@click.option("--class-file", "class_files", type=_FILE, multiple=True,
              help="File with AcceleratorClasses. `cpu` is always known. Repeatable.")  # fmt: skip
@click.option("--progress", type=click.Choice([style.value for style in Style]), default=Style.AUTO.value,
              show_default=True, help="How progress is shown, on standard error.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@registry_options
def build_command(**given: Any) -> None:
    """Build the images of an EdgeModel here, as the operator would: the same bytes, the same digest.

    Prints each image by its digest. Exit codes: 0 built; 1 failed, and somebody must change something; 2 the
    command line or a file is wrong; 3 failed, and trying again may help; 130 interrupted.
    """
    options = Options(**given)
    with told(as_json=options.as_json), ExitStack() as stack:
        made = run(make_images(_order(options, stack)))
    if options.as_json:
        click.echo(json.dumps({"images": [_described(image) for image in made]}, indent=2))
    else:
        click.echo("".join(f"{image.result.image}\n" for image in made), nl=False)


def _order(options: Options, stack: ExitStack) -> Order:
    settings = _settings(options.config)
    documents = _documents(options)
    jobs = plan_jobs(documents, settings, Wishes(_runtimes(options.runtimes), options.variants))
    target = _target(options.output, jobs)
    volume = ""
    if options.source is not None:
        local = stack.enter_context(local_source(options.source, jobs[0].model))
        jobs, volume = tuple(_with_source(job, local.source) for job in jobs), str(local.folder)
    elif jobs[0].model.source.pvc is not None:
        raise NotPossible("the source is a volume of the cluster: give the model with `--source FILE|FOLDER`")
    return Order(
        jobs=jobs,
        target=target,
        access=read_access(documents, jobs[0], docker_config_path(), registries_of(jobs, target)),
        builder=WorkerBuilder(
            settings.sources if options.config else _ANYWHERE,
            (*settings.registries.plain_http, *options.registries.plain_http),
            settings.registries.allowed_upload_hosts,
            settings.builds,
            f"{settings.registries.certificate_authorities}\n{options.registries.authorities}".strip(),
        ),
        volume=volume,
        style=Style(options.progress),
    )


def _settings(path: Path | None) -> Settings:
    return load_settings({"EDGEMODEL_CONFIG": str(path)}) if path is not None else Settings()


def _documents(options: Options) -> Documents:
    """Read all files; EdgeModels count in those of `--file` alone."""
    main, more = read_documents(options.files), read_documents(options.class_files)
    return replace(main, classes={**more.classes, **main.classes})


def _runtimes(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        variant, equals, image = text.partition("=")
        if not equals or not variant or not image:
            raise NotPossible(f"--runtime {text}: write VARIANT=IMAGE, as in onnxruntime-cpu=oci:runtimes")
        found[variant] = image
    return found


def _target(text: str | None, jobs: Sequence[SupplyJob]) -> Reference | None:
    if text is None:
        return None
    target = parse_location(text)
    if target.digest:
        raise NotPossible(f"--output {text}: the digest is what comes out; leave it away")
    if target.tag and len(jobs) > 1:
        names = ", ".join(job.variant for job in jobs)
        raise NotPossible(
            f"--output {text}: the targets need several images ({names}), and one tag names one of them: "
            "choose by `--variant`, or leave the tag away"
        )
    return target


def _with_source(job: SupplyJob, source: Source) -> SupplyJob:
    model = job.model.model_copy(update={"source": source})
    return replace(job, model=model, digests=source.digests)


def _described(image: Made) -> dict[str, Any]:
    return {"variant": image.variant, **image.result.to_raw()}
