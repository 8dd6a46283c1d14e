"""The pure client side of the protocol. `core` explains how it is driven."""

from greenroom.dialog.core import Dialog as Dialog
from greenroom.dialog.dispatch import DialogSettings as DialogSettings
from greenroom.dialog.links import Abort as Abort
from greenroom.dialog.links import Close as Close
from greenroom.dialog.links import Open as Open
