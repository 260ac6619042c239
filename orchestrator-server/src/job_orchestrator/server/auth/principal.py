"""Who asks, and what that lets them see."""

from dataclasses import dataclass

from job_orchestrator.common.errors import Forbidden


@dataclass(frozen=True)
class Principal:
    """Who asks: a user, or, with ``user_id`` None, an administrator.

    ``authenticated`` is False where no tokens are configured: then everybody is an administrator.
    """

    user_id: int | None
    authenticated: bool = True

    @property
    def is_admin(self) -> bool:
        """Whether everything may be seen and done."""
        return self.user_id is None

    def owns(self, user_id: int) -> bool:
        """Whether what belongs to ``user_id`` may be seen, fetched and ended."""
        return self.is_admin or self.user_id == user_id

    def narrow(self, user_id: int | None) -> int | None:
        """Whose jobs a list is to hold, where ``user_id`` (None: everybody's) was asked for.

        Raises ``Forbidden`` for another user; whether that one exists is not told.
        """
        if self.is_admin:
            return user_id
        if user_id not in (None, self.user_id):
            raise Forbidden(f"This token is for user {self.user_id} only")
        return self.user_id


EVERYBODY = Principal(user_id=None, authenticated=False)
"""Who asks where no tokens are configured."""
