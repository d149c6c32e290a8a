"""Which enhancement helps a classifier: what was measured on its own validation images, and what that says of a scene.

The measurement (`scenelift.workflows.landcover.measuring`) stands beside the classifier's weights, NAME.chains, and
holds for these weights alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from scenelift.models.checkpoint import checkpoint_digest, write_atomically
from scenelift.models.errors import ModelError
from scenelift.models.shipped import checkpoint_path
from scenelift.pipeline.errors import UnfitError, UsageError
from scenelift.pipeline.settings import read_table
from scenelift.workflows.conditions import Conditions
from scenelift.workflows.landcover.settings import AUTO

SUFFIX = ".chains"
"""Ending of the file with a classifier's measurement, beside its checkpoint."""
TOLD_APART = 0.2
"""Difference (of the natural logarithm) from which on transfers at Nyquist are told apart."""
SAME_PIXELS = math.sqrt(2)
"""Ratio up to which a pixel counts as one of a measured size."""
Gain = tuple[float, float, float]
"""Points of balanced accuracy over images as they are: mean, and its 95 % interval."""


@dataclass(frozen=True)
class Seen:
    """What a measurement is looked up by: how the pixels look that a classifier would see."""

    noise: float
    """Standard deviation, reflectance; mean over the bands of what networks are told."""
    mtf: float
    """Transfer at Nyquist, mean over the bands, as estimated."""
    coarse: float = 1.0
    """Size of a pixel over that of the classifier's training images."""
    windows: bool = False
    """Whether the classifier sees windows of a scene; False: images, each as a whole, whatever its size."""

    @classmethod
    def of(cls, conditions: Conditions, coarse: float = 1.0, windows: bool = False) -> Seen:
        """Return what conditions that were estimated say."""
        noise = math.sqrt(float(np.mean(np.square(conditions.noise))))
        mtf = float(np.mean([blur.at_nyquist(2) for blur in conditions.blur]))
        return cls(round(noise, 6), round(mtf, 4), coarse, windows)


@dataclass(frozen=True)
class Row:
    """What was measured on images of one noise, blur and pixel size."""

    coarse: int
    """By what they were made coarser."""
    blur: float
    """Standard deviation of the Gaussian that they were blurred by, pixels."""
    added: float
    """Standard deviation of the white noise that was added, reflectance."""
    noise: float
    """What is then found of them: `Seen.noise`."""
    mtf: float
    """`Seen.mtf`."""
    accuracy: float
    """Balanced accuracy without enhancement, %."""
    gains: dict[str, Gain]
    """Of each chain (names with commas)."""
    windows: dict[str, Gain] = field(default_factory=dict)
    """Of chains that show the classifier less ground in a window of a scene than in the whole image."""

    def seen(self, windows: bool) -> dict[str, Gain]:
        """Return the gains for images, or for windows of a scene."""
        return self.gains | self.windows if windows else self.gains


def best_of(gains: dict[str, Gain]) -> str | None:
    """Return the chain that helps most of those that surely help; None if none does."""
    return max((name for name, gain in gains.items() if gain[1] > 0), key=lambda name: gains[name][0], default=None)


def harms(gain: Gain) -> bool:
    """Whether a chain surely lowers accuracy."""
    return gain[2] < 0


@dataclass(frozen=True)
class Chains:
    """A classifier's measurement."""

    classifier: str
    """SHA-256 of its checkpoint."""
    images: str
    """On which it was made."""
    pixel: float
    """Their pixels, metres."""
    side: int
    """Their side, pixels."""
    networks: dict[str, str]
    """SHA-256 of each network of the chains."""
    rows: tuple[Row, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Chains that were measured, of networks that are still the same."""
        found = dict.fromkeys(chain for row in self.rows for chain in row.gains)
        return tuple(chain for chain in found if all(map(self._unchanged, chain.split(","))))

    def _unchanged(self, name: str) -> bool:
        path = checkpoint_path(name)
        return path is not None and self.networks.get(name) == checkpoint_digest(path)

    def at(self, seen: Seen) -> tuple[Row, tuple[float, ...]] | None:
        """Return what was measured of images that look so, and at which noise; None if none had pixels of that size.

        Between two levels of noise figures are interpolated; of blurs the nearest counts.
        """
        groups: dict[float, list[Row]] = {}
        for row in self.rows:
            if _ratio(seen.coarse, row.coarse) <= SAME_PIXELS:
                groups.setdefault(row.blur, []).append(row)
        # where noise hides the blur, all look alike: then they are taken for sharp
        return min(
            (_between(rows, seen.noise) for rows in groups.values()),
            key=lambda found: (round(math.log(_ratio(seen.mtf, found[0].mtf)) / TOLD_APART), found[0].blur),
            default=None,
        )


def _ratio(one: float, other: float) -> float:
    return max(one / other, other / one)


def _between(rows: list[Row], noise: float) -> tuple[Row, tuple[float, ...]]:
    """Return the row of images of that noise, made of the two around it, and their noise; beyond all: of the last."""
    below = max((row for row in rows if row.noise <= noise), key=lambda row: row.noise, default=None)
    above = min((row for row in rows if row.noise >= noise), key=lambda row: row.noise, default=None)
    if below is None or above is None or below.noise == above.noise:
        only = below or above or rows[0]
        return only, (only.noise,)
    share = (noise - below.noise) / (above.noise - below.noise)

    def mixed(one: float, other: float) -> float:
        return (1 - share) * one + share * other

    def gains(one: dict[str, Gain], other: dict[str, Gain]) -> dict[str, Gain]:
        both = ((name, one[name], other[name]) for name in one if name in other)
        return {name: (mixed(a, x), mixed(b, y), mixed(c, z)) for name, (a, b, c), (x, y, z) in both}

    row = replace(
        below,
        noise=noise,
        mtf=mixed(below.mtf, above.mtf),
        accuracy=mixed(below.accuracy, above.accuracy),
        gains=gains(below.gains, above.gains),
        windows=gains(below.windows, above.windows),
    )
    return row, (below.noise, above.noise)


def chains_path(checkpoint: Path) -> Path:
    """Return where a classifier's measurement is kept."""
    return checkpoint.with_suffix(SUFFIX)


def read_chains(classifier: str) -> Chains | None:
    """Return the measurement of a classifier as it is now; None if there is none.

    Raises
    ------
    ModelError
        If its file is damaged.
    """
    checkpoint = checkpoint_path(classifier)
    if checkpoint is None or not (path := chains_path(checkpoint)).is_file():
        return None
    try:
        found = read_table(Chains, json.loads(path.read_text(encoding="utf-8")), "", error=ModelError)
    except (ValueError, OSError, ModelError) as error:
        raise ModelError(f"{path} is no readable measurement: {error}; delete it, or measure again") from None
    return found if found.classifier == checkpoint_digest(checkpoint) else None


def write_chains(path: Path, chains: Chains) -> None:
    """Write a measurement, one row a line."""
    table = asdict(chains)
    rows = ",\n".join(f"  {json.dumps(row)}" for row in table.pop("rows"))
    text = f'{json.dumps(table, indent=1)[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'
    write_atomically(path, text.encode())


@dataclass(frozen=True)
class Choice:
    """What goes before a classifier, and why."""

    names: tuple[str, ...]
    note: str
    """One line for people; "" if there is nothing to say."""


def unmeasured(before: tuple[str, ...], classifier: str) -> Choice:
    """Return the choice of a user for a classifier without a measurement; parameters as of `choose`.

    Raises
    ------
    UsageError
        If the choice was left to the measurement.
    """
    line = f"what enhancement does to the accuracy of {_title(classifier)} was not measured"
    if checkpoint_path(classifier):
        line += f": `scenelift landcover measure {classifier} --data IMAGES` does"
    if before == (AUTO,):
        raise UsageError(f"{AUTO} cannot choose: {line}")
    return Choice(before, line if before else "")


def choose(
    before: tuple[str, ...],
    classifier: str,
    chains: Chains,
    look: Callable[[], Seen],
    joint: tuple[str, ...],
    force: bool = False,
) -> Choice:
    """Choose what goes before a classifier, or say what is known of what was chosen.

    Parameters
    ----------
    before : tuple of str
        Names of models; (`AUTO`,): what helps most; (): nothing, unless it would help.
    classifier : str
    chains : Chains
        Its measurement.
    look : callable
        Returns what the pixels look like; called where that counts.
    joint : tuple of str
        The same models by the names of the networks that will run: denoise-rgb for denoise where the colours are known.
    force : bool
        Go on although a chain lowers accuracy.

    Raises
    ------
    UnfitError
        If the chain surely lowers accuracy on such images, and is not forced.
    """
    title, chain, auto = _title(classifier), ",".join(joint), before == (AUTO,)
    if before and not auto and chain not in chains.names:
        known = "; ".join(chains.names) or "nothing"
        return Choice(before, f"what {chain} does to the accuracy of {title} was not measured; measured were {known}")
    seen = look()
    found = chains.at(seen)
    if found is None:
        kept = "none is made" if auto or not before else "this one may lower it"
        line = f"enhancement before {title} was not measured at pixels of {seen.coarse * chains.pixel:.3g} m: {kept}"
        return Choice(() if auto else before, line)
    row, levels = found
    gains = {name: gain for name, gain in row.seen(seen.windows).items() if name in chains.names}
    best = best_of(gains)
    where = f"{_where(seen, row, levels)}, where {title} has {row.accuracy:.1f} % without"
    if auto:
        chosen = f"{best}: {points(gains[best])}" if best else "no enhancement: none surely helps"
        return Choice(tuple(best.split(",")) if best else (), f"auto chose {chosen} {where}")
    if before:
        return _checked(before, chain, gains.get(chain), where, f"-m {AUTO},{classifier}", force)
    return Choice((), f"-m {AUTO},{classifier} would take {best}: {points(gains[best])} {where}" if best else "")


def _checked(before: tuple[str, ...], chain: str, gain: Gain | None, where: str, instead: str, force: bool) -> Choice:
    """Return the user's own chain with what was measured of it, or refuse it."""
    if gain is None:
        return Choice(before, f"{chain} was not measured {where}")
    if harms(gain) and not force:
        raise UnfitError(
            f"{chain} lowers accuracy, {points(gain)} {where}: nothing was done; "
            f"leave it out, let {instead} choose, or go on with --force"
        )
    return Choice(before, f"{chain}: {points(gain)} {where}")


def _title(classifier: str) -> str:
    return Path(classifier).name if classifier.endswith(".safetensors") else classifier


def points(gain: Gain) -> str:
    """Return a gain for people."""
    mean, low, high = gain
    return f"{mean:+.1f} points of balanced accuracy [{low:+.1f}, {high:+.1f}]"


def _where(seen: Seen, row: Row, levels: tuple[float, ...]) -> str:
    coarse = f"on pixels {row.coarse} times as large " if row.coarse > 1 else ""
    measured = " and ".join(f"{level:.4f}" for level in levels)
    return f"{coarse}at noise {seen.noise:.4f} and blur MTF {seen.mtf:.2f} (by what was measured at {measured})"
