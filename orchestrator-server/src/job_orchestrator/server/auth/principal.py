"""The principal of a request: the user or administrator whose token it carries."""

from dataclasses import dataclass

from job_orchestrator.common.errors import Forbidden


@dataclass(frozen=True)
class Principal:
    """A user, or an administrator (``user_id`` None).

    ``authenticated`` is False if no tokens are configured; then everybody is an administrator.
    """

    user_id: int | None
    authenticated: bool = True

    @property
    def is_admin(self) -> bool:
        """True for an administrator, who may see and do everything."""
        return self.user_id is None

    def owns(self, user_id: int) -> bool:
        """Return whether the jobs of ``user_id`` may be seen, fetched and terminated."""
        return self.is_admin or self.user_id == user_id

    def narrow(self, user_id: int | None) -> int | None:
        """Restrict a request for the jobs of ``user_id`` (None: all users) to those allowed.

        Returns the user whose jobs may be listed, None for all. Raises ``Forbidden`` for another
        user, whether that user exists or not.
        """
        if self.is_admin:
            return user_id
        if user_id not in (None, self.user_id):
            raise Forbidden(f"This token is for user {self.user_id} only")
        return self.user_id


EVERYBODY = Principal(user_id=None, authenticated=False)
"""The principal of every request if no tokens are configured."""
