"""A child that is forked while another thread loads a library: the library is whole there, too."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from forks import BEGIN
from running import check_script

FUNCTIONS = re.findall(r"X\((Wintun\w+)", (Path(__file__).parents[2] / "include/wintun.h").read_text("utf-8"))

# Its constructor, as relocating a larger library would, takes a while. The driver's version shows that it has ended.
SLOW = """
#include <unistd.h>
static unsigned version;
__attribute__((constructor)) static void begin(void)
{
    if (write(BEGUN, "x", 1) == 1)
        usleep(300000);
    version = 0x00010002;
}
unsigned WintunGetRunningDriverVersion(void) { return version; }
"""


def test_a_fork_while_a_library_is_loaded(tmp_path: Path) -> None:
    lines = [f"void *{name}(void) {{ return 0; }}" for name in FUNCTIONS if name != "WintunGetRunningDriverVersion"]
    (tmp_path / "slow.c").write_text(SLOW + "\n".join(lines) + "\n")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, "-DBEGUN=900", "-shared", "-fPIC", "-o", tmp_path / "slow.so", tmp_path / "slow.c"]
    subprocess.run(command, check=True)
    check_script(
        BEGIN
        + f"""
path = {str(tmp_path / "slow.so")!r}
begun, write_end = os.pipe()
os.dup2(write_end, 900)
def load():
    assert tunring.running_driver_version(tunring.load(path)) == (1, 2)
thread = threading.Thread(target=load)
thread.start()
assert os.read(begun, 1) == b"x"
child(load)
thread.join()
left.close(); right.close()
"""
    )
