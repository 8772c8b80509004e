"""The program `edgemodel-signer`: the only one that can read the signing keys.

It signs nothing but what the operator says about images: `messages` reads what it is asked to sign and
refuses the rest, `callers` finds out who asks, `keyring` holds the keys, `server` answers.
"""
