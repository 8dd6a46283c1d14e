"""Adapters for frameworks that are not, or not only, served by the ASGI middleware of `greenroom.web`.

Each module needs its framework, which an extra of the same name installs: `greenroom[litestar]`, `[quart]`,
`[aiohttp]`, `[starsessions]`.
"""
