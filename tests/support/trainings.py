"""Small trainings for tests: scenes and images with something to learn, and a recipe of a few steps."""

import io
import zipfile

import numpy as np
from PIL import Image

from scenelift.workflows.training.recipe import recipe_from


def textured(bands=2, side=256, seed=0):
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    waves = 1500 + 700 * np.sin(rows / 3.1) * np.cos(cols / 2.3)
    return (waves + rng.normal(0, 50, (bands, side, side))).astype(np.uint16)


def settings(path, **changes):
    values = {
        "name": "tiny",
        "task": "super-resolution",
        "arch": {"kind": "generator", "channels": 16, "blocks": 1, "scale": 2},
        "data": {"side": 32, "train": [{"path": str(path)}], "validation_count": 20},
        "plan": {"batch": 4, "validate_every": 3, "phases": [{"steps": 6}], "optimizer": "muon"},
    }
    return recipe_from(values | changes, "test")


def images(path, labels=("Forest", "River"), each=8, side=32):
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for label in labels:
            for i in range(each):
                pixels = rng.integers(20, 200, (side // 4, side // 4, 3), dtype=np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
                archive.writestr(f"{label}/{label}_{i}.png", buffer.getvalue())
    return path
