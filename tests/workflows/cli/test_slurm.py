"""Jobs of a real Slurm that are cut short, lose a node or are cancelled: the bytes are those of a local run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import processes
from support import slurm as real
from support.builders import noise_image, write_raster
from support.faults import BLOCK, BLOCKS, Bench, committed, make_bench, same
from support.slurm import Slurm

SCENES = 6
pytestmark = pytest.mark.skipif(real.why_not() is not None, reason=str(real.why_not()))


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with real.running() as running:
        yield running


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"))


def scenelift(slurm: Slurm, folder: Path, *args: object, code: int = 0) -> str:
    """Run `scenelift ARGS` where Slurm is, and return what it printed."""
    return processes.call(folder, *args, code=code, **slurm.environment).strip()


def enhance(*more: object, workers: int | None = 0) -> list[object]:
    where = [] if workers is None else ["--workers", workers]
    return ["--", "enhance", "in.tif", "-o", "out.tif", "-m", "slow_model:slow", "--block", BLOCK, *where, *more]


def submit(slurm: Slurm, folder: Path, *args: object) -> str:
    return str(json.loads(scenelift(slurm, folder, "submit", "--json", "--memory", "2GB", *args))["job"])


def log(folder: Path, job: str) -> str:
    return (folder / "scenelift-jobs" / f"scenelift-{job}.out").read_text()


@pytest.fixture(scope="module")
def timed(slurm: Slurm, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A job that is far too slow for its time limit until it is started again; it runs while other tests do."""
    folder = bench.place(tmp_path_factory.mktemp("timed") / "run")
    slow_at_first = 'export SLOW=$([ -n "$SLURM_RESTART_COUNT" ] && echo 0 || echo 4)'
    return folder, submit(slurm, folder, "--walltime", "1", "--warning", 20, "--prologue", slow_at_first, *enhance())


def test_a_driver_job_grows_workers_and_loses_a_node(
    slurm: Slurm, bench: Bench, tmp_path: Path, timed: tuple[Path, str]
) -> None:
    folder = bench.place(tmp_path / "run")
    (folder / "cluster.toml").write_text(
        '[cluster]\nkind = "slurm"\nworkers = 1\nmaximum = 2\nmemory = "2GB"\nwalltime = "00:10:00"\n'
        'directives = ["--exclude=n1"]\nlog_directory = "jobs"\n[cluster.environment]\nSLOW = "0.3"\n'
    )
    job = submit(slurm, folder, "--directive=--nodelist=n1", *enhance("--cluster", "cluster.toml", workers=None))
    slurm.wait(lambda: committed(folder, "out.tif") >= 2 or slurm.state(job) in real.ENDED, "the first blocks")
    workers = [number for number in slurm.jobs("--states=R", "--nodelist=n2,n3") if number != job]
    assert workers, log(folder, job)
    lost = slurm.node_of(workers[0])
    slurm.call("scontrol", "update", f"nodename={lost}", "state=drain", "reason=test")
    slurm.call("scontrol", "update", f"nodename={lost}", "state=down", "reason=test")
    done = committed(folder, "out.tif")
    assert slurm.finish(job) == [0], log(folder, job)
    slurm.call("scontrol", "update", f"nodename={lost}", "state=resume")
    assert done < BLOCKS, "the node was lost too late to matter"
    assert same(folder / "out.tif", bench.reference("out.tif"))
    slurm.wait(lambda: not set(workers) & set(slurm.jobs()), "the end of the workers' jobs")


def test_a_cancelled_job_is_submitted_again(slurm: Slurm, bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    first = submit(slurm, folder, "--prologue", "export SLOW=0.2", *enhance())
    slurm.wait(lambda: committed(folder, "out.tif") >= 2, "the first blocks")
    slurm.call("scancel", first)
    slurm.wait(lambda: slurm.state(first) == "CANCELLED", "the end of the cancelled job")
    kept = committed(folder, "out.tif")
    assert 2 <= kept < BLOCKS and not (folder / "out.tif").exists()
    second = submit(slurm, folder, "--prologue", "export SLOW=0", *enhance("--json"))
    assert slurm.finish(second) == [0], log(folder, second)
    assert json.loads(log(folder, second).splitlines()[-1])["resumed"] == kept
    assert same(folder / "out.tif", bench.reference("out.tif"))


def test_the_time_limit_is_met_and_the_job_goes_on(slurm: Slurm, bench: Bench, timed: tuple[Path, str]) -> None:
    folder, job = timed
    slurm.wait(lambda: slurm.restarts(job) or slurm.state(job) in real.ENDED, "the end of its time")
    assert slurm.restarts(job) >= 1, log(folder, job)
    if slurm.state(job) not in real.ENDED:  # where the tests before took long, it may have gone on and ended
        slurm.call("scontrol", "update", f"jobid={job}", "timelimit=30")  # time enough on the busiest machine
    assert slurm.finish(job) == [0] and "erminated" in log(folder, job), log(folder, job)
    assert same(folder / "out.tif", bench.reference("out.tif"))


def test_an_array_shares_an_archive_is_cancelled_and_submitted_again(
    slurm: Slurm, bench: Bench, tmp_path: Path
) -> None:
    folder = bench.place(tmp_path / "run")
    (folder / "in").mkdir()
    for number in range(SCENES):
        write_raster(folder / "in" / f"{number}.tif", noise_image(number, (1, 70, 60)))
    (folder / "in" / "bad.tif").write_text("no raster")
    command = ["archive", "in", "-m", "slow_model:slow", "--workers", 0, "--scores", "none"]
    array = ["--array", 3, "--", *command, "-o", "out"]
    first = submit(slurm, folder, "--prologue", "export SLOW=0.5", *array)
    slurm.wait(lambda: len(done(folder / "out")) >= 2, "the first scenes")
    slurm.call("scancel", first)
    slurm.wait(lambda: first not in " ".join(slurm.jobs()), "the end of the array")
    assert 2 <= len(done(folder / "out")) < SCENES + 1
    second = submit(slurm, folder, "--prologue", "export SLOW=0", *array)
    codes = slurm.finish(*(f"{second}_{element}" for element in range(3)))
    assert set(codes) <= {0, 3} and 3 in codes, "who met the bad scene says so"
    processes.call(folder, *command, "-o", "local", code=3, SLOW="0")
    found, wanted = done(folder / "out"), done(folder / "local")
    assert found == wanted and len(found) == SCENES + 1 and list(found.values()).count(None) == 1
    assert all(same(folder / "out" / n, folder / "local" / n) for n in outputs(folder / "local"))


def done(archive: Path) -> dict[str, str | None]:
    """Return the checksum of each scene of an archive that is settled; None: failed."""
    records = (archive / ".scenelift" / "scenes").glob("*.json")
    return {facts["id"]: facts.get("sha256") for facts in (json.loads(p.read_text()) for p in records)}


def outputs(archive: Path) -> list[str]:
    names = [str(p.relative_to(archive)) for p in archive.rglob("*.tif") if ".scenelift" not in str(p)]
    assert len(names) == SCENES
    return names


def test_slurms_refusal_is_told_in_a_line(slurm: Slurm, bench: Bench, tmp_path: Path) -> None:
    folder = bench.place(tmp_path / "run")
    said = scenelift(slurm, folder, "submit", "--queue", "nowhere", *enhance(), code=4)
    assert "\n" not in said and "invalid partition" in said
    options = ["--cluster", "slurm", "--cluster-option", "queue=nowhere"]
    said = scenelift(slurm, folder, *enhance(*options, workers=None)[1:], code=2)
    *before, said = said.splitlines()  # a slow machine is told what takes so long
    assert len(before) <= 1 and "Slurm refuses" in said and "nvalid partition" in said
