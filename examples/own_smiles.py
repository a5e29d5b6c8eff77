"""Molecules of your own: read, coupled, and kept as pairs that anything can open.

    python examples/own_smiles.py molecules.smi store

The file has a SMILES a line. Nothing is started for this: the same pairs, byte for byte, come of
`pairflow pair --dataset smiles --path molecules.smi --format parquet`, which does it shard by shard on a Ray cluster.
"""

import sys
from pathlib import Path

import storage
from pairflow.coupling import couple, engine_version, resolve_engine
from pairflow.datasets import load
from pairflow.spec import CouplingSpec, DatasetSpec, fingerprint

SHARD_SIZE = 4096


def main(path: str, store: str) -> str:
    # %% Read. Molecules become canonical SMILES, these become rows of tokens of one length; what cannot be read is
    # dropped and counted. A held-out part is put aside before anything looks at the rows.
    data = load(DatasetSpec(name="smiles", path=str(Path(path).resolve())))
    train = data.part("train")
    print(data.report.summary())
    print(f"{len(train)} rows of {train.length} tokens, of a vocabulary of {train.vocab_size}")

    # %% Couple. Each row is walked back to a source of its own, in closed form. What the pairs depend on is the spec,
    # the rows and the engine's version, and the fingerprint says so: the same again has the same name.
    spec = CouplingSpec(num_steps=20, seed=0)
    engine = resolve_engine("auto", spec)
    name = fingerprint(spec, dataset=train.digest, engine=engine_version(engine))

    # %% Keep. A header first, then the shards, in any order, and the manifest last: with it the pairs are whole. Killed
    # on the way and run again, this writes the missing shards alone.
    url = storage.pairs_url(store, name, "parquet")
    header = storage.begin_pairs(
        url,
        storage.PairsHeader(
            fingerprint=name,
            format="parquet",
            num_rows=len(train),
            length=train.length,
            vocab_size=train.vocab_size,
            shard_size=SHARD_SIZE,
            spec=spec.model_dump(mode="json"),
            dataset={"name": data.name, "digest": train.digest},
            engine=engine_version(engine),
            vocab=train.vocab.tokens if train.vocab is not None else None,
        ),
    )
    for shard in storage.missing_shards(url, header):
        rows = slice(shard.start, shard.stop)
        ids = range(shard.start, shard.stop)
        source = couple(
            train.tokens[rows],
            train.tokens,
            vocab_size=train.vocab_size,
            spec=spec,
            sample_ids=list(ids),
            engine=engine,
        )
        storage.write_shard(url, header, shard.index, source, train.tokens[rows], list(ids))
    storage.commit_pairs(url, header, {"made by": "examples/own_smiles.py"}, progress=False)

    # %% Look. A source is a string of the same tokens, mostly no molecule; some tokens of its target are left in it.
    pairs = storage.open_pairs(url)
    source, target = pairs.source[:3], pairs.target[:3]
    for one, other in zip(source, target, strict=True):
        print(f"{(one == other).mean():4.0%} kept of {data.decode(other[None])[0]}")
    return url


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: own_smiles.py FILE STORE")
    print(main(*sys.argv[1:]))
