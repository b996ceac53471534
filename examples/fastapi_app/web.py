"""A web application of FastAPI that asks the service: ``uvicorn examples.fastapi_app.web:web``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from examples.fastapi_app.app import app


@asynccontextmanager
async def with_client(web: FastAPI) -> AsyncIterator[None]:
    """One client for all requests, as long as the application runs."""
    async with app.async_client("price") as web.state.client:
        yield


web = FastAPI(lifespan=with_client)


@web.get("/price/{item}")
async def price(item: str, request: Request) -> Any:
    """What this item costs."""
    return await request.app.state.client.request({"item": item})
