"""For how long certificates are issued, in days."""

LEAF_DAYS = 90
LEAF_DAYS_MAX = 825
AUTHORITY_DAYS = 3653
