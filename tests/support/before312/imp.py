"""What the setup script of the demo's scene (2016) wants of the module `imp`, which Python 3.12 dropped."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType


def load_source(name: str, path: str) -> ModuleType:
    """Return a module read from a file."""
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module in {path}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
