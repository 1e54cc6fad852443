"""The users: each does what one kind of client does, and checks every answer."""

from loadtests.locust.users.evaluation import EvaluationUser
from loadtests.locust.users.hang_up import HangUpUser
from loadtests.locust.users.over_grpc import RowsGrpcUser, SessionStreamUser
from loadtests.locust.users.requests import GenerationUser, RecognitionUser, RowsUser, SequencesUser
from loadtests.locust.users.sessions import SessionUser
from loadtests.locust.users.slow import SlowUser
from loadtests.locust.users.websocket import SessionWebSocketUser

__all__ = [
    "EvaluationUser",
    "GenerationUser",
    "HangUpUser",
    "RecognitionUser",
    "RowsGrpcUser",
    "RowsUser",
    "SequencesUser",
    "SessionStreamUser",
    "SessionUser",
    "SessionWebSocketUser",
    "SlowUser",
]
