"""TLS 1.3 for every connection, by the standard library alone.

`channel` knows no sockets. `sockets` puts a channel around a socket that does not block. `credentials` reads
the files of a holder, again when they change. `demands` says who must answer a
connection, `standing` whether a certificate counts still.
"""
