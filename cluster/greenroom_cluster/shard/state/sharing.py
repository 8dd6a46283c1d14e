"""Shares of what all namespaces have together: none of them can take it from the others. Pure."""


def is_over_share(taken: int, total: int, most: int) -> bool:
    """Whether one that would take so much, of such a total, is to be refused; alone it may take `most`.

    It may take as much as it leaves of twice that. So of several that want all, each gets an equal share, and
    whoever comes later finds as much as one of these has. Nothing is taken away from anybody.
    """
    return taken > 2 * most - total
