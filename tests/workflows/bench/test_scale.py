"""What is submitted, what scale costs, and a simulation that agrees with arithmetic where arithmetic is enough."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import call

from scenelift.pipeline.cluster import ClusterSettings, JobSettings
from scenelift.pipeline.errors import UsageError
from scenelift.workflows.bench.simulation import Machine, knee, simulate, sweep
from scenelift.workflows.bench.stress import Stress, run_stress
from scenelift.workflows.cli.options import Where
from scenelift.workflows.cli.submit import SubmitSettings, script

PLAIN = Machine(compute_s=2.0, read_mb=0, write_mb=0, scheduler_s=0, start_s=0, jitter=0)


def test_one_undisturbed_worker_takes_the_sum_of_its_blocks() -> None:
    assert simulate(PLAIN, 1, 10).seconds == pytest.approx(20)
    assert simulate(PLAIN, 5, 10).efficiency == pytest.approx(1)
    assert simulate(replace(PLAIN, start_s=20), 1, 10).efficiency == pytest.approx(0.5)


def test_with_one_slot_reading_computing_and_writing_add_up() -> None:
    machine = replace(PLAIN, slots=1, read_mb=1000, write_mb=3000)
    assert simulate(machine, 1, 10).seconds == pytest.approx(10 * (1 + 2 + 3))
    assert simulate(replace(machine, slots=3), 1, 100).seconds == pytest.approx(300, rel=0.03), "writing alone binds"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("the scheduler", {"scheduler_s": 0.01}),
        ("reading", {"read_mb": 100.0, "read_mb_s": 10_000.0}),
        ("writing", {"write_mb": 200.0, "write_mb_s": 20_000.0}),
    ],
)
def test_past_the_knee_the_shared_thing_sets_the_pace(name: str, change: dict[str, float]) -> None:
    machine = replace(PLAIN, **change)
    assert machine.limits()[name] == pytest.approx(200)
    outcomes = sweep(machine, None, [50, 150, 400], each=50)
    assert outcomes[0].efficiency > 0.9 and outcomes[1].efficiency > 0.8
    assert outcomes[2].efficiency == pytest.approx(200 / 400, rel=0.05)
    assert knee(outcomes) == 150


def test_the_same_seed_gives_the_same_figures() -> None:
    machine = replace(PLAIN, jitter=0.3)
    assert simulate(machine, 7, 100, seed=1) == simulate(machine, 7, 100, seed=1) != simulate(machine, 7, 100, seed=2)
    with pytest.raises(UsageError, match="compute must be above 0"):
        replace(PLAIN, compute_s=0)


def test_stress_takes_the_path_of_real_blocks() -> None:
    one, bunched = run_stress([Stress(40, 0.01), Stress(40, per_task=20)], ClusterSettings(1))
    assert one.blocks == 40 and one.wall_s >= 0.4 and one.overhead is not None and 0 < one.overhead < 1
    assert bunched.overhead is None and bunched.driver_cpu_ms_per_block > 0
    with pytest.raises(UsageError, match="positive multiple"):
        Stress(10, per_task=3)


def test_scripts_are_shell_and_say_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    job = JobSettings(cores=4, memory="16GB", walltime="01:00:00", queue="gpu", directives=("--gres=gpu:1",))
    text = script(("archive", "in/*.tif", "-o", "out dir"), SubmitSettings(8, job))
    for words in (
        *("--array=0-7\n", "--time=01:00:00\n", "--mem=16G\n", "--partition=gpu\n", "--gres=gpu:1\n", "--requeue\n"),
        *(f"cd '{folder}' || exit 2", "archive 'in/*.tif' -o 'out dir' --share --workers 4 &"),
    ):
        assert words in text, text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert "--array" not in script(("resume", "x.tif"), SubmitSettings(job=job))
    for command, array, words in ((("score",), None, "one of the commands"), (("enhance",), 2, "of an archive")):
        with pytest.raises(UsageError, match=words):
            script(command, SubmitSettings(array, job))


def test_the_place_is_read_from_file_keys_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('[cluster]\nkind = "slurm"\nworkers = 2\nmaximum = 8\ncores = 4\n')
    found = Where(3, None, str(file), ("maximum=9", "memory=8GB", "tls=false")).settings()
    assert (found.workers, found.maximum, found.job.cores, found.job.memory, found.tls) == (3, 9, 4, "8GB", False)
    assert Where().settings() == ClusterSettings()
    for cluster, options, words in (
        ("slrum", (), "cluster must be one of"),
        (str(tmp_path / "none.toml"), (), "cannot read"),
        ("slurm", ("maximum",), "KEY=VALUE"),
        ("slurm", ("maximum=x",), 'cluster_option: cluster.maximum must be a whole number, got "x"'),
        (str(file), ("maximum=1",), "cluster.toml: cluster maximum must be from 2"),
    ):
        with pytest.raises(UsageError, match=words):
            Where(cluster=cluster, cluster_option=options).settings()


def test_commands(tmp_path: Path) -> None:
    text = call(tmp_path, "scale", "simulate", "--compute", 1, "--workers", "1,10", "--blocks", 100)
    assert "knee (80%)" in text
    assert "#SBATCH" in call(tmp_path, "submit", "--dry-run", "--", "enhance", "in.tif", "-o", "out.tif")
    assert not list(tmp_path.glob("scenelift-jobs"))
    said = call(tmp_path, "submit", "--", "enhance", "in.tif", "-o", "out.tif", code=2, PATH="/nowhere")
    assert "sbatch" in said
