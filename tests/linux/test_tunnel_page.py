"""The shell commands of docs/guide/tunnel.md join two network namespaces on one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

PAGE = Path(__file__).parents[2] / "docs/guide/tunnel.md"
MAKE_KEY = ".venv/bin/python -m tunring.examples.tunnel --make-key tunnel.key"
#: The page's commands for the end, which are in its text.
END = ("kill %1 %2", "ip netns del one", "ip netns del two")
#: The names that "ip netns" gives belong to this run, and everything ends with it.
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
PRIVATE_NAMES = "mkdir -p /run/netns && mount -t tmpfs tunring /run/netns"


def test_both_hosts_on_one_machine(tmp_path: Path) -> None:
    before, _, after = PAGE.read_text("utf-8").partition("### Both hosts on one machine\n")
    block, text = re.fullmatch(r".*?```sh\n(.*?)```\n(.*)", after, re.DOTALL).groups()
    assert MAKE_KEY in before
    assert all(f"`{command}`" in text for command in END)
    kill, *removals = END
    script = "\n".join(["set -e", PRIVATE_NAMES, MAKE_KEY, block, kill, "wait", *removals])
    script = script.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        [*APART, "bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 packets transmitted, 3 received" in done.stdout
