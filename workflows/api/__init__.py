"""scenelift from Python: cleaner, sharper satellite scenes.

What stands here is the interface; every other module is internal and may change. Names are imported when they are
first used, so that ``import scenelift`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "scenelift":
    raise ImportError(f"this folder is the package 'scenelift': import it under that name, not as {__name__!r}")

if TYPE_CHECKING:
    from scenelift.models.errors import ModelError as ModelError
    from scenelift.models.spec import ModelSpec as Spec
    from scenelift.pipeline.cluster import ClusterSettings as Cluster
    from scenelift.pipeline.enhance import Enhancer as Enhancer
    from scenelift.pipeline.errors import SceneError as SceneError
    from scenelift.pipeline.errors import SceneliftError as SceneliftError
    from scenelift.pipeline.errors import UsageError as UsageError
    from scenelift.workflows.arrays import apply as apply
    from scenelift.workflows.enhance import enhance as enhance
    from scenelift.workflows.lazy import open as open
    from scenelift.workflows.python import list_models as list_models
    from scenelift.workflows.python import load as load
    from scenelift.workflows.python import score as score
    from scenelift.workflows.python import train as train
    from scenelift.workflows.settings import Crop as Crop
    from scenelift.workflows.settings import EnhanceSettings as Settings

    __version__: str

_FOUND_IN = {
    "apply": ("workflows.arrays", "apply"),
    "open": ("workflows.lazy", "open"),
    "enhance": ("workflows.enhance", "enhance"),
    "score": ("workflows.python", "score"),
    "load": ("workflows.python", "load"),
    "list_models": ("workflows.python", "list_models"),
    "train": ("workflows.python", "train"),
    "Crop": ("workflows.settings", "Crop"),
    "Settings": ("workflows.settings", "EnhanceSettings"),
    "Cluster": ("pipeline.cluster", "ClusterSettings"),
    "Enhancer": ("pipeline.enhance", "Enhancer"),
    "Spec": ("models.spec", "ModelSpec"),
    "SceneliftError": ("pipeline.errors", "SceneliftError"),
    "UsageError": ("pipeline.errors", "UsageError"),
    "SceneError": ("pipeline.errors", "SceneError"),
    "ModelError": ("models.errors", "ModelError"),
}
__all__ = [
    "Cluster",
    "Crop",
    "Enhancer",
    "ModelError",
    "SceneError",
    "SceneliftError",
    "Settings",
    "Spec",
    "UsageError",
    "__version__",
    "apply",
    "enhance",
    "list_models",
    "load",
    "open",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("scenelift")
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'scenelift' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, own = _FOUND_IN[name]
    found = getattr(import_module(f"scenelift.{module}"), own)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
