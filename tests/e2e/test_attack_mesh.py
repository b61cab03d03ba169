"""What strangers at the mesh port must not achieve."""

import asyncio

from tests.helpers.mesh_nodes import nodes, sees, until


async def test_callers_who_never_speak_lose_their_places_to_members() -> None:
    async with nodes() as made:
        # Nobody's time runs out in this test: a place is free only because somebody was sent away.
        here = await made.start("here", handshake_timeout=600.0, max_handshakes=4)
        crowd = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(40)]
        try:
            friend = await made.start("friend", peers=(f"127.0.0.1:{here.port}",))

            await until(lambda: sees(here, friend), "a real node")
            await until(lambda: here.stats().handshakes_failed >= 36, "the crowd to be sent away")
        finally:
            for _, writer in crowd:
                writer.close()
