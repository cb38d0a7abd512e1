"""Codec: a model ready to use. Audio to codes to audio, and to compressed bytes and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from encodec_fast import chunk_codes, container, decoding, ecdc
from encodec_fast._native import Audio
from encodec_fast.blocks import BlockDecoder, BlockEncoder
from encodec_fast.chunk_header import Header
from encodec_fast.codes import Codes, checked_pieces, codes_of, is_torch, to_torch
from encodec_fast.container import AnyHeader, Recording
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.many import encode_recordings, longest_first
from encodec_fast.many_decoding import decoded_files
from encodec_fast.payloads import check_entropy
from encodec_fast.piece_reader import PieceReader
from encodec_fast.program import Program
from encodec_fast.segment_codes import SegmentCoder, load_segment_coder, segment_coder
from encodec_fast.store import ModelNotFoundError, find_entropy, find_program
from encodec_fast.streaming import StreamDecoder, StreamEncoder
from encodec_fast.waveforms import as_waveform, listed


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
        many groups of segments, of recordings of a list, or of key intervals under a language model
        are coded at once. `lm_checkpoint` is the language model of version 0 files, Meta's .th file
        or its name ("encodec_lm_24khz"; needs encodec-fast[torch]). `device` is "cpu", "cuda" or
        "cuda:N" (docs/cuda.md): where all but version 0's language model is done, with the same
        results everywhere.

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
        audio = as_waveform("wav", wav, self.program.header, sample_rate)
        with self.block_encoder(n_q) as encoder:
            pieces = encoder.push(audio) + encoder.flush()
        return codes_of(pieces, audio.shape[1], self.program, is_torch(wav))

    def encode_many(
        self, wavs: Sequence[Any], bandwidth: float | None = 6.0, sample_rate: int | None = None
    ) -> list[Codes]:
        """Code recordings of any lengths together; each gets the codes it would get alone.

        They share each read of the weights. A recording is checked and converted when its turn
        comes, so that copies of a few are in memory at once. Arguments and errors as `encode`, with
        the position of the recording (of one of them, where several are at fault).
        """
        n_q = self.n_q(bandwidth)
        wavs = listed("wavs", wavs)

        def read(number: int) -> Audio:
            return as_waveform(f"wavs[{number}]", wavs[number], self.program.header, sample_rate)

        done = encode_recordings(self.program, n_q, self.threads, longest_first(wavs), read)
        return [codes_of(*done[i], self.program, is_torch(wav)) for i, wav in enumerate(wavs)]

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
        return to_torch(wav) if is_torch(codes.codes[0]) else wav

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
        header of version 1. wav and bandwidth as in `encode`, whose errors it raises; ValueError
        for an entropy mode that the model or the version lacks.
        """
        self.piece_writer(self.n_q(bandwidth), entropy, version, metadata=metadata)  # checks
        (data,) = self._files([self.encode(wav, bandwidth)], entropy, version, metadata)
        return data

    def compress_many(
        self,
        wavs: Sequence[Any],
        bandwidth: float | None = 6.0,
        entropy: str = "none",
        version: int = 1,
    ) -> list[bytes]:
        """Compress recordings of any lengths together, on `threads` threads; each gets the bytes
        that `compress` gives it alone. They share each read of the weights, also of the language
        model's. Arguments as `compress`, errors as `encode_many`."""
        self.piece_writer(self.n_q(bandwidth), entropy, version)  # checks
        return self._files(self.encode_many(wavs, bandwidth), entropy, version)

    def decompress(self, data: bytes, strict: bool = False) -> Audio:
        """The recording float32 [channels, samples] in the bytes of an .ecdc file that this model
        wrote.

        Damaged data of version 1 gives silence for what is lost, and a DamageWarning, unless
        `strict`. Raises ValueError for data of another model, foreign data, and data that is
        damaged (version 0, `strict`, or nothing survives), EOFError for truncated data (version 0).
        """
        recording = self._opened(data, "data")
        blocks = decoding.decoded(
            self.program, recording, "data", threads=self.threads, strict=strict
        )
        parts = [np.zeros((self.channels, 0), np.float32), *blocks]
        container.report_damage(recording, self.program, "data", strict)
        return np.concatenate(parts, axis=1)

    def decompress_many(self, datas: Sequence[bytes], strict: bool = False) -> list[Audio]:
        """The inverse of compress_many: each recording is what `decompress` gives it alone, in any
        mixture of versions, bandwidths and entropy modes. Their key intervals share the language
        model, the recordings the decoder. Damage and errors as `decompress`, with the position of
        the data in `datas`; an error ends the call."""
        datas = listed("datas", datas)
        names = [f"datas[{number}]" for number in range(len(datas))]
        recordings = [self._opened(*pair) for pair in zip(datas, names, strict=True)]
        lm = any(isinstance(r, PieceReader) and r.header.entropy == "lm" for r in recordings)
        model = self.entropy_model if lm else None
        return decoded_files(self.program, model, recordings, names, self.threads, strict)

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
        live: bool = False,
    ) -> Callable[[IO[bytes]], Any]:
        """What makes a writer of pieces for a stream, after its arguments were checked; arguments
        and errors as files.compress_file; live: each chunk is written when it is full. The writer
        of version 0 writes no header: its `finish` returns the one that belongs in front."""
        if version not in (0, 1):
            raise ValueError(f"version: expected 0 or 1, found {version!r}")
        if version == 0:
            if metadata:
                raise ValueError("metadata: version 0 has none")
            coder = segment_coder(self.segment_coder, entropy)
            return lambda stream: ecdc.PieceWriter(stream, self, n_q, coder)
        header, model = self.file_header(n_q, entropy, chunk, start, metadata)
        return lambda stream: chunk_codes.PieceWriter(
            stream, self.program, header, model, self.threads, live
        )

    def file_header(
        self,
        n_q: int,
        entropy: str = "none",
        chunk: float = chunk_codes.KEY_SECONDS,
        start: str = "exact",
        metadata: dict[str, Any] | None = None,
    ) -> tuple[Header, EntropyModel | None]:
        """The header of a new version 1 file, and the entropy model that it needs; arguments and
        errors as files.compress_file."""
        model = None if entropy == "none" else self.entropy_model
        header = chunk_codes.make_header(self.program, n_q, entropy, model, chunk, start, metadata)
        check_entropy(entropy, model, n_q)
        return header, model

    def open_recording(
        self, stream: IO[bytes], header: AnyHeader, name: str, live: bool = False
    ) -> Recording:
        """The codes of an .ecdc file whose header was read; live: see PieceReader. Raises
        ValueError where it does not suit the model, EOFError for too short a version 0 file."""
        if isinstance(header, ecdc.Header):
            return ecdc.Reader(stream, header, self.program.header, name, self.segment_coder)
        model = None if header.header.entropy == "none" else self.entropy_model
        return PieceReader(stream, header, name, self.program, model, self.threads, live)

    def compress_file(self, source: Any, target: Any, **options: Any) -> None:
        """Compress an audio file to an .ecdc file in constant memory; see files.compress_file for
        the options (bandwidth=6.0, entropy="none", overwrite=False...) and errors."""
        from encodec_fast.files import compress_file  # files is built on this module

        compress_file(self, source, target, **options)

    # --- inside -----------------------------------------------------------------------------------

    def _files(
        self,
        recordings: Sequence[Codes],
        entropy: str,
        version: int,
        metadata: dict[str, Any] | None = None,
    ) -> list[bytes]:
        """The files of recordings that have one number of codebooks."""
        if not recordings:
            return []
        n_q = recordings[0].codes[0].shape[0]
        pieces = [checked_pieces(codes, self.program) for codes in recordings]
        lengths = [codes.audio_length for codes in recordings]
        if version == 0:
            open_writer = self.piece_writer(n_q, entropy, version)
            return [
                container.file_of(open_writer, *pair) for pair in zip(pieces, lengths, strict=True)
            ]
        header, model = self.file_header(n_q, entropy, metadata=metadata)
        files = zip([header] * len(pieces), pieces, lengths, strict=True)
        return chunk_codes.files_of(self.program, model, list(files), self.threads)

    def _opened(self, data: object, name: str) -> Recording:
        stream = container.open_bytes(data, name)
        return self.open_recording(stream, container.read_header(stream, name), name)


def _entropy_file(model: str | os.PathLike[str]) -> Path | None:
    try:
        return find_entropy(model)
    except ModelNotFoundError:
        return None
