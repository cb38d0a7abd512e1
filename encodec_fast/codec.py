"""Codec: a model ready to use. Audio to codes to audio, and to compressed bytes and back."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from encodec_fast import _native, chunk_codes, container, decoding, ecdc
from encodec_fast._native import Audio, CodeArray
from encodec_fast.blocks import BlockDecoder, BlockEncoder
from encodec_fast.codes import Codes, checked_pieces, is_torch
from encodec_fast.container import AnyHeader, Recording
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.many import encode_recordings, longest_first
from encodec_fast.payloads import payload_coder
from encodec_fast.program import Program
from encodec_fast.segment_codes import SegmentCoder, load_segment_coder, segment_coder
from encodec_fast.segments import Piece
from encodec_fast.store import ModelNotFoundError, find_entropy, find_model, find_program
from encodec_fast.streaming import StreamDecoder, StreamEncoder


class Codec:
    """An EnCodec model on the native core. May serve many threads at once.

    Attributes: name, sample_rate (Hz), channels, hop (samples per frame), bandwidths (kbps),
    n_codebooks, codebook_size, codebook_bits, normalize, segment_length and segment_stride
    (samples; None: streams exist), causal (frames wait for no later samples), threads.
    """

    def __init__(
        self, program: Program, threads: int = 1, entropy_file: Path | None = None
    ) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads: expected an integer of at least 1, found {threads!r}")
        header = program.header
        self.program = program
        self.threads = threads
        self.name = header.name
        self.sample_rate = header.sample_rate
        self.channels = header.channels
        self.hop = header.hop
        self.bandwidths = tuple(header.bandwidths)
        self.n_codebooks = header.n_codebooks
        self.codebook_size = header.codebook_size
        self.codebook_bits = header.codebook_bits
        self.normalize = header.normalize
        self.segment_length = header.segment_length
        self.segment_stride = header.segment_stride
        self.causal = program.encoder.causal
        self._entropy_file = entropy_file
        self.segment_coder: SegmentCoder | None = None  # the language model of version 0

    @staticmethod
    def load(
        model: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str] | None = None,
        threads: int = 1,
        lm_checkpoint: str | os.PathLike[str] | None = None,
        device: str = "cpu",
    ) -> Codec:
        """A codec by name ("nano_24khz", or whatever `encodec-fast models` lists), or from a
        program file. With `checkpoint` (Meta's .th file, a transformers folder or a checkpoint of
        our trainer; needs encodec-fast[torch]) `model` names its configuration. `threads` is how
        many groups of segments, or of recordings of encode_many, are coded at once. `lm_checkpoint`
        is the language model of version 0 files, Meta's .th file or its name ("encodec_lm_24khz";
        needs encodec-fast[torch]). `device` is "cpu", "cuda" or "cuda:N" (docs/cuda.md): where
        audio becomes codes and codes audio, which are the same everywhere.

        Raises ValueError (ModelNotFoundError says how to get a model) and OSError, for a device
        that cannot be used too.
        """
        if lm_checkpoint is not None or device != "cpu":
            codec = Codec.load(model, checkpoint, threads)
            if lm_checkpoint is not None:
                codec.segment_coder = load_segment_coder(lm_checkpoint, codec.program.header)
            codec.program = codec.program.on(device)
            return codec
        if checkpoint is None:
            found = find_program(model)
            return Codec(Program.load(found), threads, _entropy_file(model))
        try:
            import tempfile  # only here: start-up time

            from encodec_fast.models.checkpoints import load_checkpoint
            from encodec_fast.models.export import export_model
        except ImportError as error:
            raise ValueError(
                f"checkpoint: reading one needs `pip install 'encodec-fast[torch]'` ({error})"
            ) from None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.safetensors"
            export_model(load_checkpoint(Path(checkpoint), os.fspath(model)), path)
            return Codec(Program.load(path), threads)

    @cached_property
    def entropy_model(self) -> EntropyModel | None:
        """The entropy model of the program (docs/entropy.md), None without one. Raises ValueError
        and OSError for one that cannot be read or belongs to another model."""
        if self._entropy_file is None:
            return None
        model = EntropyModel.load(self._entropy_file)
        expected = (self.name, self.codebook_size)
        if (model.name, model.codebook_size) != expected:
            raise ValueError(
                f"{self._entropy_file}: expected the entropy model of {self.name} with "
                f"{self.codebook_size} entries, found {model.name} with {model.codebook_size}"
            )
        return model

    def n_q(self, bandwidth: float | None) -> int:
        """Codebooks used at `bandwidth` kbps, None meaning all. Raises ValueError for others."""
        return self.program.header.n_q(bandwidth)

    # --- whole recordings -------------------------------------------------------------------------

    def encode(
        self, wav: Any, bandwidth: float | None = 6.0, sample_rate: int | None = None
    ) -> Codes:
        """Code a recording at `bandwidth` kbps (None: all codebooks).

        wav: floating-point [channels, samples >= 1], numpy or torch; at the model's rate unless
        `sample_rate` says otherwise (then it is resampled). Raises ValueError for a wrong shape or
        dtype, no samples, samples that are not finite, or an unsupported bandwidth.
        """
        n_q = self.n_q(bandwidth)
        audio = self._audio("wav", wav, sample_rate)
        with self.block_encoder(n_q) as encoder:
            pieces = encoder.push(audio) + encoder.flush()
        return self._codes(pieces, audio.shape[1], is_torch(wav))

    def encode_many(
        self, wavs: Sequence[Any], bandwidth: float | None = 6.0, sample_rate: int | None = None
    ) -> list[Codes]:
        """Code recordings of any lengths together; each gets the codes it would get alone.

        They share each read of the weights. A recording is checked and converted when its turn
        comes, so that copies of a few are in memory at once. Arguments and errors as `encode`, with
        the position of the recording (of one of them, where several are at fault).
        """
        n_q = self.n_q(bandwidth)
        wavs = list(wavs)

        def read(number: int) -> Audio:
            return self._audio(f"wavs[{number}]", wavs[number], sample_rate)

        done = encode_recordings(self.program, n_q, self.threads, longest_first(wavs), read)
        return [self._codes(*done[i], is_torch(wav)) for i, wav in enumerate(wavs)]

    def decode(self, codes: Codes) -> Any:
        """The recording [channels, audio_length] of `codes`: float32 numpy, or torch if the codes
        are torch tensors. Raises ValueError for codes that no recording of this model has."""
        pieces = checked_pieces(codes, self.program)
        with self.block_decoder() as decoder:
            parts = [decoder.push(piece) for piece in pieces]
            wav = np.concatenate([*parts, decoder.flush()], axis=1)
        length = codes.audio_length
        if not isinstance(length, (int, np.integer)) or not 1 <= length <= wav.shape[1]:
            raise ValueError(f"codes: expected audio_length in 1..{wav.shape[1]}, found {length!r}")
        wav = np.ascontiguousarray(wav[:, :length])
        return _to_torch(wav) if is_torch(codes.codes[0]) else wav

    def compress(
        self,
        wav: Any,
        bandwidth: float | None = 6.0,
        entropy: str = "none",
        version: int = 1,
        metadata: dict[str, Any] | None = None,
    ) -> bytes:
        """The recording as the bytes of an .ecdc file.

        entropy: "none" (packed bits), "static" (a trained table per codebook) or "lm" (a language
        model); version: of the container, 1 or the reference's 0; metadata: free JSON for the
        header of version 1. Other arguments and errors as `encode`; ValueError for an entropy mode
        that the model or the version lacks.
        """
        n_q = self.n_q(bandwidth)
        open_writer = self.piece_writer(n_q, entropy, version, metadata=metadata)
        codes = self.encode(wav, bandwidth)
        body = io.BytesIO()
        writer = open_writer(body)
        for piece in checked_pieces(codes, self.program):
            writer.write(piece)
        header = writer.finish(codes.audio_length)
        return (b"" if header is None else header.to_bytes()) + body.getvalue()

    def decompress(self, data: bytes, strict: bool = False) -> Audio:
        """The recording float32 [channels, samples] in the bytes of an .ecdc file that this model
        wrote.

        Damaged data of version 1 gives silence for what is lost, and a DamageWarning, unless
        `strict`. Raises ValueError for data of another model, foreign data, and data that is
        damaged (version 0, `strict`, or nothing survives), EOFError for truncated data (version 0).
        """
        stream = io.BytesIO(_checked_bytes(data))
        recording = self.open_recording(stream, container.read_header(stream, "data"), "data")
        blocks = decoding.decoded(
            self.program, recording, "data", threads=self.threads, strict=strict
        )
        parts = [np.zeros((self.channels, 0), np.float32), *blocks]
        container.report_damage(recording, self.program, "data", strict)
        return np.concatenate(parts, axis=1)

    # --- streams and files ------------------------------------------------------------------------

    def stream_encoder(
        self, bandwidth: float | None = 6.0, batch: int | None = None, start: str = "exact"
    ) -> StreamEncoder:
        """A live stream of a model without segments, or `batch` (1..65536), any of which advance
        at once and share each read of the weights.

        start "exact" gives the codes of the whole recording (models whose padding mirrors the
        signal then need their first frames, 2240 samples at 24 kHz, before any code appears);
        "low_latency", for causal models, starts from silence: each hop gives a frame at once, with
        other codes in the first ones (docs/determinism.md). Frames of other models wait for `delay`
        samples (an attribute). Raises ValueError for segmented models and other batches and starts.
        """
        return StreamEncoder(self.program, self.n_q(bandwidth), batch, start)

    def stream_decoder(self, batch: int | None = None, start: str = "exact") -> StreamDecoder:
        """The inverse of stream_encoder, with the same arguments and errors."""
        return StreamDecoder(self.program, batch, start)

    def block_encoder(self, n_q: int, start: str = "exact", live: bool = False) -> BlockEncoder:
        """A recording in chunks to pieces, for any model, in constant memory."""
        return BlockEncoder(self.program, n_q, self.threads, start, live)

    def block_decoder(self) -> BlockDecoder:
        """Pieces to a recording in chunks, for any model, in constant memory."""
        return BlockDecoder(self.program, self.threads)

    def piece_writer(
        self,
        n_q: int,
        entropy: str = "none",
        version: int = 1,
        chunk: float = chunk_codes.KEY_SECONDS,
        metadata: dict[str, Any] | None = None,
        start: str = "exact",
    ) -> Callable[[IO[bytes]], Any]:
        """What makes a writer of pieces for a stream, after its arguments were checked; arguments
        and errors as files.compress_file. The writer of version 0 writes no header: its `finish`
        returns the one that belongs in front."""
        if version not in (0, 1):
            raise ValueError(f"version: expected 0 or 1, found {version!r}")
        if version == 0:
            if metadata:
                raise ValueError("metadata: version 0 has none")
            coder = segment_coder(self.segment_coder, entropy)
            return lambda stream: ecdc.PieceWriter(stream, self, n_q, coder)
        model = None if entropy == "none" else self.entropy_model
        header = chunk_codes.make_header(self.program, n_q, entropy, model, chunk, start, metadata)
        payload_coder(self.program, entropy, model, n_q, 1)  # refuses what the model has not
        return lambda stream: chunk_codes.PieceWriter(stream, self.program, header, model)

    def open_recording(
        self, stream: IO[bytes], header: AnyHeader, name: str, live: bool = False
    ) -> Recording:
        """The codes of an .ecdc file whose header was read; live: see PieceReader. Raises
        ValueError where it does not suit the model, EOFError for too short a version 0 file."""
        if isinstance(header, ecdc.Header):
            return ecdc.Reader(stream, header, self.program.header, name, self.segment_coder)
        model = None if header.header.entropy == "none" else self.entropy_model
        return chunk_codes.PieceReader(stream, header, name, self.program, model, live)

    def compress_file(self, source: Any, target: Any, **options: Any) -> None:
        """Compress an audio file to an .ecdc file in constant memory; see files.compress_file for
        the options (bandwidth=6.0, entropy="none", overwrite=False...) and errors."""
        from encodec_fast.files import compress_file  # files is built on this module

        compress_file(self, source, target, **options)

    # --- inside -----------------------------------------------------------------------------------

    def _audio(self, name: str, wav: Any, sample_rate: int | None) -> Audio:
        if is_torch(wav):
            wav = wav.detach().cpu()
            wav = (wav.float() if wav.is_floating_point() else wav).numpy()  # bfloat16 too
        audio = _native.as_audio(name, wav, (self.channels, None))
        if audio.shape[1] == 0:
            raise ValueError(f"{name}: expected at least one sample, found none")
        if sample_rate is not None and not isinstance(sample_rate, (int, np.integer)):
            raise ValueError(f"sample_rate: expected an integer, found {sample_rate!r}")
        if sample_rate is not None and sample_rate != self.sample_rate:
            from encodec_fast.audio import convert_audio

            audio = convert_audio(audio, sample_rate, self.sample_rate, self.channels)
            if audio.shape[1] == 0:
                raise ValueError(f"{name}: too short to be resampled to {self.sample_rate} Hz")
        return audio

    def _codes(self, pieces: Iterable[Piece], length: int, torch: bool) -> Codes:
        segments: list[list[CodeArray]] = []
        scales: list[float] = []
        for piece in pieces:
            if piece.start:
                segments.append([])
                if piece.scale is not None:
                    scales.append(piece.scale)
            segments[-1].append(piece.codes)
        arrays: list[Any] = [np.concatenate(parts, axis=1) for parts in segments]
        if torch:
            arrays = [_to_torch(array.astype(np.int64)) for array in arrays]
        return Codes(
            arrays, scales if self.normalize else None, length, self.sample_rate, self.name
        )


def decompress(
    data: bytes, model: str | os.PathLike[str] | None = None, strict: bool = False
) -> tuple[Audio, int]:
    """The recording float32 [channels, samples] in the bytes of an .ecdc file, and its sample rate.

    The model is the one the data names, unless `model` (a name or a program file) is given. Damage
    and errors as Codec.decompress; ModelNotFoundError (a ValueError) if the model is not installed.
    """
    if model is None:
        header = container.read_header(io.BytesIO(_checked_bytes(data)), "data")
        model = find_model(container.model_name(header))
    codec = Codec.load(model)
    return codec.decompress(data, strict), codec.sample_rate


def _entropy_file(model: str | os.PathLike[str]) -> Path | None:
    try:
        return find_entropy(model)
    except ModelNotFoundError:
        return None


def _checked_bytes(data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"data: expected the bytes of a file, found {type(data).__name__}")
    return bytes(data)


def _to_torch(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)
