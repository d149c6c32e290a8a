"""Networks in ONNX files: other people's run in the engine, ours run elsewhere."""

SUFFIX = ".onnx"
"""How the name of such a file ends."""
KEY = "scenelift"
"""Key of the file's metadata under which the contract stands, JSON."""
EXTRA = "pip install 'scenelift[onnx]'"
"""What installs the packages that this room needs."""
