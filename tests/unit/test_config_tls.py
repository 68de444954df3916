"""[receive.tls], tls of a peer, identities and addresses of a peer: what a configuration may say."""

from __future__ import annotations

import pytest

from dicomnode.config import Config, parse_config
from dicomnode.config.tls import identity
from dicomnode.errors import ConfigError
from dicomnode.receive.admission import CERTIFICATE, WRONG_ADDRESS, Admission, Admitted, Rejection, Request

DIGEST = "ab" * 32
TLS = '[receive.tls]\ncert = "n.pem"\nkey = "n.key"\nca = "ca.pem"\n'
PEER = '[[peer]]\nname = "ct"\nae_title = "CT1"\nhost = "10.0.0.5"\nport = 104\nmay_send = true\n'


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("CT1.Example.org", "dns:ct1.example.org"),
        ("dns:CT1.example.org.", "dns:ct1.example.org"),
        ("10.1.2.3", "ip:10.1.2.3"),
        ("::1", "ip:::1"),
        ("ip:2001:DB8:0::1", "ip:2001:db8::1"),
        ("urn:uuid:1-2", "uri:urn:uuid:1-2"),
        ("https://ct1.example.org/id", "uri:https://ct1.example.org/id"),
        ("cn:CT 1", "cn:CT 1"),
        ("sha256:" + DIGEST, "sha256:" + DIGEST),
        ("SHA256:" + ":".join(["AB"] * 32), "sha256:" + DIGEST),
    ],
)
def test_identities_have_one_form(text: str, canonical: str) -> None:
    """S5: what an operator writes and what a certificate says meet in one form."""
    assert identity(text) == canonical
    assert identity(canonical) == canonical


@pytest.mark.parametrize("text", ["", "CT 1", "cn:", "uri:", "ip:ct1", "sha256:abc", "dns:"])
def test_what_can_be_no_identity_is_refused(text: str) -> None:
    """S5: a slip of the pen is no identity that nobody can show."""
    with pytest.raises(ValueError, match=r"name|identity|stands|address"):
        identity(text)


def test_a_table_with_files_and_its_defaults() -> None:
    """S4: the registered port, mutual TLS and no plain port unless it is asked for."""
    tls = parse_config(TLS)[0].receive.tls
    assert tls is not None
    assert (tls.port, tls.client_certificate, tls.plain) == (2762, "required", False)
    assert Config().receive.tls is None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (TLS.replace('ca = "ca.pem"\n', ""), 1, "give ca"),
        (TLS + 'client_certificate = "none"\n', 1, "ca says nothing"),
        (TLS.replace("ca =", "crl =") + 'client_certificate = "none"\n', 1, "crl says nothing"),
        (TLS + 'client_certificate = "maybe"\n', 5, "'required' or 'none'"),
        (TLS + 'key_password_file = "a"\nkey_password_env = "B"\n', 1, "not both"),
        (TLS + 'key_password = "secret"\n', 5, "unknown key"),
        (TLS + "port = 11112\nplain = true\n", 5, "which plain = true keeps open"),
        (PEER + 'certificate = ["ct1"]\n', 7, "nobody asks for it"),
        (PEER + 'certificate = ["ct 1"]\n' + TLS, 7, "no DNS name"),
        (PEER + 'addresses = ["10.1.2.3/16"]\n', 7, "has host bits set"),
        (PEER + 'addresses = ["everywhere"]\n', 7, "does not appear to be"),
    ],
)
def test_faults_are_told_with_their_line(text: str, line: int, said: str) -> None:
    """S18: no password in the configuration; S5: no list that would never be asked for."""
    with pytest.raises(ConfigError, match=said) as caught:
        parse_config(text)
    assert f"line {line}:" in str(caught.value)


def judged(
    address: str = "10.0.0.5", identities: frozenset[str] | None = None, *, unknown: bool = False, calling: str = "CT1"
) -> Admitted | Rejection:
    text = f"[receive]\naccept_unknown_peers = {str(unknown).lower()}\n" + TLS + PEER
    text += f'addresses = ["10.1.0.0/16", "fd00::/8"]\ncertificate = ["ct1.test", "sha256:{DIGEST}"]\n'
    text += '[[peer]]\nname = "mr"\nae_title = "MR1"\nhost = "10.0.0.6"\nport = 104\nmay_send = true\n'
    return Admission(parse_config(text)[0]).judge(Request(calling, "DICOMNODE", address, identities=identities), 0)


@pytest.mark.parametrize("shown", [{"dns:ct1.test", "cn:CT 1"}, {"sha256:" + DIGEST}])
@pytest.mark.parametrize("address", ["10.0.0.5", "10.1.200.3", "fd00::7"])
def test_a_peer_is_known_by_title_address_and_certificate(shown: set[str], address: str) -> None:
    """S5: one of the listed identities, from its host or one of its networks."""
    assert judged(address, frozenset(shown)) == Admitted("ct")


@pytest.mark.parametrize("shown", [None, frozenset(), frozenset({"cn:ct1.test", "dns:ct2.test", "uri:ct1.test"})])
def test_a_stolen_title_without_the_certificate_is_rejected(shown: frozenset[str] | None) -> None:
    """S5: not over plain TCP, not without a certificate, not with that of another peer of the same authority."""
    assert judged(identities=shown) == CERTIFICATE
    assert (CERTIFICATE.result, CERTIFICATE.source, CERTIFICATE.diagnostic) == (1, 1, 3)


def test_a_certificate_from_another_address_is_rejected() -> None:
    """S5: the address counts beside the certificate."""
    assert judged("10.2.0.1", frozenset({"dns:ct1.test"})) == WRONG_ADDRESS


def test_a_peer_without_a_list_comes_as_before() -> None:
    """S5: with or without TLS, whatever it shows."""
    assert judged("10.0.0.6", calling="MR1") == Admitted("mr")
    assert judged("10.0.0.6", frozenset({"cn:any"}), calling="MR1") == Admitted("mr")
    assert judged("10.1.0.6", calling="MR1") == WRONG_ADDRESS


@pytest.mark.parametrize("address", ["10.0.0.5", "10.9.9.9"])
def test_the_title_of_a_peer_with_a_certificate_is_nobody_elses(address: str) -> None:
    """S5: also where unknown peers may send: they cannot come under this title."""
    assert judged(address, unknown=True) in (CERTIFICATE, WRONG_ADDRESS)
    assert judged("10.9.9.9", unknown=True, calling="STRANGER") == Admitted(None)
    assert judged(identities=frozenset({"dns:ct1.test"}), unknown=True) == Admitted("ct")
