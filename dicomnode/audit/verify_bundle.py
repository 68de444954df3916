"""Check a bundle of evidence without dicomnode: ``python3 verify.py`` in the folder where it was unpacked."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")


def check(holds: bool, words: str) -> None:  # noqa: D103 - the script is read by people who want few lines
    if not holds:
        sys.exit("NOT OK: " + words)


def is_signed(message: pathlib.Path, signature: pathlib.Path) -> bool:  # noqa: D103
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        key = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", str(HERE / "public_key.pem")]
        command = [*key, "-in", str(message), "-sigfile", str(signature)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    try:
        key_of = load_pem_public_key((HERE / "public_key.pem").read_bytes())
        key_of.verify(signature.read_bytes(), message.read_bytes())  # type: ignore[union-attr, call-arg]
    except (InvalidSignature, ValueError):
        return False
    return True


def lines(name: str) -> list[str]:  # noqa: D103
    return (HERE / name).read_text(encoding="utf-8").splitlines()


check(is_signed(HERE / "manifest.json", HERE / "manifest.sig"), "manifest.json is not signed by public_key.pem")
manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
for name, digest in manifest["files"].items():
    check(hashlib.sha256((HERE / name).read_bytes()).hexdigest() == digest, name + " was changed")
links = {int(line.split()[0]): line.split()[1] for line in lines("links.txt")}
rows = [json.loads(line) for line in (HERE / "rows.jsonl").read_bytes().split(b"\n") if line]
first, head = manifest["first"], manifest["head"]
check(sorted(links) == list(range(first - 1, head["seq"] + 1)), "a link is missing")
check(links[head["seq"]] == head["hash"] and len(rows) == manifest["rows"], "rows or head differ from the manifest")
for row in rows:
    content = json.dumps([row["seq"], row["ts"], row["kind"], row["body"]], separators=(",", ":"), ensure_ascii=False)
    prev = bytes.fromhex(links[row["seq"] - 1])
    computed = hashlib.sha256(b"\x00" + prev + content.encode()).hexdigest()
    check(computed == links[row["seq"]], "row " + str(row["seq"]) + " is not the row that was hashed")
points = [json.loads(line) for name in ("checkpoint.json", "checkpoints.jsonl") for line in lines(name)]
for point in points:
    same = links.get(point["size"], point["hash"]) == point["hash"]
    check(same, "a checkpoint of " + str(point["size"]) + " rows disagrees: the log was rewritten")
key_sum = hashlib.sha256((HERE / "public_key.pem").read_bytes()).hexdigest()
sys.stdout.write(f"OK: {len(rows)} rows, {len(points)} checkpoints agree; compare: public_key.pem {key_sum}\n")
