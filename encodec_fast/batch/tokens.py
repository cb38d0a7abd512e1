"""Tokens: the codes of one recording of a data set, with all that a reader of them needs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from encodec_fast._native import CodeArray
from encodec_fast.codes import Codes


@dataclass(frozen=True)
class Tokens:
    """A recording's codes as data sets hold them.

    key: what the recording is called, unique in its data set; codes: uint16 [n_q, frames], the
    segments joined along frames; segment_frames: the frames of each segment (one entry for models
    that do not segment); scales: float32 [segments], or None for models that do not normalise;
    audio_length: samples per channel at sample_rate (Hz); model, model_hash: the program's name and
    the first eight hexadecimal digits of its SHA-256; source: the place it was read from, as given;
    extra: other members of a WebDataset sample by extension, {"txt": b"..."}.
    """

    key: str
    codes: CodeArray
    segment_frames: tuple[int, ...]
    scales: npt.NDArray[np.float32] | None
    audio_length: int
    sample_rate: int
    model: str
    model_hash: str
    source: str = ""
    extra: dict[str, bytes] = field(default_factory=dict)

    def to_codes(self) -> Codes:
        """The same as Codes, one array per segment, which a Codec of the model decodes.

        Raises ValueError where segment_frames does not add up to the frames of codes.
        """
        frames = self.codes.shape[1]
        if sum(self.segment_frames) != frames:
            raise ValueError(
                f"segment_frames: expected a sum of {frames} frames, "
                f"found {sum(self.segment_frames)}"
            )
        bounds = np.cumsum(self.segment_frames)[:-1]
        segments = [np.ascontiguousarray(part) for part in np.split(self.codes, bounds, axis=1)]
        scales = None if self.scales is None else [float(scale) for scale in self.scales]
        return Codes(segments, scales, self.audio_length, self.sample_rate, self.model)
