"""Kinds of jobs about what goes outside and comes back; whoever finds such a job and whoever does it agree here."""

from __future__ import annotations

EXPORT_JOB = "export"
"""Images of one Series to one peer of a ``[[deid.export]]``: ``series_id``, ``generation``, ``export`` (its name),
``destination``; ``sent``: ids of the Instances that are there."""
REMOTE_JOB = "remote"
"""One Assignment to a detector outside: ``assignment_id``; ``since``: from when on its time counts; ``sent_at``: when
its images were all there, null before."""
RETURN_JOB = "return"
"""One Series that a detector outside has sent: ``series_id``, ``generation``, ``peer``."""
