"""What is published of the blur of sensors: transfer (MTF) at Nyquist by band."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from scenelift.models.errors import ModelError
from scenelift.models.sensing.blurs import KINDS, LEAST, Blur

SENTINEL2 = {
    "B01": 0.32, "B02": 0.275, "B03": 0.28, "B04": 0.25, "B05": 0.38, "B06": 0.34, "B07": 0.34, "B08": 0.24,
    "B8A": 0.33, "B09": 0.26, "B11": 0.22, "B12": 0.23,
}  # fmt: skip


@dataclass(frozen=True)
class Sensor:
    """A sensor's published transfers."""

    mtf: dict[str, float]
    """At Nyquist, by the name of the band."""
    source: str
    platforms: tuple[str, ...] = ()
    """Beginnings of the names that products give to the platform, in lower case."""


VIVONE = "G. Vivone et al., IEEE TGRS 53(5), 2015, pansharpening toolbox"
SENSORS = {
    "sentinel-2": Sensor(
        SENTINEL2,
        "Sentinel-2 L1C data quality report; 10 m bands as in the SEN2 toolkits",
        ("sentinel-2", "s2a", "s2b", "s2c"),
    ),
    "ikonos": Sensor({"blue": 0.26, "green": 0.28, "red": 0.29, "nir": 0.28}, VIVONE, ("ikonos",)),
    "quickbird": Sensor({"blue": 0.34, "green": 0.32, "red": 0.30, "nir": 0.22}, VIVONE, ("quickbird", "qb02")),
    "geoeye-1": Sensor({"blue": 0.23, "green": 0.23, "red": 0.23, "nir": 0.23}, VIVONE, ("geoeye", "ge01")),
    "worldview-2": Sensor({"blue": 0.35, "green": 0.35, "red": 0.35, "nir": 0.35}, VIVONE, ("worldview-2", "wv02")),
    "worldview-3": Sensor({"blue": 0.355, "green": 0.36, "red": 0.365, "nir": 0.335}, VIVONE, ("worldview-3", "wv03")),
}


def parse_blur(text: str, bands: list[str]) -> tuple[Blur, ...] | None:
    """Return the blur of each band that a user names; None for "auto".

    Parameters
    ----------
    text : str
        "auto"; a transfer at Nyquist (``0.27``); a kind of resampling (``area``, ``bicubic``, ``lanczos``); a sensor
        (``sentinel-2``); or one transfer or kind for each band, separated by commas.
    bands : list of str
        Names of the scene's bands, in order.

    Raises
    ------
    ModelError
        If the text is none of these, or does not fit the bands.
    """
    word = text.strip().lower()
    if word == "auto":
        return None
    if word in SENSORS:
        return sensor_blur(word, bands)
    parts = [_one(part.strip(), text) for part in word.split(",")]
    if len(parts) not in (1, len(bands)):
        raise ModelError(f"--blur names {len(parts)} values, the scene has {len(bands)} bands: give one, or one a band")
    return tuple(parts * len(bands) if len(parts) == 1 else parts)


def _one(word: str, text: str) -> Blur:
    if word in KINDS[1:]:
        return Blur(word)
    try:
        transfer = float(word)
    except ValueError:
        near = difflib.get_close_matches(word, [*SENSORS, *KINDS[1:], "auto"], 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelError(
            f"--blur must be auto, an MTF at Nyquist such as 0.27, {', '.join(KINDS[1:])}, "
            f"or a sensor ({', '.join(SENSORS)}), got {text!r}{hint}"
        ) from None
    if not LEAST <= transfer < 1:
        raise ModelError(f"--blur: an MTF at Nyquist must lie between {LEAST} and 1, got {word}")
    return Blur("gaussian", transfer)


def sensor_blur(name: str, bands: list[str]) -> tuple[Blur, ...]:
    """Return the published blur of each band of a sensor; bands it does not list get the mean of those it does."""
    known = SENSORS[name].mtf
    mean = sum(known.values()) / len(known)
    return tuple(Blur("gaussian", round(known.get(band, known.get(band.lower(), mean)), 3)) for band in bands)


def sensor_of(platform: str) -> str | None:
    """Return the sensor that a product's platform carries, None for one that is not listed."""
    word = platform.strip().lower().replace("_", "-")
    return next((name for name, s in SENSORS.items() if any(word.startswith(p) for p in s.platforms)), None)
