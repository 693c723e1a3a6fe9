"""datatrove's own token files; run by benchmarks.interchange with a Python that has datatrove.

`write FOLDER BYTES` writes documents.npz as FOLDER/peer.ds and FOLDER/peer.bin/.idx with datatrove's writers; `read FILE BYTES` prints a
SHA-256 of what its reader gives.
"""

# pyright: reportMissingImports=false

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datatrove.pipeline.tokens.megatron_tokenizer import MegatronTokenizedFile
from datatrove.pipeline.tokens.tokenizer import TokenizedFile


def write(folder: Path, size: int) -> None:
    """Both forms, document by document."""
    with np.load(folder / "documents.npz") as stored:
        ids, ends = stored["ids"], stored["ends"].tolist()
    names = {"tokenizer_name_or_path": "some/tokenizer", "save_final_metadata": True}
    ours = TokenizedFile(str(folder), "peer.ds", token_size=size, **names)
    megatron = MegatronTokenizedFile(str(folder), "peer", token_size=size)
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        document = ids[start:stop].tolist()
        ours.write(document, None)
        megatron.write(document)
    ours.close()
    megatron.close()


def read(path: Path, size: int) -> str:
    """The tokens as datatrove's data set gives them, in windows of 128."""
    from datatrove.utils.dataset import DatatroveFileDataset

    rows = DatatroveFileDataset(str(path), seq_len=127, token_size=size)
    digest = hashlib.sha256()
    for place in range(len(rows)):
        digest.update(np.asarray(rows[place]["input_ids"], "<u4").tobytes())
    return digest.hexdigest()


def main() -> None:
    what, path, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    found = read(path, size) if what == "read" else write(path, size)
    print(json.dumps({"sha256": found, "versions": {"datatrove": version("datatrove")}}))


if __name__ == "__main__":
    main()
