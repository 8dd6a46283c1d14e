"""What an operator does to tokens: another one for an app, and the end of the former."""

from simulations.cluster.clients import ClientProcess
from simulations.cluster.tokens import LOOK_NS
from simulations.faults.hits import Hit, Undo, nothing


def replace_token(hit: Hit) -> Undo | None:
    """An app gets another token, once all servers know it; then its former one is revoked."""
    stage, client = hit.stage, hit.target.process
    book = stage.network.tokens
    if book is None or not isinstance(client, ClientProcess):
        return None
    app, former = client.machine.name, book.held_by(client.machine.name)
    if former is None:
        return None
    token = book.issue(client.holder)

    def give() -> None:
        book.give(app, token)
        stage.timeline.after(2 * LOOK_NS, book.revoke, former)

    # Clocks of servers may be a little slower than that.
    stage.timeline.after(2 * LOOK_NS, give)
    return nothing
