"""The one place where an object of Kodo comes into being, under the policy of the token that came last.

Qiniu's developer manual, 'upload policy', 'callback' and 'error response'. A callback that fails leaves the object and
answers 579.
"""

import base64
import json
import mimetypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from dumbwaiter_sandbox.callback import CallbackFailedError, post
from dumbwaiter_sandbox.kodo import accounts, policies
from dumbwaiter_sandbox.kodo.options import KodoOptions
from dumbwaiter_sandbox.kodo.policies import Policy
from dumbwaiter_sandbox.kodo.reply import json_answer, json_error
from dumbwaiter_sandbox.storage import StoredObject
from dumbwaiter_sandbox.world import RefusedError, World, entry_of, fault_of


@dataclass(frozen=True)
class Arrived:
    """A file that is here whole, and what its sender says of it."""

    path: str
    size: int
    etag: str
    name: str | None = None  # of the file
    mime: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)  # x:variables and x-qn-meta-*


async def create(
    world: World, request: Request, policy: Policy, key: str | None, arrived: Arrived, *, replaces: bool = False
) -> Response:
    """Make the object and answer as the policy says. `replaces`: a scope without a key protects nothing."""
    now = world.clock.now()
    policy.check_time(now)
    policy.check_key(key)
    policy.check_size(arrived.size)
    policy.check_mime(_head(arrived.path))
    variables: dict[str, object] = {
        **policies.moment(now),
        **arrived.fields,
        "bucket": policy.bucket,
        "etag": arrived.etag,
        "fname": arrived.name,
        "fsize": arrived.size,
        "mimeType": _mime(policy, arrived, key),
        "endUser": policy.members.get("endUser"),
        "ext": os.path.splitext(arrived.name or "")[1] or None,
    }
    name = policy.name(key, variables)
    variables["key"] = name
    entry_of(request).facts.update(bucket=policy.bucket, key=name, size=arrived.size, hash=arrived.etag)
    stored = StoredObject(
        policy.bucket,
        name,
        arrived.size,
        arrived.etag,
        str(variables["mimeType"]),
        now,
        {one: value for one, value in arrived.fields.items() if one.startswith("x-qn-meta-")},
    )
    if not _is_there(world, policy, stored, replaces=replaces):
        world.objects.publish(arrived.path, stored)
    return await _respond(world, request, policy, variables)


def _is_there(world: World, policy: Policy, stored: StoredObject, *, replaces: bool) -> bool:
    """Whether the same content is there already. Raises RefusedError when another one is and must stay."""
    there = world.objects.find(stored.bucket, stored.key)
    creates_only = policy.flag("insertOnly") if replaces else policy.creates_only
    if there is None or not creates_only:
        return False
    same = there.etag == stored.etag and not policy.flag("isPrefixalScope")
    if not same or (policy.flag("insertOnly") and _options(world).same_content == "exists"):
        raise RefusedError(614, "file exists")
    return True


def _mime(policy: Policy, arrived: Arrived, key: str | None) -> str:
    if arrived.mime and not policy.number("detectMime"):
        return arrived.mime
    guessed = mimetypes.guess_type(arrived.name or "")[0] or mimetypes.guess_type(key or "")[0]
    if guessed:
        return guessed
    return policies.sniffed(_head(arrived.path))


async def _respond(world: World, request: Request, policy: Policy, variables: Mapping[str, object]) -> Response:
    fault = fault_of(request)
    name = fault.name if fault else ""
    if name == "579":
        return _callback_failed(policy, "injected")
    if policy.text("callbackUrl"):
        try:
            text = await _call_back(world, policy, variables)
            members = json.loads(text)
        except (CallbackFailedError, ValueError) as error:
            return _callback_failed(policy, str(error))
    elif policy.text("returnUrl"):
        body = policies.filled_json(policy.text("returnBody") or "{}", variables)
        given = base64.urlsafe_b64encode(body.encode()).decode()
        return json_answer({}, 303, {"location": f"{policy.text('returnUrl')}?upload_ret={given}"})
    elif policy.text("returnBody"):
        members = json.loads(policies.filled_json(policy.text("returnBody"), variables))
    else:
        members = {"hash": variables["etag"], "key": variables["key"]}
    if name == "no-key":
        members = {"status": "taken"}
    return json_answer(members)


async def _call_back(world: World, policy: Policy, variables: Mapping[str, object]) -> str:
    """The answer of the first callback address that gives one. Raises CallbackFailedError."""
    form = policy.text("callbackBodyType") != "application/json"
    fill = policies.filled_form if form else policies.filled_json
    body = fill(policy.text("callbackBody"), variables)
    trouble = CallbackFailedError("there is no address")
    for url in policy.text("callbackUrl").split(";"):
        inside = world.inside.get(url)
        try:
            return await inside(body) if inside else await _post(world, policy, url, body, form=form)
        except CallbackFailedError as error:
            trouble = error
    raise trouble


async def _post(world: World, policy: Policy, url: str, body: str, *, form: bool) -> str:
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = {
        "content-type": "application/x-www-form-urlencoded" if form else "application/json",
        "authorization": accounts.callback_authorization(policy.account, path, body, form=form),
    }
    if policy.text("callbackHost"):
        headers["host"] = policy.text("callbackHost")
    reply = await post(url, body, headers, _options(world).callback_patience)
    if reply.status_code != 200:
        raise CallbackFailedError(f"the callback was answered with {reply.status_code}")
    return reply.text


def _options(world: World) -> KodoOptions:
    return cast("KodoOptions", world.options["kodo"])


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def _callback_failed(policy: Policy, why: str) -> Response:
    told = {"callback_url": policy.text("callbackUrl"), "token": "", "err_code": 579, "error": why}
    return json_error(579, json.dumps(told))
