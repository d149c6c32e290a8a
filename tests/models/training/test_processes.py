"""Several processes on one machine: all are told who they are, and none outlives the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scenelift.models.training.processes import launch

PARENT = """
import sys
from scenelift.models.training.processes import launch
sys.exit(launch(sys.argv[1:], 2))
"""


def command(text):
    return [sys.executable, "-c", text]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_every_process_is_told_its_rank(tmp_path):
    text = f"import os; open(r'{tmp_path}/' + os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'])"
    assert launch(command(text), 2) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2", "1": "2"}


def test_the_status_of_the_first_failure_is_returned_and_the_others_end(tmp_path):
    text = f"""
import os, sys, time
if os.environ["RANK"] == "1":
    while not os.path.exists(r"{tmp_path}/pid"):
        time.sleep(0.05)
    sys.exit(2)
open(r"{tmp_path}/part", "w").write(str(os.getpid()))
os.rename(r"{tmp_path}/part", r"{tmp_path}/pid")
time.sleep(600)
"""
    done = subprocess.run([*command(PARENT), *command(text)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "")
    assert not is_alive(int((tmp_path / "pid").read_text()))


CHILD = """
import os, signal, time
signal.signal(signal.SIGINT, lambda *facts: os._exit(130))
rank = os.environ["RANK"]
open("{folder}/part" + rank, "w").write(str(os.getpid()))
os.rename("{folder}/part" + rank, "{folder}/" + rank)
time.sleep(600)
"""
STARTING = """
import time
from torch.distributed.elastic.multiprocessing import api
begin = api.get_subprocess_handler
def slowly(*args, **kwargs):
    begun = begin(*args, **kwargs)
    time.sleep(2)
    return begun
api.get_subprocess_handler = slowly
"""


@pytest.mark.parametrize("begun", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_stopped_while_it_starts_processes_leaves_none(tmp_path, number, begun):
    text = CHILD.format(folder=tmp_path)
    launcher = subprocess.Popen([*command(STARTING + PARENT), *command(text)], stderr=subprocess.PIPE, text=True)
    files = [tmp_path / f"{rank}" for rank in range(begun)]
    assert wait_for(lambda: all(file.exists() for file in files))
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert "Traceback" not in said
    assert wait_for(lambda: not any(is_alive(int(file.read_text())) for file in tmp_path.glob("[01]")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_launcher_ends_its_processes(tmp_path, number):
    text = CHILD.format(folder=tmp_path)
    launcher = subprocess.Popen([*command(PARENT), *command(text)], stderr=subprocess.PIPE, text=True)
    files = [tmp_path / "0", tmp_path / "1"]
    assert wait_for(lambda: all(file.exists() for file in files))
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert "Traceback" not in said
    assert wait_for(lambda: not any(is_alive(int(file.read_text())) for file in files))
