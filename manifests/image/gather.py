"""Copies what the driver needs of this machine into an empty directory, which becomes the image: Python, its libraries, the packages.

    python3 gather.py DIRECTORY PACKAGES PROGRAM...

No shell, no package manager, no compiler. A list of what is inside is written to SBOM, in CycloneDX's format, for scanners. Debian's Python
and Python's own images both work, for any architecture: libraries are those that the dynamic linker finds.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import pathlib
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig

SBOM = "usr/share/doc/intel-gpu-dra/sbom.cdx.json"
LEFT_OUT = {
    "__pycache__", "config", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test",
    "tests", "tkinter", "turtledemo", "venv",
}  # fmt: skip
"""Directories of the standard library."""
TESTS = {"__pycache__", "_tests", "test", "testing", "tests"}
FOR_BUILDING = (".c", ".h", ".pxd", ".pyi", ".pyx")
LIBRARIES_LEFT_OUT = ("_tkinter", "_curses", "readline", "_dbm", "_gdbm", "_sqlite3", "_test", "_xxtest", "xxlimited", "nis", "ossaudiodev")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
ACCOUNTS = "root:x:0:0:root:/:/nonexistent\nnonroot:x:65532:65532:nonroot:/:/nonexistent\n"
GROUPS = "root:x:0:\nnonroot:x:65532:\n"
LDCONFIG = "/sbin/ldconfig"
"""pyudev finds libudev by asking it."""


def main(directory: str, packages: str, *programs: str) -> None:
    root = Root(pathlib.Path(directory))
    for link in ("/bin", "/lib", "/lib64", "/sbin"):  # Debian has all of them below /usr
        if os.path.islink(link):
            root.link(link)
    interpreter = os.path.realpath(sys.executable)
    root.copy(interpreter)
    (root.path / interpreter.lstrip("/")).with_name("python3").symlink_to(os.path.basename(interpreter))
    objects = [interpreter, *root.standard_library(), *root.tree(packages)]
    udev = library("libudev.so.1")
    for path in (udev, *libraries([*objects, udev])):
        root.copy(path)
    root.copy(LDCONFIG)
    root.copy(CERTIFICATES)
    for program in programs:
        root.program(program, os.path.join(os.path.dirname(interpreter), "python3"))
    root.write("etc/passwd", ACCOUNTS)
    root.write("etc/group", GROUPS)
    root.write("etc/nsswitch.conf", "hosts: files dns\n")
    subprocess.run([LDCONFIG, "-r", root.path], check=True)
    compileall.compile_dir(root.path, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, stripdir=str(root.path))
    root.write(SBOM, json.dumps(bill(root.sources, packages), indent=1))


class Root:
    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.sources: set[str] = set()
        """Where files were copied from."""

    def copy(self, source: str) -> None:
        """A file, to the same place; behind a link the file it means, too."""
        target = self.path / source.lstrip("/")
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(source):
            target.symlink_to(os.readlink(source))
            self.copy(os.path.join(os.path.dirname(source), os.readlink(source)))
        else:
            shutil.copy(source, target)
            target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        self.sources.add(source)

    def link(self, source: str) -> None:
        target = self.path / os.readlink(source).lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        (self.path / source.lstrip("/")).symlink_to(os.readlink(source))

    def tree(self, top: str) -> list[str]:
        """A directory of packages, without their tests; its shared objects."""
        return self._files(top, lambda name: name not in TESTS, lambda name: not name.endswith(FOR_BUILDING))

    def standard_library(self) -> list[str]:
        """Its shared objects."""
        return self._files(
            sysconfig.get_path("stdlib"),
            lambda name: name.partition("-")[0] not in LEFT_OUT,
            lambda name: not name.startswith(LIBRARIES_LEFT_OUT) and not name.endswith((".a", ".exe", ".bat", ".pyc")),
        )

    def _files(self, top: str, enter, take) -> list[str]:
        objects = []
        for directory, names, files in os.walk(top):
            names[:] = filter(enter, names)
            for name in filter(take, files):
                source = os.path.join(directory, name)
                self.copy(source)
                if ".so" in name:
                    objects.append(source)
        return objects

    def program(self, source: str, interpreter: str) -> None:
        """A script, for this interpreter: there is no /usr/bin/env."""
        _, _, body = pathlib.Path(source).read_text().partition("\n")
        name = f"usr/local/bin/{os.path.basename(source)}"
        self.write(name, f"#!{interpreter}\n{body}")
        (self.path / name).chmod(0o755)

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o644)


def libraries(objects: list[str]) -> set[str]:
    """Paths of the shared objects that these load, the dynamic linker among them."""
    found: set[str] = set()
    for start in range(0, len(objects), 100):
        said = subprocess.run(["ldd", *objects[start : start + 100]], check=False, capture_output=True, text=True).stdout
        found |= set(re.findall(r"(/\S+) \(0x", said))
    return found


def library(name: str) -> str:
    """Path of a library by the linker's cache."""
    said = subprocess.run([LDCONFIG, "-p"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[-1] for line in said.splitlines() if line.split()[:1] == [name])


# --- what is inside -----------------------------------------------------------------------------------------------------------------------


def bill(sources: set[str], packages: str) -> dict:
    """A software bill of materials, CycloneDX 1.5: Python, its packages, and Debian's packages of which files were copied."""
    python = {"type": "application", "name": "python", "version": platform.python_version(), "licenses": [{"license": {"id": "PSF-2.0"}}]}
    found = [python, *python_packages(packages), *debian_packages(sources)]
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": found}


def python_packages(directory: str) -> list[dict]:
    found = []
    for package in importlib.metadata.distributions(path=[directory]):
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        part = {"type": "library", "name": name, "version": package.version, "purl": f"pkg:pypi/{name}@{package.version}"}
        if license_ := package.metadata.get("License-Expression"):
            part["licenses"] = [{"expression": license_}]
        found.append(part)
    return sorted(found, key=lambda part: part["name"])


def debian_packages(sources: set[str]) -> list[dict]:
    """Those that own one of the files; none where there is no dpkg."""
    database = pathlib.Path("/var/lib/dpkg")
    merged = sources | {f"/usr{path}" for path in sources}
    owners = {
        listing.stem.partition(":")[0]
        for listing in database.glob("info/*.list")
        if not merged.isdisjoint({f"/usr{line}" if not line.startswith("/usr") else line for line in listing.read_text().splitlines()})
    }
    release = re.search(r"^VERSION_ID=\"?([^\"\n]+)", pathlib.Path("/etc/os-release").read_text(), re.M)
    distro = f"&distro=debian-{release[1]}" if release else ""
    found = []
    for entry in (database / "status").read_text().split("\n\n") if owners else []:
        fields = dict(re.findall(r"^(Package|Version|Architecture): (.*)$", entry, re.M))
        if fields.get("Package") in owners:
            purl = f"pkg:deb/debian/{fields['Package']}@{fields['Version']}?arch={fields['Architecture']}{distro}"
            found.append({"type": "library", "name": fields["Package"], "version": fields["Version"], "purl": purl})
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
