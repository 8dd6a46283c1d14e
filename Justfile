# What one does with this workspace. `uv run just` lists it; `uv run just check` is what must pass.

[private]
default:
    @just --list --unsorted

# --- see it --------------------------------------------------------------------------------------------

# A shop on three nodes, customers, kills, and every cart checked afterwards
[group("see it")]
demo *options:
    uv run greenroom demo {{ options }}

# A cluster on this machine until Ctrl-C
[group("see it")]
up *options:
    uv run greenroom up {{ options }}

# Nodes, actors and shards of a running cluster
[group("see it")]
status *options:
    uv run greenroom status {{ options }}

# --- check it ------------------------------------------------------------------------------------------

# Every test, or those named
[group("check it")]
test *options:
    uv run pytest {{ options }}

# The tests without real processes and without fresh environments: for while one writes
[group("check it")]
quick *options:
    uv run pytest -m "not system and not packaging" {{ options }}

# Style, formatting and strict types
[group("check it")]
lint:
    uv run ruff check
    uv run ruff format --check
    uv run mypy

# All that must hold of a change, as continuous integration runs it
[group("check it")]
check:
    .ci/run

# --- measure it ----------------------------------------------------------------------------------------

# Speed, memory and failover beside Redis, memcached and their clients, all in the same run
[group("measure it")]
bench *options:
    uv run --group bench python -m benchmarks {{ options }}

# --- read it --------------------------------------------------------------------------------------------

# The documentation site, into build/site/html; with --serve on this machine, until Ctrl-C
[group("read it")]
docs *options:
    uv run python -m website {{ options }}

# --- change it -----------------------------------------------------------------------------------------

# Bring formatting in order and mend what can be mended without thought
[group("change it")]
format:
    uv run ruff check --fix
    uv run ruff format

# Both wheels and source archives, into dist/
[group("change it")]
build:
    uv build --all-packages --out-dir dist

# Remove what tools leave behind; environments stay
[group("change it")]
clean:
    rm -rf dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
