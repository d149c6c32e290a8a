"""What is no image: classes, palettes, quality flags. Their numbers are names and must not be averaged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Names that products give their layers of flags and classes: Landsat Collection 1 and 2, Sentinel-2 (scene
# classification, QA60, MSK_…), HLS, MODIS.
_NAMES = re.compile(
    r"(?i)(^|[^a-z0-9])("
    r"bqa|qa60|scl|fmask|qa_?pixel|pixel_?qa|qa_?radsat|radsat_?qa|sr_?qa_?aerosol|sr_?cloud_?qa|cloud_?qa|st_?qa"
    r"|msk_(classi|cldprb|snwprb|detfoo|qualit)\w*|sur_?refl_(state|qc)_\w+|(state|qc)_(1km|500m|250m)"
    r")($|_?\d{2,3}m($|[^a-z0-9])|[^a-z0-9])"
)
_FLAGS = ("flag_values", "flag_masks", "flag_meanings")


def flagged_by_name(*names: str | None) -> str | None:
    """Return why a band of integers whose file, variable or description has one of these names holds no image."""
    found = next((name for name in names if name and _NAMES.search(name)), None)
    return f"{found} names quality flags or classes" if found else None


def flagged_by_attributes(attributes: Mapping[str, Any]) -> str | None:
    """Return why a variable with these CF attributes holds no image."""
    found = next((name for name in _FLAGS if name in attributes), None)
    return f"its attribute {found} says that its values are flags or classes" if found else None


def flagged_by_color(color: str) -> str | None:
    """Return why a band of this colour interpretation holds no image."""
    return "it has a palette: its values are numbers of colours or classes" if color == "palette" else None


def named_mask(name: str) -> bool:
    """Whether a variable is called as masks are, whatever its values mean."""
    return re.search(r"(?i)(^|[^a-z])(mask|masks|cloud_?mask|valid_?mask)($|[^a-z])", name) is not None
