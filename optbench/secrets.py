"""Secrets stay out of configs: a config is stored with every result, shown in tables and sent to trackers.

A key tells by its words (`logger.api_key`, `HF_TOKEN`), a value by its shape (`hf_...`), or by being what a variable of
the environment holds whose name tells. Models have tokens of another kind, such as `max_tokens` or `pad_token`; these
are left alone. No message repeats a value.
"""

import difflib
import functools
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

from optbench.errors import UsageError

HIDDEN = "***"
MAX_KEPT = 10_000

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_TELLING = re.compile(r"passw(or)?ds?|passphrase|credential|apikey|^authkey|^secretkey|secrets?$")
_NAMES = ("accesskey", "apikey", "credential", "credentials", "passphrase", "passwd", "password", "secret", "token")
# Of `<word>_key`: the keys of attention and of dictionaries are none.
_KEYS = frozenset({"access", "account", "api", "auth", "encryption", "private", "secret", "signing", "ssh"})
# Of `<word>_token` and `<word>_tokens`: these open a door.
_OPENING = frozenset(
    {"access", "api", "auth", "bearer", "bot", "gh", "github", "gitlab", "hf", "hub", "huggingface", "id", "jwt"}
    | {"login", "neptune", "oauth", "personal", "refresh", "security", "service", "session", "wandb"}
)
# Of `<word>_token`: these are part of a text, an image or a model.
_PART_OF_A_MODEL = frozenset(
    {"add", "audio", "begin", "bos", "by", "class", "cls", "decoder", "dist", "distillation", "end", "eos", "extra"}
    | {"first", "global", "image", "last", "latent", "learned", "mask", "memory", "new", "next", "no", "num", "pad"}
    | {"padding", "patch", "per", "pool", "prefix", "previous", "prompt", "query", "register", "sentinel", "sep"}
    | {"special", "start", "stop", "storage", "suffix", "target", "task", "text", "unk", "unknown", "video", "word"}
)
_OF_A_COMMIT = frozenset({"checksum", "commit", "digest", "hash", "rev", "revision", "sha", "sha1", "version"})
_KNOWN = re.compile(
    r"""(?<![A-Za-z0-9]) (?:
      wandb_v1_\w{20,} | local-[0-9a-f]{40}
    | hf_[A-Za-z0-9]{30,}
    | sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{20,}
    | gh[opsur]_[A-Za-z0-9]{30,} | github_pat_\w{20,} | glpat-[\w-]{20,} | xox[abprs]-[\w-]{10,}
    | A[KS]IA[0-9A-Z]{16}(?![0-9A-Za-z]) | AIza[\w-]{35}
    | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.
    | [a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s@]+@
    ) | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY""",
    re.VERBOSE,
)
# A key of Weights & Biases, or a commit; one in a path or after an @ is a commit.
_40_DIGITS = re.compile(r"(?<![\w/.@-])[0-9a-f]{40}(?![\w/.-])")
_VARIABLE = re.compile(r"\$\{\s*(?:oc\.)?env\s*:\s*['\"]?(\w+)")
_ITEM = re.compile(r"['\"]?([\w.-]+)['\"]?\s*:\s*([^,{}\[\]]*)")  # of a mapping that is written in an override
_NOTHING = frozenset({"", "null", "none", "true", "false", "???", "''", '""'})
_SPECIAL = re.compile(r"[<\[].*[>\]]")  # such as <pad> and [MASK]


class _Kind(Enum):
    PLAIN = auto()
    TOKEN = auto()
    """A token of some kind: a text is a secret, a number or a mark such as <pad> is part of a model."""
    SECRET = auto()


def check_overrides(arguments: Iterable[str]) -> None:
    """Refuse arguments of the command that hold a secret; nothing is composed for that, so nothing can print them.

    Args:
        arguments: as they were typed, with options and verb or without.

    Raises:
        UsageError: names the key, never its value, and says where the value belongs.
    """
    variables = _secret_variables()
    for argument in arguments:
        name, equals, value = argument.partition("=")
        key = "" if name.startswith("-") or not equals else name.lstrip("+~").replace("@", ".")
        inside = [(f"{key}.{item}", text) for item, text in _ITEM.findall(value)] if key else []
        for path, text in [(key, value if equals else argument.lstrip("+~")), *inside]:
            _check(path, _typed(text), variables=variables)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a composed config that holds a secret.

    Args:
        config: a plain mapping, resolved or not.

    Raises:
        UsageError: names the key, never its value, and says where the value belongs.
    """
    Checker().check(config)


class Checker:
    """Checks many composed configs: nodes that they share, and equal texts at equal keys, it looks at once."""

    def __init__(self) -> None:
        self._variables = _secret_variables()
        self._nodes: dict[tuple[str, int], Any] = {}  # the nodes, too, so that no other one gets the id of one gone
        self._checked: set[tuple[str, Any]] = set()

    def check(self, config: Mapping[str, Any]) -> None:
        """As `check_config`."""
        if max(len(self._nodes), len(self._checked)) > MAX_KEPT:
            self._nodes.clear()
            self._checked.clear()
        for key, value in config.items():
            self._check(value, str(key))

    def _check(self, node: Any, path: str) -> None:
        if isinstance(node, (dict, list, tuple)):
            if (path, id(node)) in self._nodes:
                return
            self._nodes[path, id(node)] = node
            if isinstance(node, dict):
                for key, value in node.items():
                    self._check(value, f"{path}.{key}")
            else:
                for value in node:
                    self._check(value, path)
        else:
            seen = (path, node if isinstance(node, str) else type(node))  # of a number, the key alone may tell
            if seen not in self._checked:
                _check(path, node, variables=self._variables)
                self._checked.add(seen)


def hidden(text: str) -> str:
    """A text without the secrets in it that can be known: those of the environment, and what has the shape of one."""
    for value in _secret_variables():
        text = text.replace(value, HIDDEN)
    return _KNOWN.sub(HIDDEN, text)


def masked(text: str, arguments: Sequence[str]) -> str:
    """A message without what may be a secret in it.

    Args:
        text: of an error about these arguments.
        arguments: as they were typed; of a key that is nearly a secret's, such as a mistyped one, the value is hidden.
    """
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and (_is_nearly_secret(key) or any(_is_nearly_secret(item) for item, _ in _ITEM.findall(value))):
            text = text.replace(argument, f"{key}={HIDDEN}")
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text) if value.strip() else text
    return hidden(text)


def _check(path: str, value: Any, *, variables: frozenset[str]) -> None:
    kind = _kind(path)
    is_text = isinstance(value, str) and value.strip().lower() not in _NOTHING
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if (kind is _Kind.SECRET and (is_text or is_number)) or (
        kind is _Kind.TOKEN and is_text and not _SPECIAL.fullmatch(value)
    ):
        raise _refusal(path, "by its name this key holds a secret")
    if not is_text:
        return
    if any(_kind(name) is not _Kind.PLAIN for name in _VARIABLE.findall(value)):
        raise _refusal(path, "it takes its value from a variable that by its name holds a secret")
    if any(value == secret or (len(secret) >= 16 and secret in value) for secret in variables):
        raise _refusal(path, "its value is that of a variable of the environment that by its name holds a secret")
    if _KNOWN.search(value) or (_40_DIGITS.search(value) and not _names_a_commit(path)):
        raise _refusal(path, "its value looks like a key, a token or a password")


def _refusal(path: str, what: str) -> UsageError:
    words = {word.lower() for word in _WORD.findall(path)}
    if words & {"hf", "hub", "huggingface"}:
        where = "HF_TOKEN, or log in once with `hf auth login`"
    elif words & {"logger", "wandb"}:
        where = "WANDB_API_KEY, or log in once with `wandb login`, which keeps it in ~/.netrc"
    else:
        where = "for Weights & Biases WANDB_API_KEY, or `wandb login`, which keeps it in ~/.netrc"
    return UsageError(
        f"{_KNOWN.sub(HIDDEN, path) or 'an argument'}: {what}, and configs are stored with every result.\n"
        f"A secret belongs in the environment ({where}). Leave it out here."
    )


@functools.cache
def _kind(path: str) -> _Kind:
    """What the words of a key tell; a secret's name tells of all below it, a token's of itself."""
    *above, last = re.split(r"[./]", path)
    if any(_segment(part) is _Kind.SECRET for part in above):
        return _Kind.SECRET
    return _segment(last)


@functools.cache
def _segment(name: str) -> _Kind:
    words = [word.lower() for word in _WORD.findall(name)]
    if any(_TELLING.search(word) for word in words):
        return _Kind.SECRET
    for first, second in itertools.pairwise(words):
        if (first in _KEYS and second in ("key", "keys")) or (first in _OPENING and second in ("token", "tokens")):
            return _Kind.SECRET
    if not words or not words[-1].endswith("token"):
        return _Kind.PLAIN
    before = words[-1].removesuffix("token")
    if before:  # written as one word
        return _Kind.SECRET if before in _OPENING else _Kind.PLAIN
    return _Kind.PLAIN if _PART_OF_A_MODEL & set(words[:-1]) else _Kind.TOKEN


def _names_a_commit(path: str) -> bool:
    return any(word.lower() in _OF_A_COMMIT for word in re.findall(r"[A-Za-z0-9]+", path.rpartition(".")[2]))


@functools.cache
def _is_nearly_secret(key: str) -> bool:
    """Whether a letter or two make it the name of a secret."""
    if _kind(key.lstrip("+~")) is not _Kind.PLAIN:
        return True
    for part in re.split(r"[./@]", key):
        words = [word.lower() for word in _WORD.findall(part)]
        names = {*words, *("".join(pair) for pair in itertools.pairwise(words))} - {"tokens", "tokenizer"}
        if "token" not in names and any(difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.75) for name in names):
            return True
    return False


def _typed(text: str) -> Any:
    """A value as Hydra would read it, as far as it matters here."""
    try:
        return float(text)
    except ValueError:
        return text


def _secret_variables() -> frozenset[str]:
    """What the environment holds that must not be stored; short words and the names of files are no secrets."""
    return frozenset(
        value
        for name, value in os.environ.items()
        if len(value) >= 8 and _kind(name) is not _Kind.PLAIN and not os.path.exists(value)  # noqa: PTH110
    )
