"""The admission webhook: only images that the trust policies vouch for may run.

`review`, `trust_objects` and `verdict_book` are pure. `judge` decides about images, `tags` writes digests into
pods; both ask what `policies`, `verifier` (with `verdict_cache`) and `audit_trail` (with `events`) know or keep.
`verdict_store` carries verdicts over the end of all replicas. `server` speaks HTTPS, within the limits of
`load`, and `main` puts them together.
"""
