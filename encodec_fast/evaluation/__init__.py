"""Evaluation: how good models are, per bandwidth and kind of recording, beside anchors.

Needs numpy alone; PESQ, STOI and the page come with `encodec-fast[evaluate]` (docs/evaluation.md).
"""

from encodec_fast.evaluation.report import Report
from encodec_fast.evaluation.run import evaluate

__all__ = ["Report", "evaluate"]
