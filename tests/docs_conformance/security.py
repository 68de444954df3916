"""The Secure Transport Connection Profile, from the contexts that the node uses, and why a handshake is refused."""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dicomnode.audit.mapping import MAPPING
from dicomnode.config.tls import DICOM_TLS_PORT
from dicomnode.deid.marks import MEANINGS
from dicomnode.deid.profile import load_profile, shipped
from dicomnode.deid.table import BASIC_CODE, action_table
from dicomnode.dicom.tls import client_context, server_context
from dicomnode.receive.server import HANDSHAKE_S
from dicomnode.receive.tls import LOOK_S, Reason
from tests.certificates import Authority
from tests.docs_conformance.markdown import table

_OPENSSL = re.compile(r"ECDHE-(RSA|ECDSA)-AES(\d+)-GCM-(SHA\d+)")


def sections() -> dict[str, str]:
    """The tables of this module."""
    return {
        "tls-profile": _profile(),
        "tls-refusals": _refusals(),
        "audit-messages": _audit_messages(),
        "deid-options": _deid_options(),
    }


def _deid_options() -> str:
    """The codes of CID 7050 that an object may carry, and the shipped profiles that switch them on."""
    known, profiles = action_table(), [load_profile(name) for name in shipped()]
    rows = [(BASIC_CODE, MEANINGS[BASIC_CODE], "always")]
    for option in sorted(known.options, key=known.code_of):
        used = [f"`{profile.name}`" for profile in profiles if option in profile.options]
        rows.append((known.code_of(option), f"{MEANINGS[known.code_of(option)]} (`{option}`)", ", ".join(used)))
    return table(("(0012,0064)", "meaning", "shipped profiles with it; any other profile may name it"), rows)


def _audit_messages() -> str:
    """The message of each kind of row (PS3.15 A.5)."""
    rows = []
    for kind, entry in MAPPING.items():
        codes = [f'({one.value}, {one.scheme}, "{one.meaning}")' for one in (entry.event, entry.type) if one]
        rows.append((f"`{kind}`", codes[0], codes[1] if len(codes) > 1 else "", entry.action, entry.outcome))
    return table(("row", "EventID", "EventTypeCode", "action", "outcome"), rows)


def _profile() -> str:
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        node = authority.issue("node")
        ours = server_context(node.cert, node.key, None, authority.ca)
        theirs = client_context(authority.ca, node.cert, node.key, None)
    rows = [(name, _of(name, ours), _of(name, theirs)) for name in _FACTS]
    rows += [
        ("port", f"`[receive.tls] port`, default {DICOM_TLS_PORT}, never that of plain Associations", "of the peer"),
        (
            "handshake",
            f"within {HANDSHAKE_S:g} s from the first to the last byte",
            "within the connection's time limit",
        ),
        ("renewed files", f"looked for at a handshake, every {LOOK_S:g} s at most", "read for every connection"),
    ]
    return table(("", "Associations that the node accepts", "those that it opens; STOW-RS"), rows)


def _of(name: str, context: ssl.SSLContext) -> str:
    suites = [_iana(str(suite["name"])) for suite in context.get_ciphers()]
    options = context.options
    facts = {
        "profile": "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12)",
        "versions": _versions(context),
        "cipher suites, TLS 1.3": _listed(suite for suite in suites if "_WITH_" not in suite),
        "cipher suites, TLS 1.2": _listed(suite for suite in suites if "_WITH_" in suite),
        "compression, renegotiation": "none"
        if options & ssl.OP_NO_COMPRESSION and options & ssl.OP_NO_RENEGOTIATION
        else "?",
        "session tickets": "none" if options & ssl.OP_NO_TICKET and not context.num_tickets else "as the server offers",
        "certificate of the other side": _asked(context),
    }
    return facts[name]


_FACTS = (
    "profile",
    "versions",
    "cipher suites, TLS 1.3",
    "cipher suites, TLS 1.2",
    "compression, renegotiation",
    "session tickets",
    "certificate of the other side",
)


def _versions(context: ssl.SSLContext) -> str:
    lowest = {ssl.TLSVersion.TLSv1_2: "1.2", ssl.TLSVersion.TLSv1_3: "1.3"}[context.minimum_version]
    return (
        f"TLS 1.3, down to {lowest}"
        if context.maximum_version == ssl.TLSVersion.MAXIMUM_SUPPORTED
        else f"{lowest} only"
    )


def _asked(context: ssl.SSLContext) -> str:
    required = "required" if context.verify_mode == ssl.CERT_REQUIRED else "not asked for"
    return f"{required}{', and has to name the peer (`host`)' if context.check_hostname else ''}"


def _iana(name: str) -> str:
    return _OPENSSL.sub(r"TLS_ECDHE_\1_WITH_AES_\2_GCM_\3", name)


def _listed(names: Iterable[str]) -> str:
    return "<br>".join(f"`{name}`" for name in names)


def _refusals() -> str:
    return "\n".join(f"- {reason}" for reason in Reason)
