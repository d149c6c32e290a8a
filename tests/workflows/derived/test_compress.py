"""Compression: fewer channels and 8 bits through the same engine, gated by what is lost, refused where it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.jobs import scenelift
from support.trainings import images
from torch import nn

from scenelift.models.catalog import find, precision_for, with_settings
from scenelift.models.checkpoint import load_checkpoint, save_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.loading import load
from scenelift.models.networks.architectures import build
from scenelift.models.onnx.exporting import for_openvino
from scenelift.models.onnx.openvino import wants_openvino
from scenelift.models.sensing.blurs import Blur
from scenelift.models.spec import PRECISIONS, ModelSpec
from scenelift.models.whole import run_whole
from scenelift.pipeline.errors import UnfitError, UsageError
from scenelift.workflows.derived.compress import compress
from scenelift.workflows.derived.settings import CompressSettings
from scenelift.workflows.python import export

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images(tmp_path_factory.mktemp("data") / "images.zip", each=40, side=64)


def network(folder: Path, dead: bool) -> Path:
    """A small network: half of its channels are zero, or every one of them carries an eighth of the image."""
    torch.manual_seed(0)
    arch = {"kind": "generator", "scale": 2, "channels": 8, "blocks": 1}
    module = build(arch)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if not dead:
                value.zero_()
            elif not name.startswith("skip"):
                nn.init.normal_(value, std=0.1)
                if name.split(".")[0] in ("head", "body"):
                    value[4:] = 0
        if not dead:  # the linear path is zero: what the channels carry is the nearest neighbour
            module.head.weight[:, 0, 1, 1] = 1
            module.tail.weight[:, :, 1, 1] = 1 / 8
            module.tail.bias.fill_(1)
    spec = ModelSpec("tiny", "super-resolution", scale=2, halo=module.halo, patch=32)
    save_checkpoint(folder / "tiny.safetensors", module, spec, arch)
    return folder / "tiny.safetensors"


def test_a_network_is_pruned_and_quantised_within_the_loss_and_runs_exactly_tiled(
    tmp_path: Path, pictures: Path
) -> None:
    said: list[str] = []
    out = tmp_path / "small.onnx"
    settings = CompressSettings(
        data=(pictures,), prune=0.5, quantize="int8", steps=1, max_loss=0.3, run=tmp_path / "run", device="cpu"
    )
    made = compress(str(network(tmp_path, dead=True)), out, settings, say=said.append)
    assert [step.step for step in made.steps] == ["pruned to 4 of 8 channels", "convolutions in int8"]
    assert len(said) == 2 and all(step.loss_db <= 0.3 for step in made.steps)
    card = json.loads((tmp_path / "small.json").read_text())
    assert card["name"] == "tiny-pruned-int8" and card["sha256"] == find(str(out)).digest
    assert card["compressed_from"]["name"] == "tiny" and not card["compression"]["forced"]
    assert [step["loss_db"] for step in card["compression"]["steps"]] == [round(s.loss_db, 3) for s in made.steps]
    narrow, _ = load_checkpoint(tmp_path / "run" / "tiny-pruned.safetensors")
    assert narrow.head.out_channels == 4
    model = load(find(str(out)))  # which proves its halo
    image = np.random.default_rng(0).random((1, 1, 64, 64), np.float32) * 0.3
    whole, halo = run_whole(model, image), model.spec.halo
    tile = model(image[:, :, 16 - halo : 48 + halo, 16 - halo : 48 + halo])
    np.testing.assert_allclose(tile, whole[:, :, 32:96, 32:96], atol=1e-4)
    pruned = run_whole(load(find(str(tmp_path / "run" / "tiny-pruned.safetensors"))), image)
    assert 0 < np.abs(whole - pruned).mean() < 0.01  # eight bits are not the same, and near


def test_a_student_takes_the_place_and_openvino_computes_it_exactly_tiled(tmp_path: Path, pictures: Path) -> None:
    out = tmp_path / "quick.onnx"
    settings = CompressSettings(
        data=(pictures,), student="sr-x2-lean", runtime="openvino", run=tmp_path / "run", threads=1, max_loss=1.0
    )
    made = compress("sr-x2", out, settings)
    assert [step.step for step in made.steps] == ["sr-x2-lean in its place", "ONNX, OpenVINO"]
    card = json.loads((tmp_path / "quick.json").read_text())
    assert card["in_place_of"]["name"] == "sr-x2" and card["compressed_from"]["name"] == "sr-x2-lean"
    assert card["compression"]["runtime"] == "openvino"
    assert precision_for(str(out), "fp32", "cpu") == "fp32" and precision_for(str(out), "auto", "cpu") in PRECISIONS
    student = load(with_settings(find("sr-x2-lean"), blur=(Blur(),), noise=(0.0,)))
    image = np.random.default_rng(0).random((1, 1, 80, 80), np.float32) * 0.3
    expected = run_whole(student, image)
    for precision, most in (("fp32", 2e-5), ("bf16", 7e-3)):
        model = load(with_settings(find(str(out)), precision=precision))
        whole, halo = run_whole(model, image), model.spec.halo
        assert np.abs(whole - expected).max() < most
        tile = model(image[:, :, 5 : 5 + 32 + 2 * halo, 5 : 5 + 32 + 2 * halo])
        inside = slice(2 * (5 + halo), 2 * (5 + halo + 32))
        np.testing.assert_allclose(tile, whole[:, :, inside, inside], atol=most)
    assert np.array_equal(model(image), model(image))


SIGNALS = """
import signal, subprocess, sys, threading
import numpy as np
from scenelift.models.onnx.openvino import OpenVinoSession

seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
content = open(sys.argv[1], "rb").read()
def use():  # more shapes than are kept, so that some are freed before others
    session = OpenVinoSession(content, "quick", "fp32")
    for size in range(40, 47):
        session.run(np.zeros((1, 1, size, size), np.float32))
use()
thread = threading.Thread(target=use)
thread.start()
thread.join()
for _ in range(20):
    subprocess.run(["true"])
print(len(seen) >= 20)
"""


def test_signals_are_handled_after_openvino_was_used(tmp_path: Path) -> None:
    """Its plugin gives threads a stack for signals and frees it early: the next signal could be the last."""
    export("sr-x2-fast", tmp_path / "plain.onnx")
    for_openvino(tmp_path / "plain.onnx", tmp_path / "quick.onnx")
    command = [sys.executable, "-X", "faulthandler", "-c", SIGNALS, str(tmp_path / "quick.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_without_openvino_a_file_for_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export("sr-x2-fast", tmp_path / "plain.onnx")
    for_openvino(tmp_path / "plain.onnx", tmp_path / "quick.onnx")
    assert not wants_openvino((tmp_path / "plain.onnx").read_bytes())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"quick.onnx is made for OpenVINO.*pip install 'scenelift\[openvino\]'"):
        load(find(str(tmp_path / "quick.onnx")))
    with_settings(find(str(tmp_path / "plain.onnx"))).load()


def test_what_loses_too_much_is_refused_kept_and_forced(tmp_path: Path, pictures: Path) -> None:
    parent, out = str(network(tmp_path, dead=False)), tmp_path / "small.safetensors"
    settings = {
        "data": (pictures,),
        "prune": 0.5,
        "steps": 1,
        "max_loss": 0.0,
        "run": tmp_path / "run",
        "device": "cpu",
    }
    with pytest.raises(UnfitError, match=r"more than max_loss 0 dB is lost and nothing .*force") as error:
        compress(parent, out, CompressSettings(**settings))
    assert error.value.exit_code == 4 and not out.exists() and not out.with_suffix(".json").exists()
    trained = (tmp_path / "run" / "tiny-pruned.safetensors").stat().st_mtime_ns
    state = (tmp_path / "run" / "state.safetensors").stat().st_mtime_ns
    made = compress(parent, out, CompressSettings(**settings, force=True))
    assert (tmp_path / "run" / "state.safetensors").stat().st_mtime_ns == state, "nothing is trained again"
    assert (tmp_path / "run" / "tiny-pruned.safetensors").stat().st_mtime_ns >= trained
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["compression"]["forced"] and card["compression"]["steps"][0]["loss_db"] > 0
    assert load(find(str(made.path))).spec.halo == load(find(parent)).spec.halo


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("median", "-o", "a.safetensors", "--prune", ".5"),
            "median is a method without weights",
        ),
        (("json:loads", "-o", "a.safetensors", "--prune", ".5"), "a model of another program"),
        (("their.onnx", "-o", "a.onnx", "--prune", ".5"), "their.onnx is an ONNX file and cannot be compressed"),
        (("landcover-eurosat", "-o", "a.safetensors", "--prune", ".5"), "a network for landcover and cannot be"),
        (("sr-x2-fast", "-o", "a.safetensors", "--prune", "1.5"), "prune must be a share of the channels"),
        (("sr-x2-fast", "-o", "a.safetensors", "--prune", ".99"), "leaves 0 of 32 channels"),
        (("sr-x2-fast", "-o", "a.safetensors"), "nothing to do"),
        (
            ("sr-x2", "-o", "a.onnx", "--student", "sr-x4", "--quantize", "int8"),
            "student sr-x4 cannot take the place",
        ),
        (("sr-x2", "-o", "a.onnx", "--student", "sr-x2-lean", "--prune", ".5"), "student takes the place of prune"),
        (
            ("sr-x2", "-o", "a.safetensors", "--runtime", "openvino", "--prune", ".5"),
            "runtime openvino computes ONNX",
        ),
        (("sr-x2-fast", "-o", "a.onnx"), "nothing to compress"),
        (("sr-x2-fast", "-o", "a.tif", "--prune", ".5"), "ends in .safetensors or .onnx, got"),
        (("sr-x2-fast", "-o", "a.safetensors", "--quantize", "int8"), "quantize int8 makes an ONNX file"),
        (("sr-x2-fast", "-o", "a.safetensors", "--prune", ".5", "--to", "onnx"), "to onnx writes *.onnx"),
        (("denoise-fast", "-o", "a.onnx", "--quantize", "int8"), "told the noise: say which by noise"),
        (("sr-x2", "-o", "a.safetensors", "--prune", ".5", "--blur", ".3"), "a checkpoint is told them by scene"),
        (("sr-x2-fast", "-o", "no/a.onnx", "--quantize", "int8"), "no such folder for the output"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    values = dict(zip(words[3::2], words[4::2], strict=True))
    with pytest.raises((ModelError, UsageError)) as error:
        settings = CompressSettings(
            data=(tmp_path,),
            prune=float(values["--prune"]) if "--prune" in values else None,
            quantize=values.get("--quantize"),  # type: ignore[arg-type]
            student=values.get("--student"),
            runtime=values.get("--runtime", "onnxruntime"),  # type: ignore[arg-type]
            to=values.get("--to"),  # type: ignore[arg-type]
            blur=values.get("--blur"),
        )
        compress(words[0], tmp_path / words[2], settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value) and error.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_is_missing_in_one_line(tmp_path: Path) -> None:
    bad = scenelift("compress", "sr-x2-fast", "-o", "a.safetensors", "--prune", 0.5, cwd=tmp_path, ok=False)
    assert bad.returncode == 2 and "needs --data: images or scenes" in bad.stderr and bad.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
