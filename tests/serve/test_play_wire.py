"""What the server of the play page answers, asked by a client that is no browser."""

import contextlib
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from play_server import running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from lssvwm_agents import cli


class Client:
    """Says hello and asks."""

    def __init__(self, address: str, session: str | None = None, query: str = "") -> None:
        url = address.replace("http", "ws").split("?")[0] + "walk" + query
        self.held = contextlib.ExitStack()  # closes the socket when the client is forgotten
        self.socket: ClientConnection = self.held.enter_context(connect(url))
        self.scene = self.ask({"type": "hello", "session": session}, "scene")
        self.session = self.scene["session"]
        self.moment = self.until("moment")

    def until(self, kind: str) -> dict[str, Any]:
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message["type"] == kind:
                return message
            assert message["type"] != "error", message

    def ask(self, message: dict[str, Any], kind: str) -> dict[str, Any]:
        self.socket.send(json.dumps(message))
        return self.until(kind)

    def move(self, move: int) -> dict[str, Any]:
        return self.ask({"type": "move", "move": move}, "moment")

    def refused(self, text: str) -> str:
        self.socket.send(text)
        message = json.loads(self.socket.recv(timeout=60))
        assert message["type"] == "error"
        return message["message"]


def test_two_clients_walk_apart_and_each_may_come_back(address: str) -> None:
    one, two = Client(address), Client(address)
    assert one.session != two.session and one.moment["frame"] == two.moment["frame"]
    turned = [one.move(2) for _ in range(3)][-1]
    assert turned["index"] == one.moment["index"] + 3 and turned["frame"] != one.moment["frame"]
    assert two.move(0)["index"] == two.moment["index"] + 1

    one.socket.close()
    back = Client(address, one.session)
    assert back.scene["resumed"] and back.session == one.session
    assert back.moment["frame"] == turned["frame"] and back.moment["index"] == turned["index"]
    assert back.scene["branches"][0]["path"][-1] == turned["pose"]

    again = Client(address, one.session)  # another tab with that session takes it over
    with pytest.raises(ConnectionClosed) as closed:
        back.until("never")
    assert closed.value.rcvd.code == 4001
    assert again.moment["index"] == turned["index"]
    assert Client(address, "no-such-session").scene["resumed"] is False


def test_fork_restore_and_another_maze(address: str) -> None:
    client = Client(address)
    before = client.move(2)
    fork = client.ask({"type": "fork"}, "fork")["fork"]
    assert fork["frame"] == before["frame"] and fork["index"] == before["index"]
    client.move(1)
    branch = client.ask({"type": "restore", "number": fork["number"]}, "branch")["branch"]
    assert (branch["number"], branch["parent"], branch["fork"]) == (1, 0, fork["number"])
    assert client.until("moment")["frame"] == before["frame"]
    client.ask({"type": "forget", "number": fork["number"]}, "forgotten")
    real = client.ask({"type": "real", "show": True}, "moment")["real"]
    assert {"frame", "pose", "found"} <= set(real)
    other = client.ask({"type": "maze"}, "scene")
    assert other["seed"] != client.scene["seed"] and not other["forks"] and other["session"] == client.session


def test_a_journey_shows_candidates_moves_and_can_be_stopped(address: str) -> None:
    client = Client(address)
    goal = client.scene["looked"][0][:2]
    client.ask({"type": "plan", "x": goal[0], "y": goal[1]}, "journey")
    candidates = client.until("candidates")
    assert candidates["iteration"] == 1 and len(candidates["paths"]) == 32
    assert all(len(path) == 12 and len(path[0]) == 2 for path in candidates["paths"])
    moved = client.until("moment")
    assert moved["by"] == "planner"
    client.socket.send(json.dumps({"type": "stop"}))
    assert client.until("journey_end")["outcome"] == "stopped"
    index = client.move(0)["index"]
    assert index <= moved["index"] + 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "must be JSON"),
        ("[]", "must be a JSON object, got list"),
        ('{"type": "fly"}', "must be one of move, fork"),
        ('{"type": "move", "move": 6}', "`move` must be a whole number in [0, 6), got 6"),
        ('{"type": "move", "move": true}', "`move` must be a whole number in [0, 6), got True"),
        ('{"type": "restore", "number": 5}', "There is no kept moment 5"),
        ('{"type": "plan", "x": 0.5, "y": 0.5}', "(0.5, 0.5) is no floor of this maze"),
        ('{"type": "plan", "x": "a", "y": 0.5}', "`x` must be a number of cells"),
        ('{"type": "hello"}', "was said already"),
    ],
)
def test_what_is_wrong_is_said_and_the_walk_goes_on(address: str, text: str, words: str) -> None:
    client = Client(address)
    assert words in client.refused(text)
    assert client.move(0)["index"] == client.moment["index"] + 1


def test_other_sites_and_other_names_are_refused(address: str) -> None:
    url = address.replace("http", "ws") + "walk"
    with pytest.raises(InvalidStatus), connect(url, origin="http://elsewhere.example"):
        pass
    request = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 400


def test_a_token_is_needed_beyond_this_machine() -> None:
    with running("--context-frames", "2", "--host", "0.0.0.0") as address:
        port = address.split(":")[2].split("/")[0]
        local, token = f"http://127.0.0.1:{port}/", address.split("token=")[1]
        assert len(token) > 16
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(local)
        assert refused.value.code == 403
        with pytest.raises(InvalidStatus):
            Client(local, query="?token=wrong")
        assert b"A dream to walk in" in urllib.request.urlopen(f"{local}?token={token}").read()
        assert Client(local, query=f"?token={token}").moment["index"] == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--port 70000", "`port` must be in [0, 65536), got 70000"),
        ("--token short", "`token` must have at least 8 characters"),
        ("--seed -1", "`seed` must be in [0, 2^32), got -1"),
        ("--model nowhere", "There is no world model `nowhere`"),
        ("--host 203.0.113.1 --context-frames 2", "cannot be used"),
        ("--context-frames 1", "`context_frames` must be at least 2, got 1"),
        ("--guide nobody", "`guide` must be one of "),
    ],
)
def test_wrong_flags_get_one_sentence(flags: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", *flags.split()]) == 2
    assert words in capsys.readouterr().err
