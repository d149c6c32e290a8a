"""Error models: bounds hold on what was not fitted, standard deviations follow the errors, tiles stay exact."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from scenelift.models.calibration import (
    LEVELS,
    REACH,
    Calibrated,
    ErrorModel,
    conformal_factors,
    local_features,
    margin_of,
)
from scenelift.models.error_files import load_errors, save_errors
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.conditioned import FACTS
from scenelift.models.receptive import check_halo, receptive_radius
from scenelift.models.sensing.blurs import Blur
from scenelift.models.spec import ModelSpec
from scenelift.models.training.calibration import fit
from scenelift.models.wrappers import Consistent, Ensembled

torch.set_num_threads(1)


def errors_of(facts, seed=0):
    """An error model whose every weight counts, with known factors."""
    torch.manual_seed(seed)
    errors = ErrorModel(facts, hidden=4).eval()
    errors.factors.copy_(torch.arange(len(LEVELS)) / 10 + 0.5)
    with torch.no_grad():
        errors.layers[-1].bias.fill_(-4.0)
    return errors


def moved(arch):
    torch.manual_seed(0)
    module = build(arch, valid=True).eval()
    for p in module.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    return module


def enlarging(bands=1, scale=2):
    arch = {"kind": "conditioned-generator", "bands": bands, "scale": scale, "channels": 4, "blocks": 1}
    plain = moved(arch).fold([Blur("gaussian", 0.1 + 0.1 * band) for band in range(bands)], [0.001] * bands)
    return plain, ModelSpec("tiny", "super-resolution", scale=scale, halo=plain.halo, bands=bands)


def denoising(bands=1):
    module = moved({"kind": "denoiser", "bands": bands, "channels": 4, "blocks": 1})
    spec = ModelSpec("tiny", "denoise", halo=module.halo, bands=bands, multiple_of=2, needs_noise=True)
    return module, spec


@pytest.mark.parametrize(
    ("network", "facts", "around"),
    [
        *((enlarging(*shape), FACTS, a) for shape in ((1, 2), (3, 4)) for a in ("", "ensemble", "back-projection")),
        *((denoising(3), 2, around) for around in ("", "ensemble")),
    ],
)
def test_tiles_with_bounds_are_those_of_the_whole(network, facts, around):
    module, spec = network
    if around == "ensemble":
        module = Ensembled(module)
    elif around == "back-projection":
        module = Consistent(module, spec.halo, spec.scale)
        spec = ModelSpec("tiny", spec.task, scale=spec.scale, halo=module.halo, bands=spec.bands)
    wrapped = Calibrated(module, spec, errors_of(facts), level=0.9).eval()
    told = ModelSpec(
        "told", spec.task, scale=spec.scale, halo=wrapped.halo, bands=spec.bands, multiple_of=spec.multiple_of,
        needs_noise=spec.needs_noise, out_per_band=4,
    )  # fmt: skip
    check_halo(wrapped, told)
    assert wrapped.halo == spec.halo + margin_of(spec)
    rest = (torch.full((1,), 0.01),) if spec.needs_noise else ()
    x = torch.rand(1, spec.bands, 24 + 2 * told.halo, 24 + 2 * told.halo) * 0.3
    with torch.inference_mode():
        whole = wrapped(x, *rest)
        tile = wrapped(x[..., 8 : 16 + 2 * told.halo, 8 : 16 + 2 * told.halo], *rest)
        plain = module(x, *rest)
    assert whole.shape == (1, 4 * spec.bands, 24 * spec.scale, 24 * spec.scale)
    inner = slice(8 * spec.scale, 16 * spec.scale)
    torch.testing.assert_close(tile, whole[..., inner, inner], atol=2e-6, rtol=1e-5)
    margin = margin_of(spec) * spec.scale
    torch.testing.assert_close(whole[:, ::4], plain[..., margin:-margin, margin:-margin])


def test_the_halo_is_no_wider_than_it_must_be():
    module, spec = enlarging()
    wrapped = Calibrated(module, spec, errors_of(FACTS))
    assert receptive_radius(wrapped, scale=2) == wrapped.halo == spec.halo + 2


def test_deviation_and_bounds_follow_each_band_as_asked():
    module, spec = enlarging(3)
    errors, x = errors_of(FACTS), torch.rand(2, 3, 40, 40) * 0.3
    with torch.inference_mode():
        every = Calibrated(module, spec, errors, level=0.9)(x)
        bounds = Calibrated(module, spec, errors, deviation=False, level=0.9)(x)
        deviation = Calibrated(module, spec, errors)(x)
    band, sure, low, high = (every[:, i::4] for i in range(4))
    assert torch.equal(deviation, torch.stack([band, sure], 2).flatten(1, 2))
    assert torch.equal(bounds, torch.stack([band, low, high], 2).flatten(1, 2))
    assert bool((sure > 0).all())
    torch.testing.assert_close(high - band, errors.factor(0.9) * sure, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(band - low, errors.factor(0.9) * sure, atol=1e-6, rtol=1e-5)


def test_what_a_network_was_told_decides_the_deviation_band_by_band():
    conditioned = moved({"kind": "conditioned-generator", "bands": 2, "scale": 2, "channels": 4, "blocks": 1})
    spec = ModelSpec("tiny", "super-resolution", scale=2, halo=conditioned.halo, bands=2)
    x = torch.rand(1, 1, 30, 30).expand(1, 2, 30, 30) * 0.3
    for value in conditioned.parameters():  # a network that does nothing: bands are what the linear path makes of them
        value.data.zero_()
    for blurs, differ in (([Blur("gaussian", 0.2)] * 2, False), ([Blur("gaussian", 0.2), Blur("area")], True)):
        plain = conditioned.fold(blurs, [0.0, 0.0])
        plain.skip.weight.data[4:] = plain.skip.weight.data[:4]
        with torch.inference_mode():
            deviation = Calibrated(plain, spec, errors_of(FACTS))(x)[:, 1::2]
        assert torch.allclose(deviation[:, 0], deviation[:, 1]) is not differ


def test_a_network_without_a_linear_path_is_refused():
    with pytest.raises(ModelError, match="linear path"):
        Calibrated(torch.nn.Conv2d(1, 4, 3), ModelSpec("odd", "super-resolution", scale=2, halo=1), errors_of(FACTS))


def test_conformal_factors_hold_for_any_distribution():
    """The coverage of a new score is k / (n + 1), whatever the scores' distribution: an exact result for ranks."""
    rng = np.random.default_rng(0)
    for draw in (rng.exponential, rng.standard_cauchy, lambda size: rng.pareto(0.7, size)):
        held = []
        for _ in range(1000):
            scores = np.abs(draw(size=100))
            factor = conformal_factors(torch.from_numpy(scores[:-1]), (0.9,))
            held.append(scores[-1] <= float(factor))
        assert np.mean(held) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 1000))


def test_conformal_factors_are_ranks_and_want_enough_scores():
    scores = torch.randperm(99, generator=torch.Generator().manual_seed(0)) + 1.0
    assert conformal_factors(scores, (0.5, 0.9, 0.99)).tolist() == [50, 90, 99]
    with pytest.raises(ModelError, match="too few"):
        conformal_factors(scores[:98], (0.99,))


def known_errors(seed, count=40):
    """Images, what a network makes of them, and the known standard deviation of its error at each pixel."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.nn.functional.avg_pool2d(torch.rand(count, 1, 44, 44, generator=generator), 5, 1) * 0.3
    away = torch.nn.functional.avg_pool2d(torch.randn(count, 1, 48, 48, generator=generator), 9, 1)
    prediction = reference + 0.02 * away
    deviation = 0.5 * (0.02 * away).abs() + 0.002
    truth = prediction + deviation * torch.randn(prediction.shape, generator=generator)
    return prediction, reference, deviation, truth


def test_known_errors_are_found_and_their_bounds_hold_elsewhere():
    errors = ErrorModel(2)
    pixels = []
    for seed in range(3):
        prediction, reference, deviation, truth = known_errors(seed)
        features = errors.features(prediction, reference, torch.zeros(1, 1, 2)).permute(0, 2, 3, 1).flatten(0, 2)
        inner = (..., slice(REACH, -REACH), slice(REACH, -REACH))
        pixels.append((features, (prediction - truth)[inner].abs().flatten(), deviation[inner].flatten()))
    fit(errors, *pixels[0][:2], steps=800)
    with torch.no_grad():
        found = [errors.log_deviation(f[..., None, None]).exp().flatten() for f, _, _ in pixels]
    errors.factors.copy_(conformal_factors(pixels[1][1] / found[1]))
    assert spearmanr(found[2], pixels[2][2]).statistic > 0.95, "the true standard deviation"
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        held = (pixels[2][1] <= errors.factor(level) * found[2]).float().mean()
        assert float(held) == pytest.approx(level, abs=0.015)


def test_contrasts_are_those_of_windows_around_a_pixel():
    prediction, reference, _, _ = known_errors(3, count=1)
    found = local_features(prediction, reference)[0]
    image, away = prediction[0, 0].numpy(), (prediction - reference)[0, 0].numpy()
    row, column = 7, 11  # of the image; of the features, REACH less
    window = (slice(row - REACH, row + REACH + 1), slice(column - REACH, column + REACH + 1))
    expected = {0: abs(away[row, column]), 2: np.sqrt((away[window] ** 2).mean()), 4: image[window].std()}
    for which, value in expected.items():
        got = float(found[which, row - REACH, column - REACH])
        assert got == pytest.approx(np.log(np.hypot(value, 1e-4)) - np.log(1e-3), abs=1e-3)


def test_a_level_between_hundredths_gets_the_bounds_of_the_next():
    errors = errors_of(2)
    assert errors.factor(0.5) == pytest.approx(0.5) and errors.factor(0.9) == pytest.approx(4.5)
    assert errors.factor(0.99) == pytest.approx(5.4)
    assert errors.factor(0.901) == errors.factor(0.91) > errors.factor(0.9)
    for level in (0.49, 0.995, 1.0, float("nan")):
        with pytest.raises(ModelError, match=r"from 0.5 to 0.99"):
            errors.factor(level)


def test_an_error_model_belongs_to_one_network(tmp_path):
    path, errors = tmp_path / "net.errors", errors_of(3)
    save_errors(path, errors, "a" * 64)
    again = load_errors(path, "a" * 64).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in errors.state_dict().items())
    with pytest.raises(ModelError, match="another version of the network"):
        load_errors(path, "b" * 64)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match="no readable error model"):
        load_errors(path, "a" * 64)
    save_errors(path, torch.nn.Conv2d(1, 1, 1), "a" * 64)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="is no error model"):
        load_errors(path, "a" * 64)
