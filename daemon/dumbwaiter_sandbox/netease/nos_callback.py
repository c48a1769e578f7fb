"""The callback of a NOS node after the last chunk.

NetEase's NOS manual, 'upload callback': the policy names an address and a body with variables such as $(ObjectSize); any
answer but a success fails the upload with 520. An address of this sandbox is called without a socket.
"""

import base64

from dumbwaiter_sandbox.callback import CallbackFailedError, post
from dumbwaiter_sandbox.netease import nos_token
from dumbwaiter_sandbox.netease.nos_token import Policy
from dumbwaiter_sandbox.netease.options import NetEaseOptions
from dumbwaiter_sandbox.storage import StoredObject
from dumbwaiter_sandbox.world import World

TIMEOUT = 5.0  # seconds, real time
FORM = "application/x-www-form-urlencoded"


async def call_back(world: World, policy: Policy, stored: StoredObject, options: NetEaseOptions, key: str) -> str:
    """The answer as callbackRetMsg holds it, empty without a callback. Raises CallbackFailedError."""
    if not policy.callback_url:
        return ""
    body = _filled(policy.callback_body, stored)
    inside = world.inside.get(policy.callback_url)
    answer = await inside(body) if inside else await _post(policy.callback_url, body, nos_token.sign(key, body))
    return base64.b64encode(answer.encode()).decode() if options.callback_form == "base64" else answer


async def _post(url: str, body: str, signature: str) -> str:
    headers = {"content-type": FORM, "authorization": f"NOS {signature}"}
    reply = await post(url, body, headers, TIMEOUT)
    if not reply.is_success:
        raise CallbackFailedError(f"the callback was answered with {reply.status_code}")
    return reply.text


def _filled(template: str, stored: StoredObject) -> str:
    variables = {
        "Bucket": stored.bucket,
        "Object": stored.key,
        "ObjectSize": str(stored.size),
        "ContentType": stored.content_type,
        "ETag": stored.etag,
    }
    for name, value in variables.items():
        template = template.replace(f"$({name})", value)
    return template
