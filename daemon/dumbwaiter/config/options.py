"""What can be said of a provider in the configuration: one struct a vendor, told apart by `broker`."""

import re
from string import Formatter
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct

from dumbwaiter.config.values import BaseUrl, Duration, RequestUrl, SecretSource
from dumbwaiter.naming import shown
from dumbwaiter.wire.recipe import CONTROL, Expression, Stored, blanks
from dumbwaiter.wire.xinhua import LIFE_MAX


class NetEase(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="netease"):
    """NetEase VOD: the application's key and secret mint tokens for NOS."""

    WHY_NO_KEYS: ClassVar = "NetEase VOD names every object itself"

    app_key: str
    app_secret: SecretSource
    api: BaseUrl = BaseUrl("https://vcloud.163.com")
    lbs: BaseUrl = BaseUrl("http://wanproxy.127.net")  # documented without TLS
    cdn: BaseUrl = BaseUrl("http://{bucket}.nosdn.127.net")  # where public objects are read

    def __post_init__(self) -> None:
        _filled(self, "app_key")
        if re.search(r"[{}]", self.cdn.replace("{bucket}", "")):
            raise _at("cdn", f'"{shown(self.cdn)}" has a brace that is not of {{bucket}}, the only blank here')


HEADER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, "token"
FRAMING = {"content-length", "transfer-encoding"}  # where a body ends: its sender's to say
NEEDED = {"qiniu": "token", "oss": "fields"}  # by transport: without what it can send nothing
REQUEST_BLANKS = ("key", "name", "path", "size", "mime", "seed", "uuid")


class RecipeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How a grant is asked for. Blanks: {key} {name} {path} {size} {mime} {seed} {uuid} {secret.NAME}."""

    url: RequestUrl
    method: Literal["GET", "POST", "PUT"] = "POST"
    headers: dict[str, str] = {}
    body: str | dict[str, Any] | None = None  # a table is sent as JSON


class RecipeReply(Struct, frozen=True, forbid_unknown_fields=True):
    """Where in the reply a grant stands."""

    url: Expression
    grants: Expression = Expression("@")  # a list of grants, or the only one; the others are looked up in each
    token: Expression | None = None
    fields: Expression | None = None  # of the form; for PUT its headers
    key: Expression | None = None
    link: Expression | None = None
    expires_at: Expression | None = None
    expires_in: Expression | None = None


class Recipe(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="recipe"):
    """A provider described here, without code."""

    transport: Literal["form", "put", "qiniu", "oss"]
    request: RecipeRequest
    reply: RecipeReply
    stored: Stored = Stored()
    secrets: dict[str, SecretSource] = {}
    token_field: str = "token"  # noqa: S105 - a field's name
    file_field: str = "file"
    many: bool = False  # one grant serves many files
    life: Duration | None = None  # of a grant that does not say
    requests: float = 20.0  # a second

    def __post_init__(self) -> None:
        known = [*REQUEST_BLANKS, *(f"secret.{name}" for name in self.secrets)]
        for key in ("url", "headers", "body"):
            for blank in sorted(blanks(getattr(self.request, key)) - set(known)):
                named = " ".join(f"{{{one}}}" for one in known)
                raise _at(f"request.{key}", f"unknown blank {{{blank}}}; known: {named}")
        for name, value in self.request.headers.items():
            if not re.fullmatch(HEADER, name) or name.lower() in FRAMING:
                raise _at("request.headers", f'"{shown(name)}" is no header that can be set')
            if CONTROL.search(value):
                raise _at("request.headers", f'the value of "{name}" has a control character')
        if (needed := NEEDED.get(self.transport)) and getattr(self.reply, needed) is None:
            raise _at("reply", f'the key "{needed}" is missing: transport = "{self.transport}" needs what it gives')
        if not is_rate(self.requests):
            raise _at("requests", f"{self.requests:g} is no number of requests a second: more than 0")
        if self.life is not None and self.life < 1:
            raise _at("life", f'{self.life:g} seconds are too few: "1s" at least')

    @property
    def asks_for_key(self) -> bool:
        """True when the service is told which key the object shall have."""
        asked = self.request
        return not self.many and "key" in blanks([asked.url, asked.headers, asked.body])


class Jimeng(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="jimeng"):
    """Jimeng or Dreamina: a session cookie gives temporary keys for ImageX. A token "us-…" is the international one's."""

    WHY_NO_KEYS: ClassVar = "ImageX names every object itself"

    refresh_token: SecretSource
    api: BaseUrl | None = None  # signs in; by default the vendor's own of the token's region
    imagex: BaseUrl | None = None  # by default what signing in names
    region: str | None = None  # as the keys are used; by default what signing in names
    multipart: Literal["gateway", "plain", "v1"] = "gateway"  # how large files are sent: three ways, one of them known
    web_version: str | None = None  # of the page that we sign in as (international)
    da_version: str | None = None


class CareyShop(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="careyshop"):
    """CareyShop: an administrator's sign-in gives tokens for the shop's own disk, Qiniu or Aliyun OSS."""

    WHY_NO_KEYS: ClassVar = "the shop says in which folder an object lies, and its name there is random"

    api: BaseUrl  # with its version: "https://shop.example/api/v1"
    app_key: str
    app_secret: SecretSource
    username: str
    password: SecretSource
    module: Literal["", "careyshop", "qiniu", "aliyun"] = ""  # empty: the shop's default
    terminal: Literal["web", "app"] = "web"  # app: temporary credentials for OSS, and parts for large files
    request: Literal["post", "get"] = "post"  # how the shop is asked
    parent: int = 0  # number of the directory in the shop that files are listed in
    platform: str | None = None  # name of the sign-in; a second one of the same name ends the first
    endpoint: BaseUrl | None = None  # of OSS for app, without the bucket; by default the shop is asked
    region: str = ""  # of OSS for signature v4; by default the endpoint's
    signature: Literal["v1", "v4"] = "v1"  # new buckets of OSS take v4 only
    addressing: Literal["virtual", "path"] = "virtual"  # where the bucket stands: in the host name, or in the path
    refresh: Duration | None = None  # how often the shop's own list is read into the catalog; by default never

    def __post_init__(self) -> None:
        _filled(self, "app_key", "username")
        if self.parent < 0:
            raise _at("parent", f"found {self.parent}; allowed: the number of a directory, 0 for the top")
        if self.platform == "":
            raise _at("platform", "names no sign-in: leave the key out for one of the provider's own")
        if self.refresh is not None and self.refresh < 60:
            raise _at("refresh", f'{self.refresh:g} seconds are too few to read a whole list: "1m" at least')


FORBIDDEN = re.compile(r"\$[({][^)}]*[)}]")  # Qiniu would fill it in; Jiandaoyun refuses it
BLANKS = ("path", "name", "folder", "watch", "size", "mime", "hash", "key", "transaction")


class Jiandaoyun(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="jiandaoyun"):
    """Jiandaoyun: files as attachments in the records of one form."""

    WHY_NO_KEYS: ClassVar = "Jiandaoyun's upload tokens name the object"

    api_key: SecretSource
    app_id: str
    entry_id: str  # of the form
    record: Literal["per-file", "per-folder", "none"] | None = None  # by default per-file, once `attachment` is set
    attachment: str | None = None  # the field that takes the file
    values: dict[str, str] = {}  # by field: text with BLANKS; a folder's record has those of its latest file
    transaction: Literal["shared", "per-file"] = "shared"  # per-file: a call for every file's token
    start_workflow: bool = False  # of a new record
    start_trigger: bool = False
    api: BaseUrl = BaseUrl("https://api.jiandaoyun.com/api")

    def __post_init__(self) -> None:
        _filled(self, "app_id", "entry_id")
        if self.attachment == "":
            raise _at("attachment", 'names no field: write it like "_widget_…", or leave the key out')
        for name in ("app_id", "entry_id", "attachment"):
            if FORBIDDEN.search(getattr(self, name) or ""):
                raise _at(name, "must not hold text like ${…} or $(…): Jiandaoyun refuses it")
        if self.record_kind != "none" and not self.attachment:
            raise _at("record", 'a record needs the form\'s field for files: attachment = "_widget_…"')
        if self.record_kind == "per-folder" and self.transaction == "per-file":
            raise _at("transaction", 'files share a record within one transaction only: transaction = "shared"')
        for name in ("values", "start_workflow", "start_trigger"):
            if getattr(self, name) and not self.attachment:
                raise _at(
                    name,
                    'decides nothing without a record, and that needs the form\'s field for files: attachment = "_widget_…"',
                )
        for name, template in self.values.items():
            try:
                template.format(**dict.fromkeys(BLANKS, ""))
            except (KeyError, IndexError, ValueError, AttributeError):
                known = " ".join(f"{{{blank}}}" for blank in BLANKS)
                raise _at(
                    f"values.{name}", f'"{shown(template)}" has a blank that is not known; known: {known}'
                ) from None

    @property
    def record_kind(self) -> str:
        """Which records are written: per-file, per-folder or none."""
        return self.record or ("per-file" if self.attachment else "none")

    @property
    def identifying_values(self) -> dict[str, str]:
        """The values by which a record is found again, none when they cannot tell it from others."""
        if self.record_kind == "per-file":
            return {name: template for name, template in self.values.items() if "{path}" in template}
        shared = {name: one for name, one in self.values.items() if _blanks(one) <= {"folder", "watch", "transaction"}}
        return shared if any("{folder}" in template for template in shared.values()) else {}


class Xinhua(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="xinhua"):
    """Xinhua image processing (camera360): a key pair buys a JWT, and that gives upload tokens for JPEG pictures."""

    WHY_NO_REPLACING: ClassVar = "Xinhua's upload tokens only ever make new objects"

    access_key: str
    secret_key: SecretSource
    models: list[str] | None = None  # that the JWT is good for; by default all of this account
    token_life: Duration = Duration(20 * 3600)
    process: bool = False  # have each picture processed, and catalogue the watermarked result
    api: BaseUrl = BaseUrl("https://xinhua-api.camera360.com")
    upload: BaseUrl | None = None  # Qiniu's upload host; by default Qiniu is asked which one the bucket has
    uc: BaseUrl | None = None  # who is asked; by default Qiniu's own
    prefix: str = ""  # of keys: the bucket is shared with the account's other programs
    request: Literal["get", "post", "query"] = "get"  # how keys are named; the documented one is a GET with a body
    poll: Duration = Duration(2)  # until the first look at a task; later looks are further apart
    patience: Duration = Duration(900)  # with a task
    repeat_task: bool = False  # create a second task when the answer to the first was lost

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^:\s]+", self.access_key):
            raise _at("access_key", "must not be empty, nor hold a colon or a space")
        if self.models == []:
            raise _at("models", "names no model: leave the key out for all of the account")
        for model in self.models or ():
            if not re.fullmatch(r"[^:,\s]+", model):
                raise _at("models", f'"{shown(model)}" is no identifier: those are without colon, comma or space')
        if not 1 <= self.token_life <= LIFE_MAX:
            raise _at("token_life", f'{self.token_life:g} seconds is no life for a token: "1s" at least, "72h" at most')
        if not re.fullmatch(r"[A-Za-z0-9_.-]{0,100}", self.prefix):
            raise _at("prefix", f'"{shown(self.prefix)}" is none: it has letters, digits and _.- only, 100 at most')


def _blanks(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def _at(key: str, what: str) -> ValueError:
    """Returns a problem with one key of a table, as msgspec would say where it is."""
    return ValueError(f"{what} - at `$.{key}`")


def _filled(options: Struct, *keys: str) -> None:
    for key in keys:
        if not getattr(options, key).strip():
            raise _at(key, "must not be empty")


Provider = NetEase | Jimeng | Recipe | CareyShop | Jiandaoyun | Xinhua  # tagged by broker


def why_no_keys(provider: Provider) -> str | None:
    """Returns, as a clause, why a watch cannot say what this provider calls a file; None where it can."""
    if isinstance(provider, Recipe) and not provider.asks_for_key:
        return "the recipe's request does not tell the service a {key}, or many = true lets one permission serve many"
    return getattr(provider, "WHY_NO_KEYS", None)


def why_no_replacing(provider: Provider) -> str | None:
    """Returns, as a sentence, why nothing at this provider can be replaced; None where it can, or names say nothing."""
    return getattr(provider, "WHY_NO_REPLACING", None)


def why_no_reading_back(provider: Provider) -> str | None:
    """Returns, as a sentence, why nothing that this provider took can be read back; None where it can."""
    if isinstance(provider, Jiandaoyun) and provider.record_kind == "none":
        return "without a record Jiandaoyun gives no way to read a file back"
    if isinstance(provider, Jimeng):
        return "Jimeng gives no way to read a file back"
    if isinstance(provider, Recipe) and provider.reply.link is None:
        return "the recipe's reply names no link to read a file back by"
    return None


def is_rate(requests: float) -> bool:
    """True for a number of requests a second that something can be done with."""
    return 0 < requests <= 1e6


def secrets(provider: Provider) -> list[SecretSource]:
    """Returns where the secrets of a provider are."""
    values: list[Any] = [getattr(provider, one.name) for one in msgspec.structs.fields(provider)]
    if isinstance(provider, Recipe):
        values += provider.secrets.values()
    return [value for value in values if isinstance(value, SecretSource)]
