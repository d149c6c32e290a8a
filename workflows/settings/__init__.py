"""What users may choose, as frozen dataclasses whose fields are options of commands and keys of files.

They stand apart from what they set, so that ``--help`` waits for neither torch nor GDAL.
"""

from scenelift.workflows.settings.enhancing import BLOCK, DEFAULT_MODEL, MODELS, EnhanceSettings, Precision
from scenelift.workflows.settings.measuring import AblateSettings, ScoreSettings
from scenelift.workflows.settings.parsing import (
    INPUT,
    MODEL,
    OUTPUT,
    STOPS,
    WHERE,
    Device,
    band_list,
    numbers,
    split_names,
)
from scenelift.workflows.settings.reading import MASK, MASK_CLASSES, Crop, Reading
from scenelift.workflows.settings.training import TrainingRun

__all__ = [
    "BLOCK",
    "DEFAULT_MODEL",
    "INPUT",
    "MASK",
    "MASK_CLASSES",
    "MODEL",
    "MODELS",
    "OUTPUT",
    "STOPS",
    "WHERE",
    "AblateSettings",
    "Crop",
    "Device",
    "EnhanceSettings",
    "Precision",
    "Reading",
    "ScoreSettings",
    "TrainingRun",
    "band_list",
    "numbers",
    "split_names",
]
