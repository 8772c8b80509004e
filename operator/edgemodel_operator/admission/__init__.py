"""The admission webhook: only images that the trust policies vouch for may run.

`review`, `trust_objects` and `verdict_book` are pure. `judge` decides about images and `tags` writes digests
into pods, by what `policies` and `verifier` (with `verdict_cache`) know; `audit_trail` (with `events`) says
who asked for what. `verdict_store` carries verdicts over the end of all replicas. `server` speaks HTTPS,
within the limits of `load`, and `main` puts them together.
"""
