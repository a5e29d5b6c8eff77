"""Pairs by reference: the URL under which a store has them."""

from pathlib import PurePosixPath

import storage
from flows.home import references
from flows.home.places import absolute_url
from flows.home.references import Digits, Folder, Other, PairsUrl
from flows.home.settings import Settings
from pairflow.errors import StoreError


def url_of(reference: str, store: str | None = None) -> str:
    """The URL that a reference to pairs stands for; only of a fingerprint is it known that they are there.

    Args:
        reference: a URL, or (the first digits of) a fingerprint.
        store: where fingerprints are looked for; default that of the settings.

    Raises:
        StoreError: it stands for no pairs, or for several; or the store cannot be read.
    """
    match references.parse(reference):
        case PairsUrl(url=url):
            return url
        case Folder(path=path):  # a copy of pairs, outside of any store
            return str(path)
        case Digits(text=digits):
            return _in_store(digits, Settings.read().store if store is None else absolute_url(store))
        case Other(text=text, may_be_path=True):
            return absolute_url(text)
        case other:
            raise StoreError(f"no pairs '{reference}': this is {other.what}; expected {references.PAIRS}")


def url_of_data(reference: str, store: str | None = None) -> str | None:
    """The URL of prepared data that a reference stands for; None where it stands for none.

    Args:
        reference: a URL, or (the first digits of) a fingerprint.
        store: where fingerprints are looked for; default that of the settings.

    Raises:
        StoreError: it stands for several; or the store cannot be read.
    """
    match references.parse(reference):
        case Digits(text=digits):
            place = Settings.read().store if store is None else absolute_url(store)
            found = storage.search_datasets(place, digits)
            if len(found) > 1:
                some = ", ".join(PurePosixPath(url).name[: len(digits) + 6] for url in found[:8])
                raise StoreError(f"'{digits}' stands for {len(found)} prepared datasets: {some}; give more digits")
            return found[0] if found else None
        case Folder(path=path):
            return None if storage.parse_dataset_url(str(path)) is None else str(path)
        case Other(text=text, may_be_path=True):
            url = absolute_url(text)
            return None if storage.parse_dataset_url(url) is None else url
    return None


def _in_store(digits: str, store: str) -> str:
    """The URL of the one coupling whose fingerprint begins so; if several formats have it, of one that is whole."""
    found: dict[str, str] = {}
    for url in storage.search_pairs(store, digits):
        found.setdefault(PurePosixPath(url).stem, url)
    if not found:
        raise StoreError(
            f"no pairs '{digits}': none in {store} have a fingerprint that begins so; expected {references.PAIRS}. "
            "`pairflow ls` shows those of the store, PAIRFLOW_STORE chooses another"
        )
    if len(found) > 1:
        some = ", ".join(fingerprint[: len(digits) + 6] for fingerprint in sorted(found)[:8])
        raise StoreError(f"'{digits}' stands for {len(found)} pairs in {store}: {some}; give more digits")
    ((fingerprint, url),) = found.items()
    return storage.find_pairs(store, fingerprint) or url
