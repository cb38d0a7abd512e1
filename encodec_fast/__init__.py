"""encodec_fast: the EnCodec neural audio codec on a native core, without PyTorch at run time."""

from encodec_fast._native import cpu_info
from encodec_fast.batch.reading import load_tokens
from encodec_fast.codec import Codec, decompress
from encodec_fast.codes import Codes
from encodec_fast.container import DamageWarning
from encodec_fast.entropy import (
    ArithmeticDecoder,
    ArithmeticEncoder,
    RangeDecoder,
    RangeEncoder,
    cdf_from_probabilities,
)
from encodec_fast.files import decompress_file
from encodec_fast.store import ModelNotFoundError

__version__ = "0.1.0"

__all__ = [
    "ArithmeticDecoder",
    "ArithmeticEncoder",
    "Codec",
    "Codes",
    "DamageWarning",
    "ModelNotFoundError",
    "RangeDecoder",
    "RangeEncoder",
    "__version__",
    "cdf_from_probabilities",
    "cpu_info",
    "decompress",
    "decompress_file",
    "load_tokens",
]
