"""Check an archive of dicomnode's audit log without dicomnode: python verify.py FOLDER [PUBLIC_KEY.pem].

Needs Python 3.9 and openssl 3. Take the public key from the node's owner, not from the archive. Exit status 1 when
something is not as it was written.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path


def check(folder: Path, key: Path) -> str:
    """What is wrong with the archive; empty when it is as it was written."""
    signed = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(key), "-rawin"]
    signed += ["-in", str(folder / "manifest.json"), "-sigfile", str(folder / "manifest.sig")]
    if subprocess.run(signed, capture_output=True, check=False).returncode:  # noqa: S603 - no shell, our own words
        return "the manifest is not signed by this key"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    prev, expected, digest = bytes.fromhex(manifest["prev"]), manifest["first"], hashlib.sha256()
    for line in (folder / "rows.jsonl").open("rb"):
        digest.update(line)
        seq, ts, kind, body, _, said = json.loads(line)
        content = json.dumps([seq, ts, kind, body], separators=(",", ":"), ensure_ascii=False).encode()
        prev = hashlib.sha256(b"\x00" + prev + content).digest()
        if seq != expected or prev.hex() != said:
            return f"row {expected} is not as it was written"
        expected += 1
    ends = (expected - 1, prev.hex(), digest.hexdigest())
    return "" if ends == (manifest["last"], manifest["head"], manifest["sha256"]) else "rows are missing"


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    fault = check(place, Path(sys.argv[2]) if len(sys.argv) > 2 else place / "public-key.pem")
    sys.stdout.write(f"NOT ok: {fault}\n" if fault else "ok\n")
    sys.exit(1 if fault else 0)
