"""A service in the process of the tests."""

import asyncio
from contextlib import asynccontextmanager

import httpx

from service.app import create_app
from service.models import open_bundles
from service.settings import Settings
from service.state import Service
from service.tracing import OFF


class Running:
    """A service on an event loop of its own, asked in process."""

    def __init__(self, models, scratch, tracer=OFF, **settings):
        self.settings = Settings(models_dir=models, decoders=1, provider="cpu", threads=1, **settings)
        self.scratch, self.tracer = scratch, tracer
        self.runner = asyncio.Runner()
        self.runner.run(self._make())

    async def _make(self):
        self.service = Service(self.settings, open_bundles(self.settings), self.scratch, self.tracer)
        self.app = create_app(self.service)

    async def start(self):
        self._life = self.app.router.lifespan_context(self.app)
        await self._life.__aenter__()
        await self.app.state.loading

    async def stop(self):
        await self._life.__aexit__(None, None, None)

    @asynccontextmanager
    async def client(self):
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    def ask(self, method, url, **given):
        async def main():
            async with self.client() as client:
                return await client.request(method, url, **given)

        return self.runner.run(main())
