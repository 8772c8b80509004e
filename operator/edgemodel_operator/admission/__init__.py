"""The admission webhook: only images that the trust policies vouch for may run.

`review` and `certificates` are pure; `verdict_cache`, `policies` and `authorities` keep what judging needs;
`judge` decides, `server` speaks HTTPS, and `main` puts them together.
"""
