"""The settings of a codec training run; the files under `configs` fill them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.store import check_name
from encodec_fast.training.data import DataSettings
from encodec_fast.training.discriminator import DISCRIMINATOR_PRESETS
from encodec_fast.training.distillation import DistillationSettings
from encodec_fast.training.losses import MEL_PRESETS, mel_loss
from encodec_fast.training.run_settings import RunSettings, check, check_choice, check_positive
from encodec_fast.training.sources import placed

GENERATOR_FORMS = ("hinge", "mean")
BANDWIDTH_DRAWS = ("weights", "any")
LARGEST = 1e9  # of a weight
BALANCED = ("l1", "snr", "mel", "adversarial", "features")


@dataclass(frozen=True)
class LossSettings:
    """What the decoder and the encoder are trained on (paper 3.4, spec 6).

    `weights` are the balancer's shares: l1 (waveform), snr (noise-to-signal ratio in dB, ours),
    mel, adversarial, features; one that is missing or 0 is not computed. `commitment` is outside
    the balancer. `mel` and `generator` choose the paper's form or audiocraft's.
    """

    weights: dict[str, float] = field(
        default_factory=lambda: {"l1": 0.1, "mel": 1.0, "adversarial": 3.0, "features": 3.0}
    )
    commitment: float = 1.0
    mel: str = "paper"
    mel_floor: float | None = None
    generator: str = "hinge"
    relative_features: bool = True
    balancer_decay: float = 0.999

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in BALANCED:
                raise ValueError(f"weights: expected {', '.join(BALANCED)}, found {name!r}")
            check(f"weights.{name}", weight, 0, LARGEST)
        if not any(self.weights.get(name, 0) for name in ("l1", "snr", "mel")):
            raise ValueError("weights: expected a weight for l1, snr or mel")
        check("commitment", self.commitment, 0, LARGEST)
        check_choice("mel", self.mel, tuple(MEL_PRESETS))
        check_choice("generator", self.generator, GENERATOR_FORMS)
        if not 0 <= self.balancer_decay < 1:
            raise ValueError(
                f"balancer_decay: expected 0 to below 1, found {self.balancer_decay!r}"
            )
        if self.mel_floor is not None:
            check_positive("mel_floor", self.mel_floor)


@dataclass(frozen=True)
class AdversarySettings:
    """The discriminators (paper 3.4): which preset, one per bandwidth or one for all, how likely a
    step updates them, from which share of the run on they take part, and how many crops of a batch
    they see (None: all)."""

    preset: str = "paper"
    per_bandwidth: bool = True
    update_probability: float = 2 / 3
    start: float = 0.0
    crops: int | None = None
    lr: float = 3e-4

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(DISCRIMINATOR_PRESETS))
        check("update_probability", self.update_probability, 0, 1)
        check("start", self.start, 0, 1)
        if self.crops is not None:
            check("crops", self.crops, 1)
        check_positive("lr", self.lr)


@dataclass(frozen=True)
class QuantizerSettings:
    """How the codebooks learn (paper 3.2, spec 2.4 to 2.8).

    `draw`: "weights" draws one of the model's bandwidths for a batch, alike or by `weights` (kbps:
    weight); "any" draws any number of codebooks, as audiocraft does. The first `plain_steps` go
    without quantiser, then k-means on the latents of `initial_batches` batches starts all
    codebooks. `reference` does as the released code, for comparison: codewords shrink after
    k-means, dead codes stay dead, and the first codebook's commitment alone trains the encoder.
    """

    draw: str = "weights"
    weights: dict[str, float] = field(default_factory=dict)
    plain_steps: int = 0
    initial_batches: int = 1
    kmeans_iterations: int = 50
    decay: float = 0.99
    reference: bool = False

    def __post_init__(self) -> None:
        check_choice("draw", self.draw, BANDWIDTH_DRAWS)
        for name, weight in self.weights.items():
            check(f"weights.{name}", weight, 0, LARGEST)
        check("plain_steps", self.plain_steps, 0)
        check("initial_batches", self.initial_batches, 1)
        check("kmeans_iterations", self.kmeans_iterations, 1)
        check("decay", self.decay, 0, 1)
        if self.weights and (self.draw == "any" or not sum(self.weights.values()) > 0):
            raise ValueError(f"weights: expected some above 0, with draw weights: {self.weights!r}")


@dataclass(frozen=True)
class ValidationSettings:
    """Every `steps` updates (0: never) `clips` fixed crops of `seconds` are coded at `bandwidth`
    (kbps, None: the middle one) with the averaged weights; `examples` of them are shown."""

    steps: int = 2000
    clips: int = 24
    seconds: float = 2.0
    bandwidth: float | None = None
    examples: int = 3

    def __post_init__(self) -> None:
        check("steps", self.steps, 0)
        check("clips", self.clips, 1)
        check("seconds", self.seconds, 0.1, 60)
        check("examples", self.examples, 0)


@dataclass(frozen=True, kw_only=True)
class CodecSettings(RunSettings):
    """One training run of a codec.

    model: one of the configurations by name; `architecture` replaces it by one of your own.
    start_from: a program file, a bundled model or a checkpoint, whose weights the run starts with
    (other channels than the model's are copied or averaged). The path of the cache begins in `out`.
    """

    task: ClassVar[str] = "codec"

    data: DataSettings
    model: str = "encodec_24khz"
    architecture: ModelConfig | None = None
    start_from: str | None = None
    steps: int = 600_000
    batch: int = 64
    losses: LossSettings = LossSettings()
    adversary: AdversarySettings = AdversarySettings()
    quantizer: QuantizerSettings = QuantizerSettings()
    validation: ValidationSettings = ValidationSettings()
    distillation: DistillationSettings = field(default_factory=DistillationSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture is None:
            check_choice("model", self.model, tuple(CONFIGS))
        placed(self.data.train, self.audio)
        config = self.config
        check_name(config.name)
        if config.causal == (config.segment is not None):
            raise ValueError(
                f"architecture.segment: expected one exactly where the model is not causal, found "
                f"{config.segment!r}"
            )
        if config.normalize and config.segment is None:
            raise ValueError("architecture.normalize: expected only with a segment, found true")
        self._check_length()
        for name in self.quantizer.weights:
            if name not in {f"{bandwidth:g}" for bandwidth in config.bandwidths}:
                known = ", ".join(f"{bandwidth:g}" for bandwidth in config.bandwidths)
                raise ValueError(f"quantizer.weights: expected kbps of {known}, found {name!r}")
        if self.validation.bandwidth is not None:
            config.n_q(self.validation.bandwidth)

    def _check_length(self) -> None:
        """Crops must be as long as what looks at them needs."""
        weights, rate = self.losses.weights, self.config.sample_rate
        longest = 0
        if weights.get("mel"):
            longest = max(mel_loss(self.losses.mel, rate).windows) * 3 // 8 + 1
        if weights.get("adversarial") or weights.get("features"):
            longest = max(longest, *DISCRIMINATOR_PRESETS[self.adversary.preset](rate).n_ffts)
        if self.samples < longest:
            raise ValueError(
                f"seconds: expected at least {longest / rate:g} for these losses, "
                f"found {self.seconds!r}"
            )

    def rooted(self) -> CodecSettings:
        """The same settings with absolute paths, which hold in any working folder."""
        start, teacher = (
            str(Path(name).absolute()) if name is not None and Path(name).exists() else name
            for name in (self.start_from, self.distillation.model)
        )
        distillation = replace(self.distillation, model=teacher)
        return replace(super().rooted(), start_from=start, distillation=distillation)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.architecture or CONFIGS[self.model]

    @property
    def placed_data(self) -> DataSettings:
        """`data` with the folders that its paths begin in."""
        data, reverb = self.data, self.data.reverb
        if reverb.folder is not None:
            reverb = replace(reverb, folder=str(Path(self.audio, reverb.folder)))
        return replace(
            data,
            train=placed(data.train, self.audio),
            valid=placed(data.valid, self.audio),
            reverb=reverb,
            cache=None if data.cache is None else str(Path(self.out) / data.cache),
        )

    @property
    def samples(self) -> int:
        """Samples per crop: `seconds` as whole frames."""
        frames = max(1, round(self.seconds * self.config.sample_rate / self.config.hop))
        return frames * self.config.hop
