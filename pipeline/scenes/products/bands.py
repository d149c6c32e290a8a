"""Names of bands: as products call them, the common names of the STAC extension eo, and centre wavelengths."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scenelift.pipeline.errors import UsageError

COMMON, WAVELENGTH = "common_name", "center_wavelength"
"""Tags of a band that keep its common name and its centre wavelength (micrometres)."""


class Spectral(NamedTuple):
    """What a band sees."""

    common: str
    """Common name, of the STAC extension eo."""
    wavelength: float
    """Centre, micrometres."""

    @property
    def tags(self) -> dict[str, str]:
        """As tags of a band."""
        return {COMMON: self.common, WAVELENGTH: f"{self.wavelength:g}"}


SENTINEL2 = {
    "B01": Spectral("coastal", 0.443), "B02": Spectral("blue", 0.49), "B03": Spectral("green", 0.56),
    "B04": Spectral("red", 0.665), "B05": Spectral("rededge071", 0.704), "B06": Spectral("rededge075", 0.74),
    "B07": Spectral("rededge078", 0.783), "B08": Spectral("nir", 0.842), "B8A": Spectral("nir08", 0.865),
    "B09": Spectral("nir09", 0.945), "B10": Spectral("cirrus", 1.375), "B11": Spectral("swir16", 1.61),
    "B12": Spectral("swir22", 2.19),
}  # fmt: skip
"""Of Sentinel-2 (ESA, Sentinel-2 User Handbook; common names of the STAC extension eo)."""
_OLI = {
    "B1": Spectral("coastal", 0.443), "B2": Spectral("blue", 0.482), "B3": Spectral("green", 0.561),
    "B4": Spectral("red", 0.655), "B5": Spectral("nir08", 0.865), "B6": Spectral("swir16", 1.609),
    "B7": Spectral("swir22", 2.201), "B8": Spectral("pan", 0.59), "B9": Spectral("cirrus", 1.373),
}  # fmt: skip
_ETM = {
    "B1": Spectral("blue", 0.483), "B2": Spectral("green", 0.56), "B3": Spectral("red", 0.662),
    "B4": Spectral("nir", 0.835), "B5": Spectral("swir16", 1.648), "B7": Spectral("swir22", 2.206),
    "B8": Spectral("pan", 0.706),
}  # fmt: skip
_TM = {
    "B1": Spectral("blue", 0.486), "B2": Spectral("green", 0.571), "B3": Spectral("red", 0.66),
    "B4": Spectral("nir", 0.839), "B5": Spectral("swir16", 1.678), "B7": Spectral("swir22", 2.217),
}  # fmt: skip
LANDSAT = {"LANDSAT_9": _OLI, "LANDSAT_8": _OLI, "LANDSAT_7": _ETM, "LANDSAT_5": _TM, "LANDSAT_4": _TM}
"""By spacecraft (USGS, Landsat band designations)."""


def sentinel2_code(name: str) -> str:
    """Return the name of a Sentinel-2 band that the name of a file or a band holds ("T32TPS_…_B05_20m"), else ""."""
    found = re.search(r"(?:^|[^A-Z0-9])(B(?:0[1-9]|1[0-2]|8A))(?:$|[^A-Z0-9])", name.upper())
    return found[1] if found else ""


def wavelength(name: str, tags: Mapping[str, str]) -> float:
    """Return the centre of a band in nm, as it is tagged or as its name tells; 0 if neither does."""
    told = tags.get(WAVELENGTH, "").strip()
    if re.fullmatch(r"\d*\.?\d+", told):
        return round(1000 * float(told), 1)
    code, folded = sentinel2_code(name), name.strip().casefold()
    known = [seen for band, seen in SENTINEL2.items() if band == code or seen.common == folded]
    return round(1000 * known[0].wavelength, 1) if known else 0.0


def spectral_columns(tags: Sequence[Mapping[str, str]]) -> dict[str, list[Any]]:
    """Return what is known of bands' places in the spectrum, by the name of its coordinate; nothing is known: none.

    Common names, "" for a band without one; centre wavelengths in micrometres, NaN for a band without one.
    """
    found: dict[str, list[Any]] = {}
    if any(each.get(COMMON) for each in tags):
        found[COMMON] = [each.get(COMMON, "") for each in tags]
    micrometres = [wavelength("", each) / 1000 or math.nan for each in tags]
    if not all(map(math.isnan, micrometres)):
        found[WAVELENGTH] = micrometres
    return found


class Label(NamedTuple):
    """By what a band may be named."""

    name: str | None
    """Description."""
    color: str
    """GDAL's colour interpretation."""
    tags: Mapping[str, str]


def choose(wanted: Sequence[int | str], labels: Sequence[Label], where: str, others: Mapping[str, str]) -> list[int]:
    """Return the 1-based numbers of bands that are given by number or name.

    A name is that of the band, a Sentinel-2 code within it, its common name, or its colour; "nir" also means a narrow
    one where there is no other.

    Parameters
    ----------
    wanted : sequence of int or str
    labels : sequence of Label
        Of every band there is.
    where : str
        What holds them, for messages.
    others : mapping
        Names of bands that are not among them, and what would bring them.

    Raises
    ------
    UsageError
        If there is no such band, or several.
    """
    found = []
    for one in wanted:
        if isinstance(one, int):
            if not 1 <= one <= len(labels):
                raise UsageError(f"band {one} does not exist: {where} has bands 1 to {len(labels)}")
            found.append(one)
            continue
        numbers = _named(one.strip(), labels)
        if len(numbers) == 1:
            found.append(numbers[0])
            continue
        listed = ", ".join(_shown(label) for label in labels)
        if numbers:
            several = ", ".join(_shown(labels[n - 1]) for n in numbers)
            raise UsageError(f"{one!r} names several bands of {where}: {several}; name one of them")
        code = next((name for name in others if name.casefold() == one.strip().casefold()), None)
        how = f"; {code} {others[code]}" if code else ""
        if not any(label.name or label.tags.get(COMMON) for label in labels):
            raise UsageError(
                f"{where} has no band {one!r}: its bands have no names, give numbers from 1 to {len(labels)}"
            )
        raise UsageError(f"{where} has no band {one!r}, but {listed}{how}")
    return found


def _named(text: str, labels: Sequence[Label]) -> list[int]:
    """Return the numbers of the bands that a name fits best."""
    folded = text.casefold()
    tries = (
        lambda label: (label.name or "").casefold() == folded,
        lambda label: sentinel2_code(label.name or "").casefold() == folded,
        lambda label: common_name(label) == folded,
        lambda label: label.color == folded,
        lambda label: folded in ("nir", "rededge") and common_name(label).startswith(folded),
    )
    for fits in tries:
        if numbers := [number for number, label in enumerate(labels, start=1) if fits(label)]:
            return numbers
    return []


def common_name(label: Label) -> str:
    """Return the common name of a band: as it is tagged, else of the Sentinel-2 code in its name; "" if unknown."""
    told = label.tags.get(COMMON, "")
    code = sentinel2_code(label.name or "")
    return told or (SENTINEL2[code].common if code else "")


def _shown(label: Label) -> str:
    common = common_name(label)
    return f"{label.name or 'unnamed'}{f' ({common})' if common else ''}"
