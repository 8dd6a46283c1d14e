"""The inside of `greenroom.SqliteStore`: sessions in one SQLite file, for the processes of one host.

`files` opens the file and refuses what it must not touch. `rows` lets `greenroom.table` decide over the rows
of one transaction. `lanes` are the threads that hold the connections: each does all operations that wait in
one transaction and tells their callers after its commit. `operations` is what a caller waits for, under
asyncio and trio. `engine` puts lanes, deadlines and forks together. `failures` says what an error of SQLite
means.

docs/decisions/sqlite-store.md says why.
"""
