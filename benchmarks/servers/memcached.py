"""memcached, from the distribution's package."""

import shutil
import subprocess

from benchmarks.processes import MissingError, Process, Server
from benchmarks.servers.ports import until_listening

_MEGABYTES = 12_288
_CONNECTIONS_MAX = 8192


class MemcachedServer(Server):
    """One memcached with its default number of threads and room for everything."""

    def start(self) -> None:
        """Start it."""
        program = shutil.which("memcached")
        if program is None:
            raise MissingError("memcached is not installed: apt-get install memcached")
        port = self.port()
        limits = ("-m", str(_MEGABYTES), "-c", str(_CONNECTIONS_MAX))
        self._process = self.run([program, "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), *limits])
        until_listening("127.0.0.1", port, self._process)
        self.addresses["memcached"] = f"127.0.0.1:{port}"
        version = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout
        self.versions["memcached"] = version.split()[-1]

    def processes(self) -> list[Process]:
        """Return the one process."""
        return [self._process]
