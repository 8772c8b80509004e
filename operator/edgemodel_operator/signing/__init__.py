"""Sign images and verify signatures in the formats of sigstore's `cosign`.

`keys` loads and makes keys, `simple_signing` and `bundle` are the two storage formats as pure functions over
bytes, `judge` decides from facts alone, and `sign` and `verify` move those facts to and from a registry.
Nothing in here contacts a transparency log, a certificate authority or any service but the registry.
"""
