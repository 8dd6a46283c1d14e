"""The check of encoded session data: one scan, without recursion, that everything from outside must pass.

Data, values of patches and expectations are decoded only after they have passed: in the facade, in a server
before it logs a command, and again before it applies one. The verdict depends on the bytes alone, never on
the stack below, on the Python version or on earlier data: replicas of a shard must decide alike.

The scan accepts msgpack with every value in its shortest form, so that equal keys have equal bytes: a map at
the top, keys that are str or int and differ, str in valid UTF-8, lists, None, bool, int, float, str, bytes
and the extensions of `greenroom.codec`. Bounds on nesting, on items in all, and on values that Python hashes
without a secret keep the work of every reader in proportion to the size. A dict of int keys that were chosen
for their hashes is quadratic to build; str and bytes are hashed with a secret.

Most data is plain: str keys, no bytes, few levels. A decoder in C, whose type is unrolled to these levels,
reads it and encodes it again. If the bytes are the same, then keys differ, forms are the shortest and nothing
trails. A walk in Python decides about everything else, so the bounds for that are lower.
"""
