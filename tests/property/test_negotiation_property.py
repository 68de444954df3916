"""Negotiation held against pynetdicom, and against nonsense (PS3.8 9.3.2, 9.3.3)."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from dicomnode.dicom.sop_classes import CT_IMAGE, MR_IMAGE, STORAGE_COMMITMENT_PUSH, VERIFICATION
from dicomnode.receive.admission import Admitted
from dicomnode.receive.associate import MalformedRequest
from dicomnode.receive.negotiation import read_request

JPEG, JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
FIND, PRIVATE = "1.2.840.10008.5.1.4.1.2.2.1", "1.3.46.670589.5.0.1"
ABSTRACT = (CT_IMAGE, MR_IMAGE, VERIFICATION, STORAGE_COMMITMENT_PUSH, FIND, PRIVATE)
TRANSFER = (str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian), JPEG, JPEG_2000_LOSSLESS, "1.2.3.4.5")
ANYONE = Admitted("peer", may_store=True, may_report=True)


def request_of(contexts, *, roles=(), max_length=16384):
    """An A-ASSOCIATE-RQ by pynetdicom; ``contexts``: (identifier, abstract syntax, transfer syntaxes)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SCANNER", "NODE"
    proposed = []
    for number, abstract, transfer in contexts:
        context = PresentationContext()
        context.context_id, context.abstract_syntax, context.transfer_syntax = number, abstract, list(transfer)
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length, about = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, about.implementation_class_uid = max_length, "1.2.3"
    items = [length, about]
    for uid, scu, scp in roles:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, scu, scp
        items.append(role)
    primitive.user_information = items
    return A_ASSOCIATE_RQ(primitive).encode()


def answered(contexts, admitted=ANYONE, **how):
    """What pynetdicom reads in the answer: its primitive, and what the node holds for accepted."""
    data, accepted = read_request(request_of(contexts, **how)[6:]).answer(admitted, 65536)
    reply = A_ASSOCIATE_AC()
    reply.decode(data)
    assert reply.encode()[6:10] == data[6:10]
    assert len(data) == 6 + struct.unpack_from(">L", data, 2)[0]
    return reply.to_primitive(), accepted


contexts = st.lists(
    st.tuples(
        st.integers(0, 127).map(lambda number: 2 * number + 1),
        st.sampled_from(ABSTRACT),
        st.lists(st.sampled_from(TRANSFER), min_size=1, max_size=5, unique=True),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda context: context[0],
)
roles = st.lists(
    st.sampled_from([(False, True), (True, True), (True, False)]).flatmap(
        lambda role: st.sampled_from(ABSTRACT).map(lambda uid: (uid, *role))
    ),
    max_size=3,
    unique_by=lambda role: role[0],
)


@given(contexts, roles, st.integers(0, 2**32 - 1))
def test_pynetdicom_is_understood_and_understands_the_answer(asked, roles, max_length):
    """S2: what one side of the library wrote is read as it was meant, and the other side reads our answer."""
    proposal = read_request(request_of(asked, roles=roles, max_length=max_length)[6:])
    assert (proposal.CallingAETitle, proposal.CalledAETitle) == ("SCANNER", "NODE")
    assert (proposal.max_length, proposal.knows_application) == (max_length, True)
    read = [(each.id, each.abstract_syntax, list(each.transfer_syntaxes)) for each in proposal.request.contexts]
    assert read == [(number, uid, list(transfer)) for number, uid, transfer in asked]
    reply, accepted = answered(asked, roles=roles)
    results = reply.presentation_context_definition_results_list
    assert [each.context_id for each in results] == sorted(number for number, _, _ in asked)
    assert {each.context_id for each in results if each.result == 0} == set(accepted)
    by_id = {number: (uid, transfer) for number, uid, transfer in asked}
    for each in results:
        uid, transfer = by_id[each.context_id]
        assert str(each.transfer_syntax[0]) in transfer
        if each.result == 0:
            assert (uid, str(each.transfer_syntax[0])) == (
                accepted[each.context_id].abstract_syntax,
                accepted[each.context_id].transfer_syntax,
            )
    assert reply.maximum_length_received == 65536


@example(b"\0\1\0\0" + bytes(64) + b"\x20\0\0\4\1\0\0\0")
@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: b"\0\1\0\0" + bytes(64) + tail))
def test_nonsense_is_refused_or_read_and_nothing_else(body):
    """S2: whatever the bytes are, there is a proposal or one kind of error."""
    try:
        proposal = read_request(body)
    except MalformedRequest:
        return
    assert proposal.answer(ANYONE, 65536)


@given(contexts, st.data())
def test_a_damaged_request_is_refused_or_read_and_nothing_else(asked, data):
    """S2: cut short or with a byte changed, a request gives a proposal or one kind of error."""
    body = bytearray(request_of(asked)[6:])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(MalformedRequest):
        read_request(bytes(body[: data.draw(st.integers(at, len(body)))])).answer(ANYONE, 65536)


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


SYNTAXES = item(0x30, CT_IMAGE.encode()) + item(0x40, b"1.2.840.10008.1.2")
FIXED = b"\0\1\0\0" + b"NODE".ljust(16) + b"SCANNER".ljust(16) + bytes(32)


CT = (1, CT_IMAGE, [ImplicitVRLittleEndian])


@pytest.mark.parametrize(
    ("asked", "results"),
    [
        ([CT, (3, FIND, TRANSFER), (5, MR_IMAGE, ["1.2.3.4.5"]), (7, PRIVATE, [JPEG])], [0, 3, 4, 0]),
        ([(9, VERIFICATION, [JPEG]), CT], [0, 4]),
    ],
)
def test_each_refused_context_hears_why(asked, results):
    """PS3.8 9.3.3.2: abstract syntax not supported (3), transfer syntaxes not supported (4)."""
    reply, _ = answered(asked)
    assert [each.result for each in reply.presentation_context_definition_results_list] == results


@pytest.mark.parametrize("odd", ["1/3.46.670589", "1.2.x", "MR"])
def test_what_is_no_uid_is_not_taken_for_a_private_storage_class(odd):
    """S7: it is refused by itself, the other contexts are not."""
    body = FIXED + b"".join(
        item(0x20, bytes((number, 0, 0, 0)) + item(0x30, uid.encode()) + item(0x40, b"1.2.840.10008.1.2"))
        for number, uid in ((1, odd), (3, "1.03.46.670589"), (5, CT_IMAGE))
    )
    assert set(read_request(body).answer(ANYONE, 65536)[1]) == {3, 5}


def test_native_pixels_are_preferred_and_lossless_before_lossy():
    """The images that the detectors read best are asked for, whatever the order of the proposal."""
    for offered, taken in (
        ([JPEG, JPEG_2000_LOSSLESS, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([JPEG, JPEG_2000_LOSSLESS], JPEG_2000_LOSSLESS),
    ):
        _, accepted = answered([(1, CT_IMAGE, offered)])
        assert accepted[1].transfer_syntax == taken


def test_what_a_peer_may_not_do_is_not_accepted():
    """S1: no storage from a peer that only reports, no reports from one that only stores."""
    asked = [CT, (3, STORAGE_COMMITMENT_PUSH, [ImplicitVRLittleEndian]), (5, VERIFICATION, [ImplicitVRLittleEndian])]
    for admitted, ids in (
        (ANYONE, {1, 3, 5}),
        (Admitted("peer", may_store=False, may_report=True), {3, 5}),
        (Admitted("peer", may_store=True, may_report=False), {1, 5}),
    ):
        assert set(answered(asked, admitted)[1]) == ids


def test_role_selection_is_answered_for_storage_commitment_alone():
    """PS3.7 D.3.3.4: the SCP of the commitment reports; where it would be nothing, the context is refused."""
    commitment = (1, STORAGE_COMMITMENT_PUSH, [ImplicitVRLittleEndian])
    reply, accepted = answered([commitment, (3, CT_IMAGE, [JPEG])], roles=[(STORAGE_COMMITMENT_PUSH, False, True)])
    answers = [item for item in reply.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    assert [(str(item.sop_class_uid), item.scu_role, item.scp_role) for item in answers] == [
        (STORAGE_COMMITMENT_PUSH, False, True)
    ]
    assert set(accepted) == {1, 3}
    nothing = request_of([commitment], roles=[(STORAGE_COMMITMENT_PUSH, False, True)])
    at = nothing.index(STORAGE_COMMITMENT_PUSH.encode(), nothing.index(b"\x54\0")) + len(STORAGE_COMMITMENT_PUSH)
    data, accepted = read_request(nothing[6:at] + b"\0\0" + nothing[at + 2 :]).answer(ANYONE, 65536)
    assert accepted == {}
    reply = A_ASSOCIATE_AC()
    reply.decode(data)
    assert [each.result for each in reply.to_primitive().presentation_context_definition_results_list] == [1]


def test_the_answer_gives_back_the_fixed_fields_and_passes_over_unknown_items():
    """PS3.8 9.3.3: reserved fields return as they came; an item of a type to come harms nobody."""
    fixed = FIXED[:36] + bytes(range(32))
    body = fixed + item(0x77, b"new") + item(0x20, b"\1\0\0\0" + SYNTAXES) + item(0x50, item(0x5F, b"new"))
    data, accepted = read_request(body).answer(ANYONE, 65536)
    assert data[10:74] == fixed[4:]
    assert set(accepted) == {1}


@pytest.mark.parametrize(
    "items",
    [
        b"",
        item(0x20, b"\2\0\0\0" + SYNTAXES),
        item(0x20, b"\1\0\0\0" + SYNTAXES) * 2,
        item(0x20, b"\1\0\0\0" + SYNTAXES) + b"\x20\0",
        item(0x20, b"\1\0\0\0" + SYNTAXES)[:-1],
        item(0x20, b"\1\0\0"),
        item(0x20, b"\1\0\0\0" + item(0x30, b"1.2")),
        item(0x20, b"\1\0\0\0" + item(0x40, b"1.2")),
        item(0x20, b"\1\0\0\0" + item(0x30, b"1.2") + SYNTAXES),
        item(0x20, b"\1\0\0\0" + item(0x30, b"1" * 65) + item(0x40, b"1.2")),
        item(0x20, b"\1\0\0\0" + item(0x30, b"\xff") + item(0x40, b"1.2")),
        item(0x20, b"\1\0\0\0" + SYNTAXES) + item(0x50, item(0x51, b"\0\0\0")),
        item(0x20, b"\1\0\0\0" + SYNTAXES) + item(0x50, item(0x54, b"\0\7" + b"1.2\0\0")),
        item(0x20, b"\1\0\0\0" + SYNTAXES) + item(0x50, item(0x54, b"\0\3" + b"1.2\0\2")),
    ],
)
def test_a_request_that_contradicts_itself_is_malformed(items):
    """S2: no context, an even, doubled or odd one, lengths that do not fit: refused as a whole."""
    with pytest.raises(MalformedRequest):
        read_request(FIXED + items)
