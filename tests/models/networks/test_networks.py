"""Networks: the same pixels padded and unpadded, and no pixel depends on more than the halo."""

import copy

import pytest
import torch
import torch.nn.functional as F

from scenelift.models import precision
from scenelift.models.degradations import mtf_decimate
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.layers import ResidualBlock, crop
from scenelift.models.networks.upsampling import PhaseUpsampler
from scenelift.models.precision import to_precision
from scenelift.models.receptive import receptive_radius

torch.set_num_threads(1)  # threads cost more than they bring for networks this small

SMALL = [
    {"kind": "generator", "channels": 6, "blocks": 1, "scale": 2},
    {"kind": "generator", "channels": 6, "blocks": 2, "scale": 3, "bands": 3},
    {"kind": "generator", "channels": 4, "blocks": 1, "scale": 4},
    {"kind": "dense-generator", "channels": 4, "growth": 2, "blocks": 1, "scale": 2},
    {"kind": "denoiser", "channels": 6, "blocks": 1},
    {"kind": "denoiser", "channels": 6, "blocks": 2, "bands": 4, "norm": "batch", "act": "silu"},
    {"kind": "denoiser", "channels": 4, "blocks": 1, "skips": False, "factor": 1},
]


def inputs(arch, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, arch.get("bands", 1), side, side, generator=generator) * 0.5
    return (x, torch.tensor([0.01, 0.05])) if arch["kind"] == "denoiser" else (x,)


def trained(arch, valid):
    """Weights that are far from their start, so that every path counts."""
    torch.manual_seed(3)
    module = build(arch).eval()
    for p in module.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    again = build(arch, valid=valid).eval()
    again.load_state_dict(module.state_dict())
    return again


@pytest.mark.parametrize("arch", SMALL, ids=lambda a: f"{a['kind']}-{a.get('scale', 1)}")
def test_unpadded_form_gives_the_padded_forms_pixels(arch):
    padded, valid = trained(arch, False), trained(arch, True)
    core, scale = 12, arch.get("scale", 1)
    given = inputs(arch, core + 2 * valid.halo)
    answer = valid(*given)
    assert answer.shape == (2, arch.get("bands", 1), core * scale, core * scale)
    torch.testing.assert_close(answer, crop(padded(*given), valid.halo * scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", SMALL, ids=lambda a: f"{a['kind']}-{a.get('scale', 1)}")
@pytest.mark.parametrize("valid", [False, True])
def test_declared_halo_is_the_receptive_radius(arch, valid):
    module = trained(arch, valid)
    radius = receptive_radius(
        module,
        bands=arch.get("bands", 1),
        scale=arch.get("scale", 1),
        multiple_of=getattr(module, "factor", 1),
        needs_noise=arch["kind"] == "denoiser",
    )
    assert radius == module.halo


def test_linear_path_starts_as_bicubic():
    x = torch.rand(1, 2, 20, 24)
    for scale in (2, 3, 4):
        expected = F.interpolate(x, scale_factor=scale, mode="bicubic", antialias=True)
        answer = PhaseUpsampler(scale)(x)
        torch.testing.assert_close(crop(answer, 2 * scale), crop(expected, 2 * scale), rtol=0, atol=1e-5)


def test_fitted_linear_path_undoes_blur_and_keeps_constants():
    generator = torch.Generator().manual_seed(0)
    high = F.interpolate(torch.rand(24, 1, 24, 24, generator=generator), scale_factor=2, mode="bicubic")
    low = mtf_decimate(high, 2, 0.26)
    plain, fitted = PhaseUpsampler(2), PhaseUpsampler(2)
    fitted.fit(low, high)
    error = [float((crop(net(low) - high, 8) ** 2).mean()) for net in (plain, fitted)]
    assert error[1] < 0.5 * error[0]
    constant = torch.full((1, 1, 16, 16), 0.7)
    torch.testing.assert_close(fitted(constant), torch.full((1, 1, 32, 32), 0.7), rtol=0, atol=1e-5)


def test_bands_of_a_band_agnostic_network_do_not_mix_with_batch():
    module = trained(SMALL[0], True)
    x = inputs(SMALL[0], 10 + 2 * module.halo)[0]
    torch.testing.assert_close(module(x)[1:], module(x[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arch", [SMALL[0], SMALL[4], {"kind": "dense-generator", "channels": 4, "growth": 2}])
def test_mixed_precision_is_close_and_leaves_the_module_alone(arch):
    module = trained(arch, True)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    given = inputs(arch, 8 + 2 * module.halo)
    exact, mixed = module(*given), to_precision(module, "bf16")(*given)
    assert mixed.dtype == torch.float32
    assert 0 < float((mixed - exact).abs().max()) < 0.05 * float(exact.abs().max())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert to_precision(module, "fp32") is module


@pytest.mark.parametrize("options", [{}, {"skip": False}, {"act": "silu"}, {"norm": "batch"}])
def test_a_residual_block_in_mixed_precision_adds_in_float32_and_leaves_its_input_alone(options):
    block = ResidualBlock(4, valid=True, **options).eval()
    x = torch.rand(2, 4, 12, 11)
    given = x.clone()
    mixed = to_precision(torch.nn.Sequential(block), "bf16")
    with torch.inference_mode():
        made = mixed(x), mixed(x)
        half = copy.deepcopy(block).to(torch.bfloat16)
        y = half.norm2(half.second(half.act(half.norm1(half.first(x.to(torch.bfloat16))))))
        wanted = y + x[..., 2:-2, 2:-2] if block.skip else y.float()
    assert torch.equal(x, given) and torch.equal(made[0], made[1])
    assert made[0].dtype == torch.float32 and torch.equal(made[0], wanted)


def test_the_convolution_with_its_relu_in_one_has_the_same_bits_and_draws_no_random_number(monkeypatch):
    module, x = (
        torch.nn.Sequential(*(ResidualBlock(32, valid=True) for _ in range(3))).eval(),
        torch.rand(1, 32, 70, 61),
    )
    precision._fuses.cache_clear()
    before = torch.get_rng_state()
    fused = to_precision(module, "bf16")
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(precision, "_fuses", lambda: False)
    plain = to_precision(module, "bf16")
    with torch.inference_mode():
        assert torch.equal(fused(x), plain(x))
    assert not plain[0].fused


@pytest.mark.parametrize("kind", ["unet-discriminator", "patch-discriminator"])
def test_discriminators_judge_every_place(kind):
    judge = build({"kind": kind, "bands": 3, "channels": 4})
    verdict = judge(torch.rand(2, 3, 32, 32))
    assert verdict.shape == ((2, 1, 32, 32) if kind.startswith("unet") else (2, 1, 6, 6))


def test_autoencoder_keeps_size_or_cuts_its_halo():
    arch = {"kind": "autoencoder", "width": 8, "halo": 8}
    x, sigma = torch.rand(1, 1, 32, 32), torch.tensor([0.02])
    torch.manual_seed(0)
    padded = build(arch).eval()
    valid = build(arch, valid=True).eval()
    valid.load_state_dict(padded.state_dict())
    torch.testing.assert_close(valid(x, sigma), crop(padded(x, sigma), 8))


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({"kind": "oracle"}, "kind must be one of"),
        ({"kind": "generator", "wings": 2}, "unknown key wings of architecture .generator.; known are bands"),
        ({"kind": "generator", "channels": 10**9}, "channels must be an integer from"),
        ({"kind": "generator", "blocks": 2.5}, "blocks must be an integer"),
        ({"kind": "generator", "valid": True}, "unknown key valid"),
        ({"kind": "denoiser", "act": "magic"}, "activation must be one of"),
        ({"kind": "denoiser", "norm": "instance"}, "normalisation must be"),
    ],
)
def test_strange_architectures_are_refused(arch, message):
    with pytest.raises(ModelError, match=message):
        build(arch)


def test_noise_level_of_a_wrong_shape_is_refused():
    with pytest.raises(ModelError, match="one value a sample"):
        build(SMALL[4])(torch.rand(2, 1, 16, 16), torch.rand(3))
