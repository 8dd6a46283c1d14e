"""A cluster map kept in etcd: what its gateway is asked, by whom, and how the map lies there.

`gateway` has the requests and replies, `members` decides which member is asked and believed, `client` is the
only module that does I/O. `layout` turns a map into keys and back. `leadership` says who of several
coordinators leads, `candidacy` what one of them serves and keeps while it does.
"""
