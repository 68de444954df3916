"""What the node is made of: the lock of hashes and the question for known vulnerabilities (docs/security.md, S19)."""
