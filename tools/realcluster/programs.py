"""The programs, built from Go modules that are pinned by the go.mod and go.sum files in `modules`, cached by version."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Final

from tools.realcluster import versions
from tools.realcluster.versions import Release

MODULES: Final = pathlib.Path(__file__).parent / "modules"
CACHE: Final = pathlib.Path(os.environ.get("CLUSTER_CACHE", "/var/cache/intel-gpu-dra"))
KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")


PROGRESS_SECONDS: Final = 20


class BuildFailed(Exception):
    """With the last lines of what the compiler said."""


@dataclasses.dataclass(frozen=True)
class Programs:
    """One module's programs."""

    name: str
    """`kubernetes-1.37.2`: the directory of its go.mod, and of what is built."""
    requirement: str
    packages: tuple[str, ...]
    linker_flags: tuple[str, ...] = ("-s", "-w")
    tags: tuple[str, ...] = ()
    minutes: float = 1
    """Of a cold build on two cores, measured."""
    staging: str = ""
    """Version of the modules that Kubernetes keeps beside itself and requires at v0.0.0."""

    @property
    def directory(self) -> pathlib.Path:
        return CACHE / self.name

    @property
    def pinned(self) -> bool:
        return (MODULES / self.name / "go.sum").exists()

    @property
    def cached(self) -> bool:
        """Whether what was built is of the module's present pins."""
        try:
            return (self.directory / ".pins").read_text() == self._pins()
        except FileNotFoundError:
            return False

    def _pins(self) -> str:
        texts = [(MODULES / self.name / file).read_text() for file in ("go.mod", "go.sum")]
        return json.dumps([*texts, self.linker_flags, self.tags, self.packages])

    def build(self, say: Callable[[str], None]) -> None:
        """Make the programs if the cache lacks them; another process that is building is waited for.

        Raises:
            BuildFailed: the compiler said no.
        """
        CACHE.mkdir(parents=True, exist_ok=True)
        with open(CACHE / f".{self.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.cached:
                return
            say(f"building {self.name}: about {self.minutes:.0f} min when nothing is cached ...")
            started = time.monotonic()
            making = CACHE / f".{self.name}.new"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            self._compile(making, say)
            (making / ".pins").write_text(self._pins())
            shutil.rmtree(self.directory, ignore_errors=True)
            making.rename(self.directory)
            say(f"built {self.name} in {time.monotonic() - started:.0f} s")

    def pin(self) -> None:
        """Write go.mod and go.sum anew from the module proxy: for a maintainer who adds a release.

        Raises:
            BuildFailed: the proxy lacks a module.
        """
        directory = MODULES / self.name
        directory.mkdir(parents=True, exist_ok=True)
        lines = ["module programs", f"go {_go_version()}", f"require {self.requirement}"]
        if self.staging:
            module, version = self.requirement.split()
            probe = subprocess.run(["go", "mod", "download", "-json", f"{module}@{version}"], cwd="/", capture_output=True, check=True)
            words = [line.split() for line in pathlib.Path(json.loads(probe.stdout)["GoMod"]).read_text().splitlines()]
            beside = sorted({w[0] for w in words if len(w) > 1 and w[0].startswith("k8s.io/") and w[1] in ("v0.0.0", "=>")})
            lines += ["replace (", *(f"\t{name} => {name} {self.staging}" for name in beside), ")"]
        (directory / "go.mod").write_text("\n".join(lines) + "\n")
        (directory / "go.sum").write_text("")
        self._go("list", "-mod=mod", "-deps", *self._options(), *self.packages)

    def _options(self) -> list[str]:
        return ["-tags", ",".join(self.tags), "-ldflags", " ".join(self.linker_flags)]

    def _compile(self, directory: pathlib.Path, say: Callable[[str], None]) -> None:
        count = len(self._go("list", "-mod=readonly", "-deps", *self._options(), *self.packages).splitlines())
        command = ["go", "build", "-v", "-mod=readonly", "-trimpath", "-o", f"{directory}/", *self._options(), *self.packages]
        said: list[str] = []
        with subprocess.Popen(command, cwd=MODULES / self.name, env=self._environment(), stderr=subprocess.PIPE, text=True) as compiling:
            assert compiling.stderr is not None
            told = time.monotonic()
            for line in compiling.stderr:  # the name of each package that the compiler's cache lacks
                said.append(line.rstrip())
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    say(f"building {self.name}: {len(said)} of at most {count} packages compiled")
        if compiling.returncode:
            raise BuildFailed(f"go build of {self.name} failed:\n" + "\n".join(said[-15:]))

    def _go(self, *arguments: str) -> str:
        done = subprocess.run(
            ["go", *arguments], check=False, cwd=MODULES / self.name, env=self._environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise BuildFailed(f"go {arguments[0]} of {self.name} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
        return done.stdout

    @staticmethod
    def _environment() -> dict[str, str]:
        # A toolchain other than the installed one would have to be downloaded.
        return os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}


def _go_version() -> str:
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return said.strip().removeprefix("go")


def kubernetes(release: Release) -> Programs:
    return Programs(
        name=f"kubernetes-{release.version}",
        requirement=f"k8s.io/kubernetes v{release.version}",
        packages=tuple(f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES),
        linker_flags=release.linker_flags,
        tags=release.build_tags,
        minutes=12,
        staging="v0." + release.version.split(".", 1)[1],
    )


def etcd() -> Programs:
    module = "go.etcd.io/etcd/server/v3"
    return Programs(f"etcd-{versions.ETCD}", f"{module} v{versions.ETCD}", (module,))


def containerd(version: str) -> Programs:
    major = version.partition(".")[0]
    module = "github.com/containerd/containerd" + (f"/v{major}" if major != "1" else "")
    names = ("containerd", "containerd-shim-runc-v2", "ctr")
    return Programs(
        name=f"containerd-{version}",
        requirement=f"{module} v{version}",
        packages=tuple(f"{module}/cmd/{name}" for name in names),
        linker_flags=("-s", "-w", f"-X {module}/version.Version={version}"),
        # Snapshotters that need C libraries.
        tags=("no_btrfs", "no_zfs", "no_devmapper"),
        minutes=2,
    )


def helm() -> Programs:
    module = "helm.sh/helm/v3"
    flags = ("-s", "-w", f"-X {module}/internal/version.version=v{versions.HELM}")
    return Programs(f"helm-{versions.HELM}", f"{module} v{versions.HELM}", (f"{module}/cmd/helm",), linker_flags=flags, minutes=2)


def needed_for(release: Release) -> tuple[Programs, ...]:
    return etcd(), containerd(release.containerd), kubernetes(release), helm()
