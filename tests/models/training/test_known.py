"""Tasks on scenes of known blur and noise: what is drawn is what is known, and two corruptions are uncorrelated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scenelift.models.errors import ModelError
from scenelift.models.networks.conditioned import condition_of
from scenelift.models.sensing.blurs import Blur, decimate, response
from scenelift.models.training.known import Known, KnownDenoising, KnownSuperResolution
from scenelift.models.training.objectives import PixelLoss, Step
from scenelift.models.training.schedule import Phase
from scenelift.pipeline.settings import read_table

torch.set_num_threads(1)
AREA = Known((Blur("area"), Blur("bicubic")), (0.0, 0.0))
SHARP = Known((Blur("gaussian", 0.4), Blur("gaussian", 0.5)), (0.002, 0.004))


@given(level=st.floats(1e-4, 0.05), strength=st.floats(0.5, 3), seed=st.integers(0, 99))
def test_input_and_target_of_a_noisy_scene_err_independently(level: float, strength: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 1, 200, 200, generator=generator)
    noisy = clean + level * torch.randn(clean.shape, generator=generator)
    task = KnownDenoising((level,), sigma_max=4 * level)
    added = torch.full((1, 1, 1, 1), strength * level)
    (noisier, told), target = task._corrupted(noisy, added, generator)
    first, second = (noisier - clean).flatten() / level, (target - clean).flatten() / level
    assert abs(float((first * second).mean())) < 6 * float(first.std() * second.std()) / 200
    assert float(told) == pytest.approx(float((noisier - clean).std()), rel=0.03)
    assert float((target - clean).mean()) == pytest.approx(0, abs=6 * float((target - clean).std()) / 200)


def test_a_denoiser_learns_towards_the_clean_image_without_having_seen_one() -> None:
    """Of all constant mixes of an image and its mean, the one that the loss on noisy pairs likes best is the best."""
    level, generator = 0.02, torch.Generator().manual_seed(0)
    clean = 0.2 + 0.02 * torch.randn(64, 1, 16, 16, generator=generator)
    noisy = clean + level * torch.randn(clean.shape, generator=generator)
    (noisier, told), target = KnownDenoising((level,)).validated(noisy, generator)
    shares = torch.linspace(0, 1, 41)

    def best(truth: torch.Tensor) -> float:
        errors = [(0.2 + share * (noisier - 0.2) - truth).square().mean() for share in shares]
        return float(shares[int(torch.stack(errors).argmin())])

    assert best(target) == pytest.approx(best(clean), abs=0.051)
    assert best(noisier) == 1  # what an image that is its own target would teach
    assert float(told.mean()) == pytest.approx(level * 2**0.5)


def test_a_step_is_taken_on_the_target_of_the_task() -> None:
    task = KnownDenoising((0.01,))
    noisy = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return x

    loss = PixelLoss(task, lambda count, subset, generator: noisy)
    phase = Phase(1, loss="l1")
    batch = loss.draw(phase, 4, torch.Generator().manual_seed(3))
    restored = loss.restore(Step(0, phase, batch, Identity(), torch.device("cpu")))
    (noisier, _), target = task.pair(noisy, torch.Generator().manual_seed(3))
    assert torch.equal(restored.prediction, noisier) and torch.equal(restored.target, target)
    assert not torch.equal(target, noisy)


def test_every_image_is_degraded_by_the_blur_of_one_of_the_scenes() -> None:
    task = KnownSuperResolution((AREA, SHARP), told=True, transfer_error=0.0)
    clean = torch.rand(12, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    low, _, condition = task.degrade(clean, torch.Generator().manual_seed(1))
    seen = set()
    for image, sharp, told in zip(clean, low, condition, strict=True):
        for known in (AREA, SHARP):
            kernels = [blur.kernel(2) for blur in known.blur]
            noise = torch.tensor(known.noise)
            error = (decimate(image[None], 2, [kernels])[0] - sharp).square().mean((1, 2)).sqrt()
            if bool((error <= 1.3 * noise + 1e-6).all()):
                responses = torch.tensor([response(kernel, 2).tolist() for kernel in kernels])
                torch.testing.assert_close(told, condition_of(responses[None], noise[None])[0])
                seen.add(known)
    assert seen == {AREA, SHARP}
    plain = KnownSuperResolution((AREA, SHARP), transfer_error=0.0)
    assert len(plain.degrade(clean, torch.Generator().manual_seed(1))) == 1
    inputs, target = task.validated(clean, torch.Generator())
    assert len(inputs) == len(task.cases()) == 2 and torch.equal(target, clean)


def test_known_scenes_stand_in_a_recipe() -> None:
    table = {"scale": 2, "told": True, "known": [{"blur": [{"kind": "area"}, {"kind": "bicubic"}], "noise": [0, 0]}]}
    assert read_table(KnownSuperResolution, table, "recipe", error=ModelError).known == (AREA,)
    for wrong in ([], [{"blur": [{"kind": "area"}], "noise": []}]):
        with pytest.raises(ModelError, match="known must name scenes"):
            read_table(KnownSuperResolution, table | {"known": wrong}, "recipe", error=ModelError)
