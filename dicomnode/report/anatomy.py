"""What Body Part Examined (0018,0015) implies: laterality, recognisable features, a code (PS3.16 Annex L)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.report.transcribe import distinct

_UNPAIRED = (
    "ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS "
    "COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART ILEUM ILIUM "
    "JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN "
    "NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM "
    "STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY"
)
UNPAIRED = frozenset(_UNPAIRED.split())
"""Body parts without a side: Laterality (0020,0060) must be absent for them (PS3.3 C.7.3.1; the list of dciodvfy)."""

_FACELESS = (
    "ABDOMEN ABDOMENPELVIS ANKLE AORTA ARM BLADDER BREAST CALCANEUS CALF CHEST CHESTABDOMEN CHESTABDPELVIS "
    "CLAVICLE COCCYX COLON CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEART HIP HUMERUS KNEE LEG "
    "LIVER LSPINE LSSPINE MEDIASTINUM PANCREAS PELVIS PROSTATE RIB SCAPULA SHOULDER SPLEEN SSPINE STERNUM "
    "STOMACH THIGH THUMB TIBIA TOE TSPINE ULNA UTERUS WRIST"
)
FACELESS = frozenset(_FACELESS.split())
"""Body parts from whose pictures no face can be made. Anything else counts as recognisable."""

_CODES = {
    "ABDOMEN": Code("818981001", "SCT", "Abdomen"),
    "BRAIN": Code("12738006", "SCT", "Brain"),
    "BREAST": Code("76752008", "SCT", "Breast"),
    "CHEST": Code("816094009", "SCT", "Chest"),
    "HAND": Code("85562004", "SCT", "Hand"),
    "HEAD": Code("69536005", "SCT", "Head"),
    "HIP": Code("29836001", "SCT", "Hip"),
    "KNEE": Code("72696002", "SCT", "Knee"),
    "NECK": Code("45048000", "SCT", "Neck"),
    "PELVIS": Code("816092008", "SCT", "Pelvis"),
}


def body_part(header: Dataset) -> str:
    """Body Part Examined in upper case, the first where a source wrongly has several, "" when it has none."""
    stated = header.get("BodyPartExamined") or ""
    return str(stated if isinstance(stated, str) else stated[0]).strip().upper()


def finding_site(header: Dataset) -> Code | None:
    """The code of the imaged region: the source's own Anatomic Region Sequence, else from Body Part Examined."""
    for item in header.get("AnatomicRegionSequence") or ():
        code = (item.get("CodeValue"), item.get("CodingSchemeDesignator"), item.get("CodeMeaning"))
        if all(code) and code[1] == "SCT" and len(code[0]) <= 16 and len(code[2]) <= 64:
            return Code(*(str(part) for part in code))
    return _CODES.get(body_part(header))


def laterality(headers: Sequence[Dataset]) -> str | None:
    """Laterality (0020,0060) of an image Series made from ``headers``; None: it must be absent.

    Type 2C (PS3.3 C.7.3.1): absent for a body part that exists once; else the side that the source gives for all
    its images, by Laterality or Image Laterality, and empty when it gives none.
    """
    if body_part(headers[0]) in UNPAIRED:
        return None
    different = distinct(headers, "Laterality", "ImageLaterality")
    sides = {str(header.get("Laterality") or header.get("ImageLaterality") or "") for header in different}
    side = sides.pop() if len(sides) == 1 else ""
    return side if side in ("R", "L") else ""


FEATURES_FROM = ("RecognizableVisualFeatures", "BodyPartExamined")
"""What ``recognisable`` reads."""


def recognisable(header: Dataset) -> str:
    """Recognizable Visual Features (0028,0302): the source's word, else by body part; unknown counts as YES."""
    stated = str(header.get("RecognizableVisualFeatures") or "")
    if stated in ("YES", "NO"):
        return stated
    return "NO" if body_part(header) in FACELESS else "YES"
