"""Places to run: what a table may say, what a batch system is asked, and workers that are not what they should be."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed.security import Security

from scenelift.pipeline.cluster import Cluster, ClusterSettings, open_cluster
from scenelift.pipeline.cluster.backends import GPU_THREADS, queue_cluster
from scenelift.pipeline.cluster.workers import carried, identity, mismatch
from scenelift.pipeline.errors import UsageError
from scenelift.pipeline.jobs.locks import HeldError, Lock

ROOT = Path(__file__).parents[3]

TABLE = {
    "kind": "slurm",
    "workers": 2,
    "maximum": 20,
    "cores": 8,
    "processes": 2,
    "memory": "32GB",
    "walltime": "02:00:00",
    "queue": "gpu",
    "account": "earth",
    "directives": ["--gres=gpu:1"],
    "prologue": ["module load gdal"],
    "lifetime": "110 minutes",
    "environment": {"GDAL_HTTP_MAX_RETRY": "a b"},
    "resources": {"GPU": 0.5},
}


def test_a_table_gives_settings_and_settings_give_it_back() -> None:
    settings = ClusterSettings.of(TABLE)
    assert settings.maximum == 20 and settings.job.queue == "gpu" and settings.threads == 4
    assert ClusterSettings.of(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_the_driver_has_as_many_threads_as_its_workers_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scenelift.pipeline.cluster.settings.cores", lambda: 16)
    for settings, wanted in (
        ({}, 16),
        ({"workers": 0}, 16),  # a model has as many in this process
        ({"workers": 1}, 16),
        ({"workers": 5}, 15),
        ({"workers": 40}, 16),
        ({"gpus": 1}, 16),
        ({"scheduler": "tcp://127.0.0.1:1"}, 16),
        ({"kind": "slurm", "workers": 2}, 16),
    ):
        assert ClusterSettings(**settings).own_threads == wanted, settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coers": 4}, "unknown key cluster.coers; did you mean cores?"),
        ({"cores": "4"}, 'cluster.cores must be a whole number, got "4"'),
        ({"cores": True}, "cluster.cores must be a whole number, got true"),
        ({"tls": 1}, "cluster.tls must be true or false, got 1"),
        ({"directives": "--gres=gpu:1"}, "cluster.directives must be a list, got"),
        ({"directives": [1]}, "cluster.directives[0] must be a text, got 1"),
        ({"environment": {"A": 1}}, "cluster.environment.A must be a text, got 1"),
        ({"environment": 1}, "cluster.environment must be a table, got 1"),
        ({"job": 3}, "cluster.job must be a table, got 3"),
        ({"resources": {"GPU": 0}}, "numbers above 0"),
        ({"kind": "slrum"}, "kind must be one of"),
        ({"workers": 0, "maximum": None}, "needs a maximum"),
        ({"workers": 30}, "maximum must be from 30"),
        ({"processes": 9}, "at least one core a process"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "exclude each other"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        ClusterSettings.of(TABLE | change)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("slurm", ["#SBATCH -p gpu", "#SBATCH -A earth", "#SBATCH -t 02:00:00", "#SBATCH --mem=30G"]),
        ("pbs", ["#PBS -q gpu", "#PBS -A earth", "#PBS -l walltime=02:00:00", "mem=30GB"]),
        ("lsf", ["#BSUB -q gpu", '#BSUB -P "earth"', "#BSUB -W 02:00", "#BSUB -n 8"]),
        ("sge", ["#$ -q gpu", "#$ -P earth", "#$ -l h_rt=02:00:00"]),
    ],
)
def test_job_scripts(kind: str, wanted: list[str], tmp_path: Path) -> None:
    walltime = "02:00" if kind == "lsf" else "02:00:00"
    table = TABLE | {
        "kind": kind,
        "walltime": walltime,
        "log_directory": str(tmp_path / "jobs"),
        "tls": kind == "slurm",
    }
    settings = ClusterSettings.of(table)
    with queue_cluster(settings, carried(settings.environment)) as cluster:
        script = cluster.job_script()
    for words in [*wanted, "gres=gpu:1", "module load gdal", "export GDAL_HTTP_MAX_RETRY='a b'"]:
        assert words in script, script
    worker = script.splitlines()[-1]
    for words in ["--nworkers 2", "--lifetime '110 minutes'", "--lifetime-stagger '2 minutes'", "--resources GPU=1"]:
        assert words in worker
    assert ("--tls-key" in worker) == (kind == "slurm")
    assert worker.index("--nthreads 4") < worker.index(f"--nthreads {GPU_THREADS}")  # the last one counts


def test_what_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no `qsub` here"), open_cluster(ClusterSettings(1, kind="pbs")):
        pass
    for module, extra, settings in (
        ("dask_cuda", "cuda", ClusterSettings(kind="cuda")),
        ("dask_jobqueue", "jobqueue", ClusterSettings(1, kind="slurm")),
    ):
        (tmp_path / "sbatch").touch(mode=0o755)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError, match=rf"scenelift\[{extra}\]"), open_cluster(settings):
            pass


def test_variables_of_gdal_travel_and_secrets_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    monkeypatch.setenv("GDAL_HTTP_HEADERS", "secret")
    monkeypatch.setenv("GDAL_HTTP_USERPWD", "secret")
    monkeypatch.setenv("GDAL_DATA", "/here")
    found = carried({"OWN": "1"})
    assert found["GDAL_HTTP_TIMEOUT"] == "7" and found["OWN"] == "1"
    assert not {"GDAL_HTTP_HEADERS", "GDAL_HTTP_USERPWD", "GDAL_DATA"} & set(found)


def test_a_requeued_job_takes_over_from_its_former_self(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hold(job: str, life: str) -> Lock:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", life)
        return Lock(tmp_path)

    for job, life, free in (("7", "0", False), ("8", "1", False), ("7", "1", True)):
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("socket.gethostname", lambda: "another")
            former = hold("7", "0").__enter__()
        with contextlib.nullcontext() if free else pytest.raises(HeldError), hold(job, life):
            pass
        former.__exit__()


def test_another_version_is_told_in_a_line() -> None:
    here = identity()
    assert mismatch(here, dict(here), "w", "/x") is None
    line = mismatch(here, here | {"torch": "1.0"}, "w", "/x")
    assert line is not None and f"torch 1.0 instead of {here['torch']}" in line and "\n" not in line


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """TLS keys in files."""
    folder, made = tmp_path_factory.mktemp("tls"), Security.temporary()
    files = {"ca": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    for name, text in files.items():
        (folder / name).write_text(str(text))
    return {name: str(folder / name) for name in files}


@contextlib.contextmanager
def dask_command(*args: str, **environment: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", *args], env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def scheduler(folder: Path, keys: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Start a scheduler with TLS; gives its address and the options of its workers."""
    file = folder / "scheduler.json"
    tls = [f"--tls-{name}={path}" for name, path in (("ca-file", keys["ca"]), *list(keys.items())[1:])]
    options = ["--protocol=tls", "--host=127.0.0.1", "--port=0", "--dashboard-address=127.0.0.1:0", *tls]
    with dask_command("distributed.cli.dask_scheduler", *options, f"--scheduler-file={file}"):
        end = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < end
            time.sleep(0.05)
        worker = [*tls, "--no-nanny", "--nthreads=1", "--no-dashboard", "--host=127.0.0.1"]
        address = json.loads(file.read_text())["address"]
        yield address, ["distributed.cli.dask_worker", address, *worker, f"--local-directory={folder}"]


def ask(number: int) -> str:
    return f"{number} {os.environ.get('GDAL_HTTP_TIMEOUT')} {os.environ.get('OWN')}"


def run(place: Cluster, items: list[int]) -> list[str]:
    return sorted(place.run(ask, items))


def test_workers_that_run_already(tmp_path: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    decoy = tmp_path / "decoy" / "scenelift"
    for room in ("pipeline", "models", "workflows"):
        shutil.copytree(ROOT / room, decoy / room, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    with (decoy / "models" / "classical" / "resampling.py").open("a") as file:
        file.write("# changed\n")
    files = {f"tls_{name}": path for name, path in keys.items()}
    tests = str(Path(__file__).parent)
    with scheduler(tmp_path, keys) as (address, worker):
        settings = ClusterSettings(scheduler=address, environment={"OWN": "1"}, **files)
        with open_cluster(settings) as place:
            with dask_command(*worker, PYTHONPATH=tests, GDAL_HTTP_TIMEOUT="1"):
                assert run(place, [1, 2]) == ["1 7 1", "2 7 1"], "settings go along"
            with dask_command(*worker, PYTHONPATH=os.pathsep.join([str(decoy.parent), tests])):
                with pytest.raises(UsageError, match=r"has scenelift's code \w+ instead of \w+") as late:
                    run(place, [1])
                assert str(decoy) in str(late.value)
                with pytest.raises(UsageError, match="one environment"), open_cluster(settings):
                    pass
        with (
            pytest.raises(UsageError, match="no such TLS file"),
            open_cluster(dataclasses.replace(settings, tls_ca=str(tmp_path / "nothing"))),
        ):
            pass
