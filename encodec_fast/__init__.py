"""encodec_fast: the EnCodec neural audio codec on a native core, without PyTorch at run time."""

from typing import TYPE_CHECKING, Any

from encodec_fast._native import cpu_info
from encodec_fast.codec import Codec
from encodec_fast.codes import Codes
from encodec_fast.container import DamageWarning
from encodec_fast.entropy import (
    ArithmeticDecoder,
    ArithmeticEncoder,
    RangeDecoder,
    RangeEncoder,
    cdf_from_probabilities,
)
from encodec_fast.files import decompress, decompress_file
from encodec_fast.store import ModelNotFoundError

if TYPE_CHECKING:
    from encodec_fast.batch.reading import load_tokens
    from encodec_fast.batch.tokenize import tokenize
    from encodec_fast.batch.tokens import Tokens
    from encodec_fast.integrations.acceleration import accelerate, restore

__version__ = "0.1.0"

# Loaded when they are asked for: start-up time.
_LATER = {
    "Tokens": "encodec_fast.batch.tokens",
    "accelerate": "encodec_fast.integrations.acceleration",
    "load_tokens": "encodec_fast.batch.reading",
    "restore": "encodec_fast.integrations.acceleration",
    "tokenize": "encodec_fast.batch.tokenize",
}

__all__ = [
    "ArithmeticDecoder",
    "ArithmeticEncoder",
    "Codec",
    "Codes",
    "DamageWarning",
    "ModelNotFoundError",
    "RangeDecoder",
    "RangeEncoder",
    "Tokens",
    "__version__",
    "accelerate",
    "cdf_from_probabilities",
    "cpu_info",
    "decompress",
    "decompress_file",
    "load_tokens",
    "restore",
    "tokenize",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'encodec_fast' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_LATER[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{name}: needs `pip install 'encodec-fast[torch]'`") from error
