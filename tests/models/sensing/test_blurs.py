"""Blurs: the transfer they promise, Pillow's own resampling, and a decimation that keeps what is constant."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scenelift.models.degradations import mtf_decimate
from scenelift.models.errors import ModelError
from scenelift.models.sensing.blurs import KINDS, Blur, decimate, response

BLURS = st.one_of(
    st.builds(Blur, st.just("gaussian"), st.floats(0.05, 0.6)), st.sampled_from([Blur(kind) for kind in KINDS[1:]])
)


@given(blur=BLURS, scale=st.sampled_from([2, 3, 4]))
def test_kernels_keep_a_constant_and_are_symmetric(blur, scale):
    kernel = blur.kernel(scale)
    assert kernel.sum() == pytest.approx(1)
    assert np.array_equal(kernel, kernel[::-1])
    assert len(kernel) % 2 == scale % 2


@given(mtf=st.floats(0.05, 0.6), scale=st.sampled_from([2, 3, 4]))
def test_a_gaussian_has_the_transfer_it_is_called_by(mtf, scale):
    assert response(Blur("gaussian", mtf).kernel(scale), scale)[1] == pytest.approx(mtf, abs=0.01)


def test_the_mean_over_two_pixels_transfers_the_cosine():
    assert response(Blur("area").kernel(2), 2) == pytest.approx(np.cos(np.pi * np.array([0.125, 0.25, 0.375, 0.5])))


@pytest.mark.parametrize(
    ("kind", "filter"),
    [("area", Image.Resampling.BOX), ("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)],
)
@pytest.mark.parametrize("scale", [2, 4])
def test_resampling_is_pillows(kind, filter, scale):
    image = np.random.default_rng(0).random((64, 64), np.float32)
    ours = decimate(torch.from_numpy(image)[None, None], scale, [[Blur(kind).kernel(scale)]])[0, 0].numpy()
    theirs = np.asarray(Image.fromarray(image).resize((64 // scale, 64 // scale), filter))
    assert np.abs(ours - theirs)[4:-4, 4:-4].max() < 1e-5  # edges are continued otherwise


def test_each_band_of_each_image_has_its_own_blur():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mtf = [[0.1, 0.3, 0.5], [0.2, 0.25, 0.4]]
    ours = decimate(x, 2, [[Blur("gaussian", m).kernel(2) for m in row] for row in mtf])
    for image, row in enumerate(mtf):
        assert torch.allclose(ours[image : image + 1], mtf_decimate(x[image : image + 1], 2, row), atol=1e-6)


@pytest.mark.parametrize(("kind", "mtf"), [("box", 0.3), ("gaussian", 0.0), ("gaussian", 1.0)])
def test_other_blurs_are_refused(kind, mtf):
    with pytest.raises(ModelError, match="got"):
        Blur(kind, mtf)
