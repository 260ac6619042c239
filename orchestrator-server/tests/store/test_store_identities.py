"""Users of issuers in the store: one number for ever, also for concurrent requests."""

import asyncio

from job_orchestrator.server.store.identities import FIRST_USER_ID
from stores import OpenStore

ISSUER, OTHER = "https://a.example", "https://b.example"


async def test_user_keeps_the_number_over_a_restart(open_job_store: OpenStore) -> None:
    async with open_job_store() as store:
        ada = await store.identities.identify(ISSUER, "ada", "Ada", ["x"])
        same_name = await store.identities.identify(OTHER, "ada", "Ada", [])
        assert (ada.user_id, same_name.user_id) == (FIRST_USER_ID, FIRST_USER_ID + 1)
    async with open_job_store() as store:
        assert await store.identities.identify(ISSUER, "ada", "Ada", ["x"]) == ada
        changed = await store.identities.identify(ISSUER, "ada", "Ada K.", [])
        assert (changed.user_id, changed.name, changed.groups) == (FIRST_USER_ID, "Ada K.", ())
        assert await store.identities.all() == [changed, same_name]


async def test_concurrent_first_requests_of_a_user_get_one_number(
    open_job_store: OpenStore,
) -> None:
    async with open_job_store() as store:
        found = await asyncio.gather(
            *(store.identities.identify(ISSUER, f"user {n % 5}", "", []) for n in range(50))
        )
        assert {user.user_id for user in found} == set(range(FIRST_USER_ID, FIRST_USER_ID + 5))
        assert len({(user.user_id, user.subject) for user in found}) == 5
