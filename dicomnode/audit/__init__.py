"""The audit log: append one record, verify, query, export. Rows form a SHA-256 hash chain."""

from dicomnode.audit.chain import append
from dicomnode.audit.checkpoint import check_against, write_checkpoint
from dicomnode.audit.query import AuditFilter, find
from dicomnode.audit.spreadsheet import export_csv
from dicomnode.audit.verification import Verdict, verify

__all__ = [
    "AuditFilter",
    "Verdict",
    "append",
    "check_against",
    "export_csv",
    "find",
    "verify",
    "write_checkpoint",
]
