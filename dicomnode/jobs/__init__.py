"""Durable jobs: enqueue, claim, extend, finish, retry, dead letter. Knows no DICOM."""

from dicomnode.jobs.heartbeat import Heartbeat
from dicomnode.jobs.leases import Job, claim, expire, extend, release_owner, waiting
from dicomnode.jobs.loop import run_until, take
from dicomnode.jobs.queue import bury, enqueue, finish, hand_back, hold, renew, requeue, retry, rouse, wake

__all__ = [
    "Heartbeat",
    "Job",
    "bury",
    "claim",
    "enqueue",
    "expire",
    "extend",
    "finish",
    "hand_back",
    "hold",
    "release_owner",
    "renew",
    "requeue",
    "retry",
    "rouse",
    "run_until",
    "take",
    "waiting",
    "wake",
]
