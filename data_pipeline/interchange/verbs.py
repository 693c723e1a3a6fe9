"""What `phial data convert` prints."""

import json
from pathlib import Path

from data_pipeline.interchange.convert import Settings, convert


def convert_verb(src: str, dst: str, settings: Settings, as_json: bool) -> None:
    """Converts and prints what was written."""
    record = convert(Path(src), Path(dst), settings)
    if as_json:
        print(json.dumps(record, ensure_ascii=False))
        return
    what = f"{record['tokens']:,} tokens ({record['dtype']}) of " if "tokens" in record else ""
    print(f"{dst}: {what}{record['documents']:,} documents, {record['from']} to {record['to']}; read back and equal")
    for note in record["notes"]:
        print(f"  {note}")
