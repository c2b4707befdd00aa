"""Messages against the published schema itself: a user's copy of it, and lxml, an optional library."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from cosim.errors import BidError, Fault

FILES = ("UFTP-agr-dso.xsd", "UFTP-metering.xsd")


def schema_of(folder: Path) -> Callable[[bytes, str], list[Fault]]:
    """``check(content, file)``: what is wrong with a message by the schema in a folder.

    The folder holds UFTP-agr-dso.xsd, UFTP-metering.xsd and UFTP-common.xsd. Raises BidError when lxml is not
    installed, or the schema is missing or is none.
    """
    try:
        etree: Any = import_module("lxml.etree")
    except ImportError:
        raise BidError(Fault("needs lxml", "", key="--schema", allowed="pip install cosim[uftp]")) from None
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise BidError([Fault("is missing", str(folder / name), key="--schema") for name in missing])
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        # Not all editions include the messages of metering in the first file.
        schemas = [etree.XMLSchema(etree.parse(folder / name, parser)) for name in FILES]
    except (etree.XMLSyntaxError, etree.XMLSchemaParseError) as error:
        raise BidError(Fault(f"is no schema: {error}", str(folder), key="--schema")) from error

    def check(content: bytes, file: str) -> list[Fault]:
        try:
            tree = etree.fromstring(content, parser)
        except etree.XMLSyntaxError as error:
            return [Fault(f"is not XML: {error.msg}", file, error.lineno)]
        schema = schemas[1] if tree.tag in ("Metering", "MeteringResponse") else schemas[0]
        if schema.validate(tree):
            return []
        return [Fault(f"published schema: {each.message}", file, each.line) for each in schema.error_log]

    return check
