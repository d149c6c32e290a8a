"""Training of the estimator of blur and noise: a small network on statistics of images degraded in known ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from scenelift.models.degradations import EUROSAT, quantize, white_noise
from scenelift.models.sensing.blurs import KINDS, MTF_RANGE, Blur, decimate
from scenelift.models.sensing.estimation import SIGMA_UNIT, TRANSFERS, cut_tiles, features

Draw = Callable[[int, torch.Generator], Tensor]
"""Draws (count, 1, H, W) clean patches of one source, reflectance."""
COUNTS = (1, 2, 3, 8, 24, 48, 96)
"""Numbers of patches pooled in an example: one small image, or a scene."""
NOISIEST, STRONGER, EVERY = 0.01, 8.0, 20
"""Largest noise, reflectance; one example in ``EVERY`` is made once more with noise up to so many times as strong."""


def dead_leaves(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Draw shapes that hide each other, with edges as sharp as pixels can be, each image with its own texture.

    Sizes follow a power law, as those of things do (dead leaves: Lee, Mumford and Huang, IJCV 41, 2001).

    Returns
    -------
    Tensor
        (count, 1, side, side) reflectance.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    slope, depth, smallest = 0.3 + 1.5 * float(uniform(1)), 0.25 * float(uniform(1)) ** 1.5, 1.5 + 6 * float(uniform(1))
    frequency = torch.hypot(torch.fft.fftfreq(2 * side)[:, None], torch.fft.rfftfreq(2 * side)[None])
    falloff = frequency.clamp(min=1 / side) ** -slope
    images = []
    for _ in range(count):
        noise = torch.randn(2 * side, 2 * side, generator=generator)
        texture = torch.fft.irfft2(torch.fft.rfft2(noise) * falloff)[:side, :side]
        image = _shapes(side, smallest, int(5 + 40 * float(uniform(1))), 0.02 + 0.3 * float(uniform(1)), generator)
        images.append(image * (1 + depth * texture / texture.std()).clamp(0.2, 3))
    return torch.stack(images)[:, None]


def _shapes(side: int, smallest: float, number: int, ground: float, generator: torch.Generator) -> Tensor:
    """Return ellipses and turned rectangles on a ground, the largest below."""
    rank = torch.rand(number, generator=generator)
    sizes = smallest / (1 - rank * (1 - (smallest / side) ** 1.5)) ** (1 / 1.5)
    y = torch.arange(side, dtype=torch.float32)[:, None] + 0.5
    x = y.T
    image = torch.full((side, side), ground)
    shapes = torch.rand(number, 6, generator=generator).tolist()
    for size, (row, col, angle, aspect, value, kind) in zip(
        sizes.sort(descending=True)[0].tolist(), shapes, strict=True
    ):
        turn = math.pi * angle * (kind > 0.3)  # things men made often lie along the grid
        p = (y - row * side) * math.cos(turn) + (x - col * side) * math.sin(turn)
        q = ((x - col * side) * math.cos(turn) - (y - row * side) * math.sin(turn)) / (0.3 + 0.7 * aspect)
        inside = (p.abs() < size) & (q.abs() < size) if kind < 0.75 else p * p + q * q < size * size
        image = torch.where(inside, 0.01 + 0.35 * value**1.5, image)
    return image


Example = tuple[NDArray[np.float64], Blur, float]
"""Features, blur and noise of patches that were degraded alike."""


def forms(draw: Draw, count: int, generator: torch.Generator, strong: bool = False) -> list[Example]:
    """Return one example of ``count`` patches; of a fifth of the small ones two, shrunk by two and by four.

    So the network learns tiles of 16 pixels, too. Brightness and contrast vary by a factor of four; half of the
    examples are noisy, a quarter is rounded to 8 bits and a quarter to 16. ``strong`` asks for one more, in noise that
    no network is told, so that it is not taken for texture.
    """
    clean = draw(count, generator)
    u = torch.rand(9, generator=generator).tolist()
    clean = clean.clamp(min=0) * (0.5 * 4 ** u[0])
    clean = 0.12 * (clean / 0.12) ** (0.8 + 0.45 * u[1])
    large = clean.shape[-1] >= 128
    scales = [4 if large and u[2] >= 0.5 else 2]
    if not large and u[2] >= 0.8:
        scales.append(4)
    state, found = generator.get_state(), []
    for scale in scales:
        generator.set_state(state)
        found.append(_example(clean, scale, u[3:], 0.0 if u[6] < 0.5 else NOISIEST * u[7] ** 3, generator))
    if strong:
        found.append(_example(clean, scales[0], u[3:], NOISIEST * STRONGER ** u[7], generator))
    return found


def _example(clean: Tensor, scale: int, u: list[float], sigma: float, generator: torch.Generator) -> Example:
    """Return the example of clean patches (N, 1, H, W) that six random numbers say, with noise."""
    low, high = MTF_RANGE
    blur = Blur("gaussian", low + (high - low) * u[0]) if u[1] < 0.68 else Blur(KINDS[1 + int(u[2] * 2.6)])
    coarse = decimate(clean, scale, [[blur.kernel(scale)]] * len(clean))
    coarse = white_noise(coarse, sigma, generator)[:, 0]
    step = EUROSAT.level if u[5] < 0.25 else 1e-4 if u[5] < 0.5 else 0.0
    if step:
        coarse, sigma = quantize(coarse, step), math.hypot(sigma, step / math.sqrt(12))
    tiles = [cut_tiles(each.numpy()) for each in coarse]  # as those of a scene
    return features(np.concatenate(tiles)), blur, sigma


def target(blur: Blur) -> NDArray[np.float32]:
    """Return the probabilities that are right for a blur: a Gaussian's are shared by the two nearest transfers."""
    found = np.zeros(len(TRANSFERS) + len(KINDS) - 1, np.float32)
    if blur.kind != "gaussian":
        found[len(TRANSFERS) + KINDS.index(blur.kind) - 1] = 1
        return found
    at = float(np.interp(blur.mtf, TRANSFERS, np.arange(len(TRANSFERS))))
    first = min(int(at), len(TRANSFERS) - 2)
    found[first : first + 2] = 1 - (at - first), at - first
    return found


def examples(draw: Draw, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64]]:
    """Return features (N, F), probabilities (N, K) and noise (N,) of random examples: ``count`` times `forms`."""
    rows: list[Example] = []
    for index in range(count):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        rows += forms(draw, COUNTS[index % len(COUNTS)], generator, index % EVERY == 0)
    return (
        np.stack([row[0] for row in rows]),
        np.stack([target(row[1]) for row in rows]),
        np.array([row[2] for row in rows]),
    )


def fit(
    x: NDArray[np.float64], y: NDArray[np.float32], sigma: NDArray[np.float64], *, epochs: int = 30, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Train the network; return its weights by name, as `scenelift.models.sensing.estimation` reads them."""
    torch.manual_seed(seed)
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    inputs = torch.tensor(np.clip((x - mean) / deviation, -5, 5), dtype=torch.float32)
    chances, levels = torch.from_numpy(y), torch.log2(1 + torch.tensor(sigma, dtype=torch.float32) / SIGMA_UNIT)
    first, second, last = nn.Linear(x.shape[1], 512), nn.Linear(512, 256), nn.Linear(256, y.shape[1] + 1)
    net = nn.Sequential(first, nn.SiLU(), nn.Dropout(0.3), second, nn.SiLU(), nn.Dropout(0.15), last)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for batch in torch.randperm(len(inputs)).split(512):
            noisy = inputs[batch] + 0.03 * torch.randn(len(batch), x.shape[1])
            out = net(noisy)
            loss = -(chances[batch] * out[:, :-1].log_softmax(1)).sum(1).mean()
            loss = loss + 0.3 * F.smooth_l1_loss(out[:, -1], levels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    layers = {"first": first, "second": second, "last": last}
    found = {f"{name}.{k}": v.numpy() for name, layer in layers.items() for k, v in layer.state_dict().items()}
    return found | {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}


def store(path: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    """Write the weights of `fit`."""
    save_file(weights, path)
