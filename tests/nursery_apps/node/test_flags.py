"""The command line as an administrator uses it."""

from __future__ import annotations

import argparse

import pytest

from nursery_apps.node import flags


def named(name: str) -> flags.Command:
    def command(options: argparse.Namespace) -> int:
        raise AssertionError(name)

    return command


RUN, DISCOVER, PLAN, RELOAD, RECORD = (named(each) for each in ("run", "discover", "plan", "reload", "record"))


def parse(*argv: str, **environ: str) -> argparse.Namespace:
    return flags.parser(environ, run=RUN, discover=DISCOVER, plan=PLAN, reload=RELOAD, record=RECORD).parse_args(argv)


def test_without_anything_the_daemon_runs_with_the_usual_places() -> None:
    options = parse()
    assert options.command is RUN
    assert (options.kubelet_root, options.cdi_root, options.sysfs_root, options.dev_root) == (
        "/var/lib/kubelet",
        "/var/run/cdi",
        "/sys",
        "/dev",
    )
    assert (options.config, options.simulate, options.node_name, options.log_format) == (None, None, None, "text")


@pytest.mark.parametrize("name", ["config", "kubeconfig", "node-name", "kubelet-root", "cdi-root", "sysfs-root", "dev-root", "simulate"])
def test_each_flag_has_a_variable_of_its_name_and_the_flag_wins(name: str) -> None:
    attribute = name.replace("-", "_")
    assert getattr(parse(**{attribute.upper(): "from the environment"}), attribute) == "from the environment"
    assert getattr(parse(f"--{name}", "said", **{attribute.upper(): "from the environment"}), attribute) == "said"


@pytest.mark.parametrize("argv", [("--simulate", "m.json", "discover", "--json"), ("discover", "--json", "--simulate", "m.json")])
def test_flags_count_before_and_after_the_command(argv: tuple[str, ...]) -> None:
    options = parse(*argv)
    assert (options.command, options.simulate, options.json, options.sysfs_root) == (DISCOVER, "m.json", True, "/sys")


def test_a_wrong_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--log-format", "xml")
    assert ended.value.code == 2
    assert "xml" in capsys.readouterr().err
