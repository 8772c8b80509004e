"""Files of Debian packages for any architecture: downloaded by apt, unpacked by us, never installed.

apt gets a private state with an empty package list, so that it resolves for a machine of the other
architecture, and this machine's own Debian sources, so that mirrors and proxies keep working. It verifies
all signatures.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packageurl import PackageURL

from edgemodel_operator.build.origin.packages import Package
from edgemodel_operator.oci.layer import check_path

from .cache import Cache, key_of
from .licences import debian_licence
from .packaged import Packaged, files_folder, read_packaged, write_packages
from .recipe import DebianPart

FORMAT = 3
"""Part of the cache key: raise it when the result for the same inputs changes."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PLANNED = re.compile(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", re.MULTILINE)
_MERGED = ("bin", "sbin", "lib", "lib64")


class DebianUnavailable(RuntimeError):  # noqa: N818 - states a fact
    """This machine cannot provide Debian packages; the message says what is missing."""


@dataclass(frozen=True)
class Apt:
    """apt for one foreign architecture with a private state below `state`."""

    architecture: str
    state: Path
    sources: str

    def fetch(self, part: DebianPart) -> tuple[Path, ...]:
        """Download the packages and what they need, and return the .deb files in order of their names."""
        self._prepare()
        self._run("update", "-qq")
        archives = self.state / "cache" / "archives"
        wanted = self._resolve(part)
        missing = [package for package, file in wanted.items() if not (archives / file).exists()]
        if missing:
            self._run("download", "-qq", *missing, cwd=archives)
        return tuple(archives / file for _, file in sorted(wanted.items()))

    def _resolve(self, part: DebianPart) -> dict[str, str]:
        """Return file names by `package=version`, as apt would install them on an empty machine."""
        planned = self._run("install", "--simulate", "-qq", *part.packages)
        chosen: dict[str, str] = {}
        for name, version, architecture in _PLANNED.findall(planned):
            if name not in part.without:
                escaped = version.replace(":", "%3a")
                chosen[f"{name}={version}"] = f"{name}_{escaped}_{architecture}.deb"
        return chosen

    def _prepare(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        (self.state / "status").write_text("")
        (self.state / "sources.list").write_text(self.sources)

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::State": self.state,
            "Dir::State::status": self.state / "status",
            "Dir::Cache": self.state / "cache",
            "Dir::Etc::sourcelist": self.state / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "DPkg::Post-Invoke": "",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return _output(["apt-get", *settings, *arguments], cwd=cwd)


def default_sources() -> str:
    """Return this machine's own Debian sources as one-line entries, without those of other vendors."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise DebianUnavailable("apt-get and dpkg-deb are needed to build images: use a Debian machine.")
    trust = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    template = f"deb {trust}$(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines = _output(
        ["apt-get", "indextargets", "--format", template, "Created-By: Packages", "Origin: Debian"]
    )
    entries = sorted(set(lines.splitlines()))
    if not entries:
        raise DebianUnavailable(
            "apt knows no Debian source: run `apt-get update`, or name a sources file with --apt-sources."
        )
    return "\n".join(entries) + "\n"


def unpack_packages(part: DebianPart, architecture: str, sources: str, cache: Cache) -> Packaged:
    """Return a folder with the kept files of the packages, from the cache if it can be."""
    key = key_of(FORMAT, part.model_dump(mode="json"), architecture, sources)
    if (known := cache.tree("debian", key)) is not None:
        return read_packaged(known)
    apt = Apt(architecture, cache.folder("apt", key_of(architecture, sources)), sources)
    archives = apt.fetch(part)
    with cache.new_tree("debian", key) as tree:
        root = files_folder(tree)
        for archive in archives:
            _unpack(archive, root, part)
        _write_status(archives, root)
        _bundle_certificates(root)
        write_packages(tree, _describe(archives, root, release_of(sources)))
    return read_packaged(cache.folder("debian", key))


def release_of(sources: str) -> str:
    """Return the name of the Debian release that the one-line entries draw from: `bookworm`."""
    suites = re.findall(r"^deb (?:\[[^]]*\] )?\S+ (\S+)", sources, re.MULTILINE)
    return min((re.split(r"[-/]", suite)[0] for suite in suites), default="")


def _describe(archives: Sequence[Path], root: Path, release: str) -> Iterator[Package]:
    """Say what each archive is, and under which licences its copyright file puts it."""
    for archive in archives:
        control = _output(
            ["dpkg-deb", "--field", str(archive), "Package", "Version", "Architecture", "Source"]
        )
        fields = dict(line.split(": ", 1) for line in control.splitlines())
        name, version = fields["Package"], fields["Version"]
        source, _, source_version = fields.get("Source", name).partition(" ")
        known = root / "usr/share/doc" / name / "copyright"
        upstream = f"{source}@{source_version.strip('()') or version}"
        qualifiers = {"arch": fields["Architecture"], "distro": release, "upstream": upstream}
        purl = PackageURL("deb", "debian", name, version, qualifiers).to_string()
        licence = debian_licence(known.read_text(errors="replace")) if known.is_file() else ""
        with archive.open("rb") as content:
            yield Package(purl, hashlib.file_digest(content, "sha256").hexdigest(), licence)


def _unpack(archive: Path, root: Path, part: DebianPart) -> None:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as members,
    ):
        for member in members:
            path = _merged(member.name.removeprefix("./"))
            if not member.isdir() and part.keeps(path):
                check_path(path)
                _write_member(members, member, root / path, root)
    if process.returncode:
        raise DebianUnavailable(f"dpkg-deb could not read {archive.name}.")


def _write_member(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path, root: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        shutil.copy2(root / _merged(member.linkname.removeprefix("./")), target, follow_symlinks=False)
    elif (content := members.extractfile(member)) is not None:
        with target.open("wb") as out:
            shutil.copyfileobj(content, out)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)


def _merged(path: str) -> str:
    """Move /bin, /sbin and /lib* below /usr, as on every installed Debian since bookworm."""
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


def _write_status(archives: Sequence[Path], root: Path) -> None:
    """Record the packages where vulnerability scanners look for them.

    A file for each, so that an image which adds packages to those of its base hides none of them.
    """
    folder = root / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        control = _output(["dpkg-deb", "--field", str(archive)])
        name, _, rest = control.partition("\n")
        stanza = f"{name}\nStatus: install ok installed\n{rest.rstrip()}\n"
        (folder / name.removeprefix("Package: ")).write_text(stanza)


def _bundle_certificates(root: Path) -> None:
    """Do what update-ca-certificates does: one file with all authorities."""
    folder = root / "usr/share/ca-certificates"
    if folder.is_dir():
        bundle = root / "etc/ssl/certs/ca-certificates.crt"
        bundle.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_bytes(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.crt"))))


def _output(command: Sequence[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise DebianUnavailable(f"{command[0]} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
