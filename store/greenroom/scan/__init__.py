"""What the bytes of session data may be: one scan, without recursion, that everything from outside passes.

Data, values of patches and expectations are read by nobody before they passed: in the facade, in a server
before it logs a command, and again before it applies one. The verdict depends on the bytes alone, never on
the stack below, on the Python version or on what was read before: replicas of a shard must decide alike.

Accepted is msgpack of which every value stands in its shortest form, so that equal keys have equal bytes: a
map on top, keys that are str or int and differ, str in valid UTF-8, lists, None, bool, int, float, str, bytes
and the extensions of `greenroom.codec`. The bounds keep the work of every reader in proportion to the size:
nesting, items in all, and what Python hashes without a secret. A dict of int keys that were chosen for their
hashes is quadratic to build; str and bytes are hashed with a secret.

Most data is plain: keys that are str, no bytes, few levels. A decoder in C reads it, whose type is unrolled
to these levels, and encodes it again. If that gives the same bytes, then keys differ, forms are the shortest
and nothing trails. All else the walk below decides, in Python; so of that there may be less.
"""
