"""What is said after each step of a rotation: what to do before the next."""

from pathlib import Path

_COPY = "copy {ca}/ca.pem to every holder, also into its directory here, if there is one"
_SPREAD = {
    "all": _COPY,
    "servers": _COPY + ", and give {ca}/authority.pem to the authority for clients (`greenroom certs trust` "
    "there), whose holders need the ca.pem of that directory",
    "clients": "give {ca}/authority.pem to the authority for servers (`greenroom certs trust` there), whose "
    "holders need the ca.pem of that directory",
}
_SAID_OF_STEPS = {
    "trust-both": "There is a new authority; the former still issues.\nNext: {spread}. When every process "
    "has read it: `greenroom certs rotate-ca issue-from-new`",
    "issue-from-new": "The new authority issues.\nNext: `greenroom certs renew` for every holder, and copy "
    "the files to their hosts. When every process has read them: `greenroom certs rotate-ca drop-old`",
    "drop-old": "The former authority is dropped, and its key removed.\nNext: {spread}. Remove the former "
    "key from your copies of the directory too",
}


def said_of_step(step: str, purpose: str, ca: Path) -> str:
    """Return what to do after a step of the rotation of an authority for that purpose."""
    return _SAID_OF_STEPS[step].format(spread=_SPREAD[purpose].format(ca=ca))
