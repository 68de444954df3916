"""Decides that a Series is complete: by evidence first and by silence last."""

from dicomnode.assemble.count import count_at_sender
from dicomnode.assemble.judge import SeriesFacts, Verdict, judge
from dicomnode.assemble.sweep import EvidenceMemory, Sweeper, sweep

__all__ = ["EvidenceMemory", "SeriesFacts", "Sweeper", "Verdict", "count_at_sender", "judge", "sweep"]
