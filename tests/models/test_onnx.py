"""ONNX files in the engine: measured, refused where their tiles would not be exact, and written from our networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from scenelift.models.catalog import find, with_settings
from scenelift.models.checkpoint import save_checkpoint
from scenelift.models.errors import ModelError
from scenelift.models.loading import load, measure
from scenelift.models.networks.architectures import build
from scenelift.models.sensing.blurs import Blur
from scenelift.models.spec import ModelSpec
from scenelift.models.whole import run_whole
from scenelift.workflows.python import export


class UNet(nn.Module):
    """Two levels, strided down, transposed up, reflect padding: its lattice has cells of 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
        self.down = nn.ModuleList([nn.Conv2d(4, 4, 2, 2), nn.Conv2d(4, 4, 2, 2)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2)])
        self.tail = nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = [self.head(x)]
        for down in self.down:
            kept.append(torch.relu(down(kept[-1])))
        y = kept.pop()
        for up in self.up:
            y = torch.relu(up(y)) + kept.pop()
        return x + self.tail(y)


class GlobalMean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean((2, 3), keepdim=True)


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 5, padding=2))


def shuffled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.PixelShuffle(2))


def write(path: Path, module: nn.Module, bands: int, side: int = 32, fixed: bool = False, **metadata: object) -> Path:
    torch.manual_seed(0)
    for value in module.parameters():
        nn.init.normal_(value, std=0.3)
    axes = None if fixed else {"x": {0: "n", 2: "h", 3: "w"}}
    options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes, "dynamo": False}
    torch.onnx.export(module.eval(), (torch.rand(1, bands, side, side),), str(path), **options)
    if metadata:
        graph = onnx.load(str(path))
        onnx.helper.set_model_props(graph, {"scenelift": json.dumps({"gain": 1.0, "offset": 0.0} | metadata)})
        onnx.save(graph, str(path))
    return path


@pytest.mark.parametrize(
    ("make", "bands", "contract"),
    [
        (plain, 1, {"scale": 1, "halo": 3, "multiple_of": 1, "bands": None}),
        (shuffled, 1, {"scale": 2, "halo": 2, "multiple_of": 1, "bands": None}),
        (UNet, 3, {"scale": 1, "halo": 8, "multiple_of": 4, "bands": 3}),
    ],
)
def test_the_contract_is_measured(tmp_path: Path, make: object, bands: int, contract: dict[str, object]) -> None:
    path = write(tmp_path / "net.onnx", make(), bands)  # type: ignore[operator]
    measured = json.loads(measure(find(str(path))).coefficients)
    assert {key: measured[key] for key in contract} == contract
    assert measured["name"] == "net"


def test_a_network_of_one_size_gets_patches_that_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", plain(), 1, side=40, fixed=True)
    model = load(find(str(path)))
    assert (model.spec.patch, model.spec.halo) == (34, 3)
    image = np.random.default_rng(0).random((1, 1, 20, 20), np.float32)  # smaller than the one size
    other = load(find(str(write(tmp_path / "any.onnx", plain(), 1))))
    np.testing.assert_allclose(run_whole(model, image), run_whole(other, image), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "metadata", "says"),
    [
        (GlobalMean, {}, "looks farther than 256 pixels"),
        (plain, {"name": "a", "task": "other", "halo": 2}, "say a halo of 2 pixels, the network looks 3 pixels far"),
        (plain, {"name": "a", "task": "other", "halo": 3, "scale": 2}, "say scale 2, measured is 1"),
        (plain, {"name": "a", "task": "nothing", "halo": 3}, "cannot be read"),
    ],
)
def test_what_would_not_be_exact_is_refused(tmp_path: Path, make: object, metadata: dict, says: str) -> None:
    path = write(tmp_path / "net.onnx", make(), 1, **metadata)  # type: ignore[operator]
    with pytest.raises(ModelError, match=says):
        measure(find(str(path)))


def test_unknown_operators_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", plain(), 1)
    graph = onnx.load(str(path))
    graph.graph.node[0].op_type = "Nonsense"
    onnx.save(graph, str(path))
    with pytest.raises(ModelError, match=r"net\.onnx: ONNX Runtime cannot run it: .*Nonsense") as error:
        measure(find(str(path)))
    assert "\n" not in str(error.value)


def test_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot run it"):
        measure(find(str(tmp_path / "net.onnx")))
    with pytest.raises(ModelError, match="cannot read"):
        find(str(tmp_path / "none.onnx"))


def test_a_denoiser_is_told_its_noise_for_good(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(ModelError, match="say which by noise"):
        export("denoise-fast", path)
    lines = export("denoise-fast", path, noise=0.01)
    assert "differs from the network by at most" in lines[0]
    measured, spec = json.loads(measure(find(str(path))).coefficients), load(find("denoise-fast")).spec
    assert [measured[k] for k in ("name", "scale", "halo", "multiple_of")] == ["denoise-fast", 1, spec.halo, 2]
    assert not measured["needs_noise"]


def test_a_network_for_any_sensor_is_folded_for_one(tmp_path: Path) -> None:
    arch = {"kind": "conditioned-generator", "bands": 1, "scale": 2, "channels": 4, "blocks": 1}
    torch.manual_seed(0)
    module = build(arch)
    torch.nn.init.normal_(module.modulation.weight, std=0.1)
    spec = ModelSpec("tiny", "super-resolution", scale=2, halo=module.halo, needs_noise=True, needs_blur=True)
    save_checkpoint(tmp_path / "tiny.safetensors", module, spec, arch)
    told = {"blur": "0.3", "noise": 0.002}
    lines = export(str(tmp_path / "tiny.safetensors"), tmp_path / "tiny.onnx", **told)
    assert "0.3" in lines[1] and "0.002" in lines[1]
    image = np.random.default_rng(0).random((1, 1, 30, 30), np.float32) * 0.3
    ref = with_settings(find(str(tmp_path / "tiny.safetensors")), blur=(Blur("gaussian", 0.3),), noise=(0.002,))
    ours = run_whole(load(find(str(tmp_path / "tiny.onnx"))), image)
    np.testing.assert_allclose(ours, run_whole(load(ref), image), atol=1e-5)


def test_a_copy_of_other_peoples_file_carries_its_normalisation(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", plain(), 1)
    export(str(path), tmp_path / "ours.onnx", gain=255.0, offset=-3.0)
    image = np.random.default_rng(0).random((1, 1, 30, 30), np.float32)
    ours = run_whole(load(find(str(tmp_path / "ours.onnx"))), image)
    theirs = (run_whole(load(find(str(path))), 255 * image - 3) + 3) / 255
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
