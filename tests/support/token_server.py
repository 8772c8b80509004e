"""The authorization half of a registry: a token realm, and faults that demand its tokens."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from aiohttp import web

from .registry import Fault


@dataclass
class TokenServer:
    """Issues numbered tokens to one user; `valid` holds those accepted now, mapped to their scopes."""

    username: str = "robot"
    password: str = "s3cret"
    lifetime: float = 300
    issued: int = 0
    valid: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def realm(self, path: str = "/token") -> Fault:
        """Serve the realm on the registry's own address."""

        async def fault(request: web.Request) -> web.Response | None:
            return self._issue(request) if request.path == path else None

        return fault

    def demand(self, realm: str) -> Fault:
        """Refuse requests without a valid token for their repository, and name the realm."""

        async def fault(request: web.Request) -> web.Response | None:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            needed = "push" if request.method in {"POST", "PATCH", "PUT"} else "pull"
            repository = request.path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
            if any(_allows(scope, repository, needed) for scope in self.valid.get(token, ())):
                return None
            challenge = f'Bearer realm="{realm}",service="test",scope="repository:{repository}:{needed}"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})

        return fault

    def _issue(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.headers))
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return web.json_response({"details": "incorrect username or password"}, status=401)
        self.issued += 1
        token = f"token-{self.issued}"
        self.valid[token] = tuple(request.query.getall("scope"))
        return web.json_response({"token": token, "expires_in": self.lifetime})


def demand_basic(username: str, password: str) -> Fault:
    """Refuse requests without exactly this user name and password."""
    expected = base64.b64encode(f"{username}:{password}".encode()).decode()

    async def fault(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Basic {expected}":
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})

    return fault


def _allows(scope: str, repository: str, action: str) -> bool:
    kind, name, actions = scope.split(":")
    return (kind, name) == ("repository", repository) and action in actions.split(",")
