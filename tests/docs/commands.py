"""Whether a command in a document can work: the program is known, and what it is given exists."""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from nursery_apps.controller import flags as controller_flags
from nursery_apps.kubectl import flags as kubectl_flags
from nursery_apps.kubectl.commands import COMMANDS
from nursery_apps.node import flags as node_flags
from tests.docs.markdown import ROOT
from tests.manifests import rendered

PATHS: Final = re.compile(r"(?<![\w/-])(?:\.ci|dra|docs|manifests|nursery_apps|tests|tools)(?:/[\w.*<>-]+)+/?")
"""What looks like a path from the repository's root."""
NAMESPACES: Final = ("intel-gpu-dra", "intel-gpu-resource-driver", "gpu-monitoring")

OTHERS: Final = {
    "cat": "of the node", "ls": "of the node", "df": "of the node", "fuser": "of the node", "journalctl": "of the node",
    "lspci": "of the node",    "tail": "of the node", "base64": "of the administrator's machine", "sed": "of the administrator's machine",
    "containerd": "of the node", "crio": "of the node", "ctr": "of the node", "modprobe": "of the node", "ps": "of the node",
    "stat": "of the node", "dmesg": "of the node", "grep": "of the node", "openssl": "of the administrator's machine",
    "skopeo": "of the administrator's machine", "bash": "a shell to look around in", "curl": "of the administrator's machine",
    "pip": "installs this tree", "pipx": "installs this tree", "jq": "of the administrator's machine",
}  # fmt: skip
"""Other people's programs, by why their arguments are not looked at beyond paths of ours."""

EXCUSED: Final[dict[str, str]] = {}
"""Commands that begin so -> why they are not looked at."""

NODE_COMMANDS: Final = ("run", "discover", "plan", "record", "reload")
CONTROLLER_COMMANDS: Final = ("run", "plan", "taint", "cleanup")

VERBS: Final = {
    "auth", "annotate", "api-resources", "apply", "cordon", "create", "debug", "delete", "describe", "drain", "edit", "exec", "explain",
    "get", "kustomize", "label", "logs", "patch", "port-forward", "rollout", "run", "scale", "top", "uncordon", "version", "wait",
}  # fmt: skip
"""Of kubectl, that documents use."""


class Wrong(Exception):
    """What is wrong with it."""


def judge(text: str) -> None:
    """What is missing of a command that is only named does not count: `gpu-controller taint`.

    Raises:
        Wrong: it cannot work, or nobody knows how to tell.
    """
    for path in PATHS.findall(text):
        _exists(path)
    for words in _split(text):
        _one(words)


def _split(text: str) -> Iterator[list[str]]:
    """The commands of a line, without redirections; what is optional in it is taken, of alternatives the first."""
    plain = re.sub(r"\[([^\[\]|]+?) \| [^\[\]]*\]", r"\1", text)
    plain = re.sub(r"\[(-[^\[\]]*)\]", r"\1", plain).replace("…", "")
    plain = re.sub(r"<([\w ]+)>", lambda match: match[1].upper().replace(" ", "_"), plain)
    plain = re.sub(r"\[[\w' ]+\]$", "", plain)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise Wrong(f"cannot be read as a command: {error}") from None
    skip = False
    for token in tokens:
        if skip:
            skip = False
        elif set(token) <= set("|&;()"):
            if words:
                yield words
            words = []
        elif set(token) <= set("<>"):
            skip = True
            if words and words[-1].isdigit():
                words.pop()
        else:
            words.append(token)
    if words:
        yield words


def _one(words: Sequence[str]) -> None:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words:
        return
    program, rest = words[0].removeprefix(".venv/bin/"), list(words[1:])
    if any(" ".join(words).startswith(start) for start in EXCUSED):
        return
    if program in OTHERS:
        return
    if program == ".ci/run":
        return
    if program.startswith("tools/"):
        _tool(program.removeprefix("tools/"), rest)
    elif (check := _PROGRAMS.get(program)) is not None:
        check(rest)
    else:
        raise Wrong(f"nobody knows how to check {program!r}: say it in tests/docs/commands.py")


def _exists(path: str) -> None:
    if any(mark in path for mark in "*<>"):
        return
    if not (ROOT / path.rstrip("/.")).exists() and not (ROOT / path).exists():
        raise Wrong(f"{path} does not exist")


# --- programs of ours --------------------------------------------------------------------------------------------------------------------


def _never(_options: object) -> int:
    raise AssertionError


def _made(parser: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """With every subcommand that there is."""
    _, *commands = inspect.signature(parser).parameters
    return parser({}, **dict.fromkeys(commands, _never))


def _node(rest: list[str]) -> None:
    parsed = _parsed(lambda: _made(node_flags.parser).parse_args(rest))
    if parsed and "discover" in rest and any(word.startswith("tools/machines/") for word in rest):  # not a reader's own file
        done = subprocess.run([sys.executable, "-m", "nursery_apps.node", *rest], cwd=ROOT, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Wrong(f"exit code {done.returncode}: {done.stderr}")


def _controller(rest: list[str]) -> None:
    _parsed(lambda: _made(controller_flags.parser).parse_args(rest))


def _parsed(parse: Callable[[], object]) -> bool:
    """False for --help and --version."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            parse()
    except SystemExit as end:
        if end.code and "arguments are required" not in told.getvalue():
            raise Wrong(told.getvalue().strip().splitlines()[-1]) from None
        return False
    return True


def _tool(name: str, rest: list[str]) -> None:
    script = ROOT / "tools" / name
    if script.is_dir() or script.suffix in (".lock", ".in", ".txt"):
        return  # named as a path
    if not script.is_file() or not os.access(script, os.X_OK):
        raise Wrong(f"tools/{name} is no command")
    if "--" in rest:
        if inner := rest[rest.index("--") + 1 :]:
            _one(inner)
        rest = rest[: rest.index("--")]
    if name == "test":
        return  # pytest's arguments; paths were looked at
    known = _words_of(script)
    for word in rest:
        flag, _, _ = word.partition("=")
        if flag.startswith("--") and flag not in known:
            raise Wrong(f"tools/{name} has no {flag}")
    for word in rest[:1]:
        if re.fullmatch(r"[a-z][a-z-]*", word) and word not in known:
            raise Wrong(f"tools/{name} has no {word}")


@functools.cache
def _words_of(script: Path) -> frozenset[str]:
    """Words that the program's sources spell: a flag or a subcommand that it knows is among them."""
    text = script.read_text()
    for package in re.findall(r"-m tools\.(\w+)", text):
        text += "".join(path.read_text() for path in sorted((ROOT / "tools" / package).rglob("*.py")))
    return frozenset(re.findall(r"--[a-z][a-z-]*|[a-z][a-z-]*", text))


# --- kubectl and its like -----------------------------------------------------------------------------------------------------------------


def _kubectl(rest: list[str]) -> None:
    words = list(rest)
    if words[:1] == ["intel-gpu"]:
        _parsed(lambda: kubectl_flags.parser(COMMANDS).parse_args(words[1:]))
        return
    if "--" in words:
        if inner := words[words.index("--") + 1 :]:
            _one(inner)
        words = words[: words.index("--")]
    plain, flags = _flags(
        words, values={"-n", "--namespace", "-k", "-f", "-o", "-c", "-l", "--type", "-p", "--api-group", "--cert", "--key"}
    )
    if not plain or plain[0] not in VERBS:
        raise Wrong(f"nobody knows how to check kubectl {plain[:1]}: say it in tests/docs/commands.py")
    namespace = flags.get("-n") or flags.get("--namespace")
    if namespace and namespace not in NAMESPACES and not namespace.isupper() and namespace not in ("default", "kube-system", "monitoring"):
        raise Wrong(f"no manifest of ours makes a namespace {namespace}")
    for flag in ("-k", "-f"):
        if target := flags.get(flag):
            if target == "-" or target.startswith(("http:", "https:")):
                continue
            if not (ROOT / target).exists():
                raise Wrong(f"{target} does not exist")
            if flag == "-k" and not rendered.render(os.path.relpath(ROOT / target, rendered.KUSTOMIZE)):
                raise Wrong(f"{target} makes nothing")
            if flag == "-f" and (ROOT / target).is_file() and not any(yaml.safe_load_all((ROOT / target).read_text())):
                raise Wrong(f"{target} has no object")


def _flags(words: list[str], *, values: set[str]) -> tuple[list[str], dict[str, str]]:
    """(words without flags, flag -> value); `values` are those that take the next word."""
    plain, found, ahead = [], {}, iter(words)
    for word in ahead:
        if not word.startswith("-") or word == "-":
            plain.append(word)
        elif "=" in word:
            found.update([word.split("=", 1)])
        else:
            found[word] = next(ahead, "") if word in values else ""
    return plain, found


def _kind(rest: list[str]) -> None:
    match rest:
        case ["create", "cluster", "--config", file]:
            if file.endswith(".yaml") and _kinds(file)[0] != "Cluster":
                raise Wrong(f"{file} is no cluster of kind")
        case ["load", "image-archive", _] | ["delete", "cluster"]:
            pass
        case _:
            raise Wrong(f"nobody knows how to check kind {' '.join(rest)}")


def _kinds(file: str) -> list[str]:
    return [doc["kind"] for doc in yaml.safe_load_all((ROOT / file).read_text())]


def _kubeadm(rest: list[str]) -> None:
    match rest:
        case ["init", "--config", file]:
            if _kinds(file)[0] != "ClusterConfiguration":
                raise Wrong(f"{file} is no configuration of kubeadm")
        case _:
            raise Wrong(f"nobody knows how to check kubeadm {' '.join(rest)}")


def _helm(rest: list[str]) -> None:
    """Charts exist, and values that are set are among theirs."""
    charts = [word for word in rest if word.startswith("manifests/helm/")]
    for chart in charts:
        values = yaml.safe_load((ROOT / chart / "values.yaml").read_text())
        for flag, setting in itertools.pairwise(rest):
            if flag in ("--set", "--set-string"):
                place = values
                for key in setting.partition("=")[0].split("."):
                    if place == {} or place is None:
                        break  # free-form below
                    if not isinstance(place, dict) or key not in place:
                        raise Wrong(f"{chart} has no value {setting.partition('=')[0]}")
                    place = place[key]
    known = {"install", "upgrade", "uninstall", "show", "template", "lint", "package", "push", "get", "list", "rollback", "test"}
    if not rest or rest[0] not in known:
        raise Wrong(f"nobody knows how to check helm {rest[:1]}")


def _docker(rest: list[str]) -> None:
    match rest:
        case ["build", "-f", file, *_] if (ROOT / file).is_file():
            pass
        case ["push" | "pull" | "load" | "tag", *_]:
            pass
        case _:
            raise Wrong("of docker only `build -f FILE` and the carrying of images is known")


def _git(rest: list[str]) -> None:
    if rest[:1] and rest[0] not in {"clone", "switch", "pull", "diff", "commit", "tag", "branch", "cherry-pick", "fetch", "rebase", "push"}:
        raise Wrong(f"nobody knows how to check git {rest[:1]}")


_PROGRAMS: Final[dict[str, Callable[[list[str]], None]]] = {
    "gpu-node-plugin": _node, "gpu-controller": _controller, "kubectl": _kubectl, "kind": _kind, "kubeadm": _kubeadm, "helm": _helm,
    "docker": _docker, "git": _git,
}  # fmt: skip
OURS: Final = ("gpu-node-plugin", "gpu-controller", "tools/", ".venv/bin/", "kubectl ", "helm ")
"""A quoted word that begins so and goes on is a command."""
