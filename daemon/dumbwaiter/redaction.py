"""What looks like a token, a signature or a password is left out of texts that others may read. Pure."""

import re

_SECRETS = re.compile(
    # A quote may stand behind a backslash: JSON within a line of JSON.
    r"""(?ix)
    \b((?-i:UPLOAD)\s+[^:\s"'\\]+:)[^\s"'&\\]+            # NOS token
    | (cookie[\\"']*\s*[:=]\s*[\\"']*)[^"'\\\r\n]+        # several in one header
    | ((?:authorization|x-nos-token|checksum)[\\"']*\s*[:=]\s*[\\"']*)[^\s"',}\\]+(?:\s+[^\s"',}\\]+)?
    | ([?&"'](?:[\w-]*token|[\w-]*signature|[\w-]*secret|[\w-]*password|sign|[\w-]*credential)[\\"']*\s*[=:]\s*[\\"']*)
      (?:UPLOAD\s+)?[^\s"'&,}\\]+
    | (\b(?:bearer|uptoken)\s+)[^\s"',}\\]{8,}
    | (\b(?:password|\w+secret|api_key|access_token|refresh_token)\s*[=:]\s*)[^\s"'&,}\\]+
    | (secret_?(?:access_?)?key[\\"']*\s*[=:]\s*[\\"']*)[^\s"'&,}\\]+
    | (postgres(?:ql)?(?:\+\w+)?://[^\s/@:"'\\]*:)[^\s@"'\\]{1,256}(?=@)  # there a slash needs no escape
    | (://[^\s/@:"'\\]*:)[^\s/@"'\\]+(?=@)
    | (\b(?:(?:security|auth)-token|auth|up_?token|sessionid|session_?key)[\\"']*\s*[=:]\s*[\\"']*)[^\s"'&,}\\]{8,}
    | (\b(?:\w*token|signature)=)[^\s"'&,}\\]{8,}
    """
)

# One of these is in whatever the expression finds, and looking for them costs far less.
_WORDS = (
    "token",
    "sign",
    "session",
    "secret",
    "password",
    "credential",
    "cookie",
    "auth",
    "checksum",
    "upload",
    "bearer",
    "api_key",
)


def redact(text: str) -> str:
    """Returns `text` with everything that looks like a credential replaced."""
    lower = text.lower()
    if not any(word in lower for word in _WORDS) and not ("@" in text and "://" in text):
        return text
    return _SECRETS.sub(lambda match: f"{next(group for group in match.groups() if group)}***", text)
