"""Files that stand for options: a run file equals flags, and defaults come from a file and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.jobs import Run

from scenelift.pipeline.errors import UsageError
from scenelift.workflows.cli import app as cli


def archived(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[Any]:
    """Return sources, output and settings with which `archive` would run."""
    given: list[Any] = []
    settings: list[Any] = []

    def found(sources: list[str], output: Path, access: Any, box: Any = None) -> list[str]:
        given.extend((sources, output, access))
        return sources

    def estimated(entries: Any, output: Path, chosen: Any, cluster: Any, say: Any) -> Any:
        settings.extend((chosen, cluster))
        raise UsageError("enough is known")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("scenelift.workflows.archive.sources.find_scenes", found)
    monkeypatch.setattr("scenelift.workflows.archive.estimate.estimate", estimated)
    with pytest.raises(UsageError, match="enough"):
        cli.app(["archive", *words, "--dry-run"], standalone_mode=False)
    return [*given, *settings]


RUN = """
sources = ["in/*.tif", "s3://bucket/a.tif"]
output = "out"
model = ["denoise", "sr-x2"]
bands = [3, 1]
date = 2024-05-01
bbox = [14, 45, 16, 46.5]
cloud-cover = 30
noise = 12
allow_remote = true
shards = false
scores = "full"
cluster_option = ["memory=8GB"]
walltime = "2h"
json = true

[cluster]
kind = "slurm"
cores = 2
"""
FLAGS = (
    *("./in/*.tif", "s3://bucket/a.tif", "-o", "out", "-m", "denoise,sr-x2", "--bands", "3,1", "--date", "2024-05-01"),
    *("--bbox", "14,45,16,46.5", "--cloud-cover", "30", "--noise", "12", "--allow-remote", "--no-shards", "--json"),
    *("--scores", "full", "--cluster-option", "memory=8GB", "--walltime", "2h", "--cluster", "run.toml"),
)


def test_a_run_file_equals_flags_and_flags_go_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    from_file = archived(tmp_path, monkeypatch, "run.toml")
    assert from_file == archived(tmp_path, monkeypatch, *FLAGS)
    sources, output, access, settings, cluster = from_file
    assert sources == ["./in/*.tif", "s3://bucket/a.tif"] and output == Path("out") and access.remote
    assert settings.models == ["denoise", "sr-x2"] and settings.enhance.noise == 12 and settings.reading.bands == "3,1"
    assert (cluster.kind, cluster.job.memory, cluster.job.cores) == ("slurm", "8GB", 2)
    changed = archived(tmp_path, monkeypatch, "run.toml", "--block", "64", "--scores", "none", "--shards")[3]
    assert (changed.enhance.block, changed.scores, changed.enhance.shards, changed.format) == (64, "none", True, "tif")


def test_paths_of_a_run_file_start_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "run.toml").write_text('sources = "in/*.tif"\noutput = "out"\n')
    assert archived(tmp_path, monkeypatch, "job/run.toml")[:2] == [["job/in/*.tif"], Path("job/out")]


WRONG_RUNS = {
    "sources = [": "is not TOML",
    "": "names no sources",
    "sources = []": "names no sources",
    'sources = ["a"]\nwrokers = 3': "unknown key wrokers; did you mean workers?",
    'sources = ["a"]\ntile = 512': "unknown key tile",
    'sources = ["a"]\nblock = "many"': 'block must be a whole number, got "many"',
    'sources = ["a"]\nblock = 1.5': "block must be a whole number, got 1.5",
    'sources = ["a"]\nblock = [64]': "block must be a whole number, got [64]",
    'sources = ["a"]\nblock = 0': "--block must be from 1 to 65536, got 0",
    'sources = ["a"]\nworkers = true': "workers must be a whole number, got true",
    'sources = ["a"]\ntta = 1': "tta must be true or false, got 1",
    'sources = ["a"]\nbands = true': "bands must be a text, got true",
    'sources = ["a"]\nmodel = [["a"]]': 'model must be a text, got [["a"]]',
    'sources = ["a"]\nformat = "png"': "format must be 'tif' or 'zarr', got \"png\"",
    'sources = ["a"]\nbbox = [1, 2]': "--bbox must be west,south,east,north",
    'sources = ["a"]\ndate = "May"': "--date must be 2024",
    'sources = ["a"]\ncloud_cover = 101': "--cloud-cover must be a percentage",
    "sources = [1]": "sources[0] must be a text, got 1",
    'sources = ["a"]\n[model]\nname = "a"': "model must be a text",
    'sources = ["a"]\n[cluster]\ncoers = 4': "unknown key cluster.coers; did you mean cores?",
    'sources = ["a"]\n[cluster]\ncores = "4"': 'cluster.cores must be a whole number, got "4"',
    'sources = ["a"]\ncluster = 3': "--cluster must be one of local",
}


@pytest.mark.parametrize("text", WRONG_RUNS)
def test_a_wrong_run_file_is_one_line_that_names_the_key(text: str, run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("no raster")
    (tmp_path / "run.toml").write_text(text)
    code, out, err = run("archive", "run.toml", "-o", "out")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("scenelift: ") and WRONG_RUNS[text] in err
    if not WRONG_RUNS[text].startswith("--"):
        assert "run.toml" in err
    assert not (tmp_path / "out").exists()


def test_defaults_come_from_a_file_then_from_the_environment_then_from_flags(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[enhance]\nmodel = "from-file"\nworkers = 0\nshards = false\nlimit = ["bands=9"]\n')

    def named(*words: str) -> str:
        """Return the model that the command was given, which there is not."""
        _, _, err = run("--config", file, "enhance", __file__, "-o", tmp_path / "b.tif", *words)
        return err.partition("unknown model '")[2].partition("'")[0]

    assert named() == "from-file"
    monkeypatch.setenv("SCENELIFT_ENHANCE_MODEL", "from-environment")
    assert named() == "from-environment"
    assert named("-m", "from-flag") == "from-flag"
    monkeypatch.setenv("SCENELIFT_ENHANCE_WORKERS", "many")
    assert "'--workers'" in run("enhance", __file__, "-o", tmp_path / "b.tif")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[enhanse]", "no command [enhanse]; did you mean enhance?"),
        ("[enhance]\nmodle = 1", "[enhance]: no option 'modle'; did you mean model?"),
        ("[enhance]\nshards = 2", "[enhance]: shards must be true or false, got 2"),
        ("[enhance]\nblock = true", "[enhance]: block must be a value, got True"),
        ("enhance = 1", "[enhance] must be a table of options, got 1"),
        ("[enhance", "mine.toml"),
    ],
)
def test_a_file_of_defaults_that_is_wrong_is_refused(text: str, message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    code, out, err = run("--config", tmp_path / "mine.toml", "enhance", "a.tif", "-o", "b.tif")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
