"""Groups of users as their issuers name them, for the policy file."""

from collections.abc import Mapping

from job_orchestrator.server.store.identities import Identified


class ClaimedGroups:
    """Members of each group, by the last token of each user."""

    def __init__(self) -> None:
        self._groups: dict[int, tuple[str, ...]] = {}
        self._members: dict[str, frozenset[int]] = {}

    def members(self) -> Mapping[str, frozenset[int]]:
        """Return the members of each group. The mapping is replaced, never changed."""
        return self._members

    def update(self, user: Identified) -> None:
        """Take over the groups of a user."""
        before = self._groups.get(user.user_id, ())
        if before == user.groups:
            return
        self._groups[user.user_id] = user.groups
        members = dict(self._members)
        for name in set(before) - set(user.groups):
            members[name] = members[name] - {user.user_id}
        for name in set(user.groups) - set(before):
            members[name] = members.get(name, frozenset()) | {user.user_id}
        self._members = {name: each for name, each in members.items() if each}
