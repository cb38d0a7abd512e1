"""encodec_fast: the EnCodec neural audio codec on a native core, without PyTorch at run time."""

from typing import TYPE_CHECKING, Any

from encodec_fast._native import cpu_info
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

if TYPE_CHECKING:
    from encodec_fast.integrations.acceleration import accelerate, restore

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
    "accelerate",
    "cdf_from_probabilities",
    "cpu_info",
    "decompress",
    "decompress_file",
    "restore",
]

# What needs more than the base package is imported when it is asked for.
_ON_DEMAND = {
    "accelerate": ("encodec_fast.integrations.acceleration", "torch"),
    "restore": ("encodec_fast.integrations.acceleration", "torch"),
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, extra = _ON_DEMAND[name]
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name}: needs `pip install 'encodec-fast[{extra}]'` ({error})"
        ) from error
