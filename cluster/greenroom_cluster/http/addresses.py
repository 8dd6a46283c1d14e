"""The addresses of the HTTP ports of a local cluster's processes."""

from collections.abc import Callable

from greenroom.addresses import join_address, parse_address
from greenroom.errors import UsageError
from greenroom_cluster.http.port import OPTION, check_installed
from greenroom_cluster.runtime.ports import check_port


class HttpAddresses:
    """One for each process, chosen when it is first asked for; `asked` is that of the first, empty for none.

    `any_address(host, option)` returns an address of that host which nobody has. With `optional`,
    there are none if what serves HTTP is not installed; `missing` says so then, and what to do.
    """

    def __init__(self, asked: str, any_address: Callable[[str, str], str], *, optional: bool) -> None:
        self._asked = asked
        self._any_address = any_address
        self._chosen: dict[str, str] = {}
        self.missing = ""
        if asked:
            try:
                check_installed()
            except UsageError as error:
                if not optional:
                    raise
                self._asked, self.missing = "", str(error)

    @property
    def chosen(self) -> dict[str, str]:
        """The addresses by the name of the process."""
        return dict(self._chosen)

    def of(self, name: str, number: int) -> str:
        """Return that of a process, which has this number among all of them; empty if there are none.

        Raises UsageError if it cannot be listened on.
        """
        if not self._asked:
            return ""
        if name not in self._chosen:
            host, port = parse_address(self._asked, any_port=True)
            if port:
                check_port(host, port + number, OPTION)
                self._chosen[name] = join_address(host, port + number)
            else:
                self._chosen[name] = self._any_address(host, OPTION)
        return self._chosen[name]
