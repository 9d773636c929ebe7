"""Checks the URL of a store before it is used, and gives advice for the error codes of S3 servers."""

import re

from selftrain.errors import UsageError

S3 = {"s3", "s3a"}
"""Protocols of URLs on S3."""
EXPECTED = "expected a folder or an fsspec URL such as s3://bucket/path"
"""End of messages about a wrong URL."""
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""Valid names of buckets."""
BUCKETS = "3 to 63 small letters, digits, hyphens and dots"
"""`BUCKET` in words."""

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_SESSION = (
    "get new ones (`aws sso login`, or what has set AWS_SESSION_TOKEN) in the environment, AWS_PROFILE or `store_block`; what is "
    "finished is kept, run again to go on"
)
_REGION = "the bucket is in another region than was asked: set AWS_DEFAULT_REGION to the one that it is in"
_DENIED = (
    "these credentials may not do that: they need s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and "
    "s3:DeleteObject on what is in it"
)
REMEDIES = {
    "ExpiredToken": f"the credentials have expired: {_SESSION}",
    "TokenRefreshRequired": f"the credentials have expired: {_SESSION}",
    "InvalidToken": f"AWS_SESSION_TOKEN does not go with {_KEYS}: set all three from one session, or unset it for keys that last",
    "InvalidAccessKeyId": "this server does not know the key: check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL is the server "
    "that it is for",
    "SignatureDoesNotMatch": f"the secret is not the key's: check {_KEYS}; a copied one may have lost a character",
    "RequestTimeTooSkewed": "this machine's clock differs from the server's by too much: set it (`timedatectl set-ntp true`)",
    "RequestExpired": "this machine's clock differs from the server's by too much: set it (`timedatectl set-ntp true`)",
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "403": _DENIED,
    "InvalidBucketName": f"a bucket's name has {BUCKETS}",
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "Redirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RecursionError": _REGION,  # the client follows redirects to the region without end
    "NoCredentialsError": f"set {_KEYS}, AWS_PROFILE, or `store_block`",
    "PartialCredentialsError": f"set both of {_KEYS}",
}
"""Error code of an S3 server, or class name of an exception of its client -> advice for the user."""


def check(url: str) -> None:
    """Raise UsageError where `url` cannot be the address of a store; where possible, the message proposes a correct one."""
    if url != url.strip():
        raise UsageError(f"store {url!r}: begins or ends with a blank; write {url.strip()}")
    if not url:
        raise UsageError(f"store {url!r}: it is empty; {EXPECTED}")
    scheme, colon, rest = url.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme):
        return  # a folder
    if scheme != scheme.lower() and rest.startswith("//"):
        raise UsageError(f"store {url!r}: got the protocol {scheme}; write {scheme.lower()}:{rest}")
    if scheme in {"http", "https"}:
        raise UsageError(
            f"store {url!r}: files cannot be written over {scheme}; expected s3://BUCKET/PATH, with the server's address in "
            "AWS_ENDPOINT_URL where it is not Amazon's"
        )
    if scheme in S3:
        _check_s3(url, scheme, rest)


def _check_s3(url: str, scheme: str, rest: str) -> None:
    meant = f"{scheme}://{'/'.join(filter(None, rest.split('/')))}"
    if not rest.startswith("//"):
        raise UsageError(f"store {url!r}: two slashes go before the bucket; write {meant}")
    bucket, _, path = rest.removeprefix("//").partition("/")
    if not bucket:
        more = f"; write {meant}" if path.strip("/") else ""
        raise UsageError(f"store {url!r}: it names no bucket; expected {scheme}://BUCKET/PATH{more}")
    if ":" in bucket and not bucket.startswith("arn:"):
        raise UsageError(
            f"store {url!r}: got {bucket!r} for the bucket; expected {scheme}://BUCKET/PATH, with the server's address in "
            "AWS_ENDPOINT_URL"
        )
    names = path.rstrip("/").split("/")
    if "" in names[:-1] or (len(names) > 1 and not names[0]):
        raise UsageError(
            f"store {url!r}: it has two slashes in a row, between which S3's listings lose files; write {meant}"
        )
    if {".", ".."} & set(names):
        raise UsageError(f"store {url!r}: S3 has no folders . and ..; write the path without them")
    if option := re.search(r"\?(\w+)=", path):
        raise UsageError(
            f"store {url!r}: an address holds no options, got {option[1]}; set AWS_DEFAULT_REGION, AWS_ENDPOINT_URL and the like, "
            "or `store_block`"
        )


def remedy(code: str, url: str) -> str:
    """Advice for `code`, which is an error code or a name as in `REMEDIES`; "" where none is known."""
    bucket = url.partition("://")[2].partition("/")[0]
    if code == "NoSuchBucket":
        unusual = "" if BUCKET.fullmatch(bucket) else f", and its name: buckets' names have {BUCKETS}"
        return f"expected a bucket {bucket!r}: make it (`aws s3 mb s3://{bucket}`), or check AWS_ENDPOINT_URL{unusual}"
    return REMEDIES.get(code, "")
