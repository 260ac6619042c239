"""Streams of bytes over one WebSocket, with the interface of connections of asyncio."""
