"""Series summary and rules in, Assignments out, with the reason for every yes and every no."""

from dicomnode.route.rules import Decision, Reason, decide
from dicomnode.route.work import route_series

__all__ = ["Decision", "Reason", "decide", "route_series"]
