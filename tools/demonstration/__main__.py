"""The stories of `tools/demo`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time

from tools.demonstration import classic, gpus, vf
from tools.demonstration.stage import ROOT, NotAsExpected, Stage, on_stage, short_directory
from tools.demonstration.telling import console, say

STORIES = {"gpus": gpus, "vf": vf, "classic": classic}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/demo", description="Show the driver at work on a fake machine.")
    parser.add_argument(
        "--story", choices=STORIES, default="gpus", help="whole GPUs; VFs and a virtual machine; classic DRA (default: %(default)s)"
    )
    parser.add_argument("--machine", help="a file of tools/machines (default: one that the story is about)")
    parser.add_argument("--kubernetes", help="release that the control plane plays (default: 1.37, of classic DRA 1.28)")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Enter or Ctrl-C")
    options = parser.parse_args()
    story = STORIES[options.story]
    options.machine = options.machine or story.MACHINE
    options.kubernetes = options.kubernetes or story.RELEASE
    if options.story == "vf" and options.machine not in vf.MACHINES:
        parser.error(f"--machine: the story of VFs is about {' or '.join(vf.MACHINES)}")
    directory = short_directory()
    started = time.monotonic()
    try:
        with on_stage(story.STAGE, directory, str((ROOT / options.machine).resolve())) as stage:
            story.tell(stage, options)
            if options.keep:
                keep(stage)
    except NotAsExpected as error:
        console.print(f"\n[bold red]It did not happen:[/] {error}", markup=True)
        for log in sorted(directory.glob("*.log")):
            console.print(f"Last words in {log}:", style="dim")
            for line in log.read_text().splitlines()[-15:]:
                console.print("  " + line, style="dim", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    shutil.rmtree(directory)
    console.print(f"\n[bold green]All of it happened[/], in {time.monotonic() - started:.0f} s. Nothing is left behind.")
    return 0


def keep(stage: Stage) -> None:
    stage.start_plugin()
    console.print("\nLeft running. Try, in another terminal:")
    say(f"tools/sim {stage.state_dir}/simulator.sock state")
    say(f"curl {stage.url}/apis/resource.k8s.io/v1/resourceslices")
    say(f"tail -f {stage.plugin_log}")
    console.print("Enter ends it.")
    sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
