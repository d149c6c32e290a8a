"""Sentinel-2 products in SAFE folders, small: every band at its own resolution, and Level-2A's coarser copies."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from support.builders import UTM, noise_image, write_raster

METRES = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
COPIES = {
    20: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"),
}
"""Bands of each folder of Level-2A but R10m; those that are finer by nature are resampled copies."""
STEM = "T33TXN_20220105T101411"
XML = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{digits}_User_Product xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/User_Product_Level-{digits}.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2022-01-05T10:14:11.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>S2A_MSI{level}_20220105T101411_N0400_R022_T33TXN_20220105T121411.SAFE</PRODUCT_URI>
<PROCESSING_BASELINE>04.00</PROCESSING_BASELINE><Datatake><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME></Datatake>
</Product_Info><Product_Image_Characteristics>
<{kind}QUANTIFICATION_VALUE unit="none">10000</{kind}QUANTIFICATION_VALUE>
{offsets}</Product_Image_Characteristics></n1:General_Info></n1:Level-{digits}_User_Product>"""


def write_safe(
    folder: Path,
    level: str = "L2A",
    side: int = 60,
    offset: int | None = -1000,
    planes: dict[str, NDArray] | None = None,
    scl: NDArray | None = None,
) -> tuple[Path, dict[str, NDArray]]:
    """Write a product whose 10 m bands have `side` pixels a side; return it and what each band holds.

    Parameters
    ----------
    folder : Path
    level : str
        "L1C" (one folder, 13 bands) or "L2A" (R10m, R20m and R60m, 12 bands, the coarser ones twice).
    side : int
        A multiple of 6.
    offset : int, optional
        As of processing baseline 04.00; None: an older product.
    planes : dict, optional
        Values of each band; None: random ones.
    scl : ndarray of uint8, optional
        Scene classification at 20 m, of Level-2A; None: vegetation.
    """
    planes = planes or {
        band: noise_image(n, (side * 10 // metres,) * 2, high=9000) + 1000
        for n, (band, metres) in enumerate(METRES.items())
        if level == "L1C" or band != "B10"
    }
    images = folder / "GRANULE" / f"{level}_T33TXN_A034147_20220105T101408" / "IMG_DATA"
    for band, values in planes.items():
        metres = METRES[band]
        if level == "L1C":
            _write(images / f"{STEM}_{band}.jp2", values, metres)
            continue
        _write(images / f"R{metres}m" / f"{STEM}_{band}_{metres}m.jp2", values, metres)
        for other, bands in COPIES.items():
            if band in bands and other != metres:
                copy = np.full((side * 10 // other,) * 2, 4242, "uint16")
                _write(images / f"R{other}m" / f"{STEM}_{band}_{other}m.jp2", copy, other)
    if level == "L2A":
        half = (side // 2,) * 2
        _write(images / "R20m" / f"{STEM}_SCL_20m.jp2", np.full(half, 4, "uint8") if scl is None else scl, 20)
        _write(images / "R60m" / f"{STEM}_SCL_60m.jp2", np.zeros((side // 6,) * 2, "uint8"), 60)
    tag = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    offsets = "" if offset is None else "".join(f'<{tag} band_id="{i}">{offset}</{tag}>' for i in range(13))
    kind = "" if level == "L1C" else "BOA_"
    text = XML.format(digits=level[1:], level=level, kind=kind, offsets=offsets)
    (folder / f"MTD_MSI{level}.xml").write_text(text)
    return folder, planes


def zipped(folder: Path) -> Path:
    """Return a zip of a product, which holds its folder."""
    path = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, Path(folder.name) / file.relative_to(folder))
    return path


def _write(path: Path, values: NDArray, metres: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = UTM @ Affine.scale(metres / 10)
    write_raster(path, values[None], transform, driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100")
