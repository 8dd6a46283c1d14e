"""Certificates of a cluster: an authority that issues them, and what each holder keeps.

`issuing` decides what a certificate holds, `examining` whether one is in order, `rotation` how one authority
follows another; they are pure. `authority` keeps an authority in a directory, `holders` the files of a
holder, `passphrases` reads what opens an authority's key. `cryptography`, which they need, is the extra
`certs`.
"""
