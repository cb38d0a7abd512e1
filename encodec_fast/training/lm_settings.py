"""The settings of a training run of an entropy model; the files `configs/lm_*.yaml` fill them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from encodec_fast.store import SUFFIX
from encodec_fast.training.run_settings import OptimizerSettings, RunSettings, check
from encodec_fast.training.sources import SourceSettings, placed


@dataclass(frozen=True)
class CodeDataSettings:
    """The recordings whose codes are learnt.

    train: the sources. valid: those that the model is judged by; where there are none, one in 16
    originals of `train` is held out for it. copies: how often each recording is also coded varied
    in speed, level, sign and company. cache: a folder for the codes.
    """

    train: tuple[SourceSettings, ...]
    valid: tuple[SourceSettings, ...] = ()
    copies: int = 2
    cache: str = "codes"

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train: expected at least one source, found none")
        check("copies", self.copies, 0, 1000)


@dataclass(frozen=True)
class LmOptimizerSettings(OptimizerSettings):
    """AdamW; `weight_decay` of matrices and embeddings alone."""

    lr: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 150
    schedule: str = "cosine"
    clip: float = 1.0
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check("weight_decay", self.weight_decay, 0, 1)


@dataclass(frozen=True, kw_only=True)
class LmSettings(RunSettings):
    """One training run of a codec's entropy model.

    codec: a name or a program file, of any model. The path of the cache begins in `out`. dim,
    heads, layers: of the Transformer. A step takes `batch` sequences of `seconds`. Every
    `check_steps` the model is judged.
    """

    task: ClassVar[str] = "lm"

    data: CodeDataSettings
    codec: str
    dim: int = 72
    heads: int = 3
    layers: int = 5
    dropout: float = 0.0
    check_steps: int = 1000
    steps: int = 20_000
    batch: int = 8
    seconds: float = 5.0
    average_decay: float = 0.995
    save_steps: int = 250
    optimizer: LmOptimizerSettings = LmOptimizerSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        placed(self.data.train, self.audio)
        check("heads", self.heads, 1)
        if self.dim < 4 or self.dim % 2 or self.dim % self.heads:
            raise ValueError(
                f"dim: expected an even number that heads divide, found {self.dim} and {self.heads}"
            )
        for name in ("layers", "check_steps"):
            check(name, getattr(self, name), 1)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected from 0 to below 1, found {self.dropout!r}")

    def rooted(self) -> LmSettings:
        """The same settings with absolute paths, which hold in any working folder."""
        file = Path(self.codec)
        named = file.suffix != SUFFIX and len(file.parts) == 1
        codec = self.codec if named else str(file.absolute())
        return replace(super().rooted(), codec=codec)

    @property
    def placed_data(self) -> CodeDataSettings:
        """`data` with the folders that its paths begin in."""
        data = self.data
        return replace(
            data,
            train=placed(data.train, self.audio),
            valid=placed(data.valid, self.audio),
            cache=str(Path(self.out) / data.cache),
        )
