"""Sign images and verify signatures in the formats of sigstore's `cosign`.

`keys` loads and makes keys, `simple_signing` and `bundle` are the two storage formats as pure functions over
bytes, `demand` says what must hold, `judge`, `threshold` and `attestations` decide from facts alone, and
`sign`, `attest` and `verify` move those facts to and from a registry. Nothing in here contacts a transparency
log, a certificate authority or any service but the registry, unless somebody signs without a key and names
them.
"""
