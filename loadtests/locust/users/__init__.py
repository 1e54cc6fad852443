"""The users: each does what one kind of client does, and checks every answer."""

from loadtests.locust.users.requests import GenerationUser, RecognitionUser, RowsUser, SequencesUser
from loadtests.locust.users.sessions import SessionUser

__all__ = ["GenerationUser", "RecognitionUser", "RowsUser", "SequencesUser", "SessionUser"]
