"""Checkpoints come back as they were saved, and damaged or hostile ones are refused in one line."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from scenelift.models.checkpoint import (
    checkpoint_digest,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
    write_atomically,
)
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.spec import ModelSpec

ARCH = {"kind": "generator", "channels": 4, "blocks": 1, "scale": 2}


@pytest.fixture
def saved(tmp_path):
    module = build(ARCH)
    spec = ModelSpec("tiny", "super-resolution", scale=2, halo=module.halo, record={"steps": 3})
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, module, spec, ARCH)
    return path, module, spec


def rewrite(path, change_tensors=None, **metadata):
    tensors = load_file(path)
    spec, arch = read_metadata(path)
    header = {"spec": spec.to_json(), "arch": json.dumps(arch)} | metadata
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, path, {k: v for k, v in header.items() if v is not None})


def test_round_trip(saved):
    path, module, spec = saved
    again, found = load_checkpoint(path, valid=False)
    assert found == spec
    assert not again.training
    assert again.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in again.state_dict().items())
    assert read_metadata(path) == (spec, ARCH)
    assert len(checkpoint_digest(path)) == 64


def test_half_precision_storage_loads_as_float32(saved):
    path = saved[0]
    spec, arch = read_metadata(path)
    save_checkpoint(path, build(ARCH).half(), spec, arch)
    assert {p.dtype for p in load_checkpoint(path)[0].parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.weight"), "lacks the tensor 'head.weight'"),
        (lambda t: t.update(extra=torch.zeros(1)), "does not have: 'extra'"),
        (lambda t: t.update({"head.bias": torch.zeros(5)}), "'head.bias' has shape"),
        (
            lambda t: t.update({"head.bias": torch.zeros(4, dtype=torch.int32)}),
            "must be torch.float32, got torch.int32",
        ),
        (lambda t: t["head.bias"].fill_(float("nan")), "not finite"),
    ],
)
def test_wrong_tensors_are_refused(saved, change, message):
    rewrite(saved[0], change)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(saved[0])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"arch": None}, "lacks arch"),
        ({"arch": "["}, "not JSON"),
        ({"arch": "[]"}, "JSON object"),
        ({"arch": '{"kind": "generator", "channels": 100000000}'}, "channels must be"),
        ({"arch": '{"kind": ["generator"]}'}, "kind must be one of"),
        ({"arch": '{"kind": "autoencoder", "encoder": 3}'}, "autoencoder"),
        ({"arch": '{"kind": "generator", "channels": 512, "blocks": 64}'}, "lacks the tensor"),
        ({"spec": "{}"}, "spec"),
        ({"spec": '{"name": "x", "task": "denoise", "colour": 1}'}, "unknown keys: colour"),
        ({"spec": '{"name": "x", "task": "denoise", "record": {"a": "%s"}}' % ("b" * 2_000_000)}, "larger than"),
    ],
)
def test_wrong_headers_are_refused(saved, metadata, message):
    rewrite(saved[0], **metadata)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(saved[0])


def test_damaged_and_missing_files_are_refused(saved, tmp_path):
    path = saved[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="no readable safetensors"):
        load_checkpoint(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="no readable safetensors"):
        read_metadata(path)
    with pytest.raises(ModelError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A real failing write: the process may not make files larger than 4 KiB."""
    path = tmp_path / "kept"
    write_atomically(path, b"old")
    code = f"""
import resource
from pathlib import Path
from scenelift.models.checkpoint import write_atomically
from scenelift.models.errors import ModelError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(Path({str(path)!r}), b"new" * 4096)
except ModelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("cannot write") and "Traceback" not in done.stderr
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
