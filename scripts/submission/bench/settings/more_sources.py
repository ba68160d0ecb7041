"""Public sources that are off, until someone switches them on by name (`SWITCHED_ON`).

Their licence is non-commercial, or none is stated.
"""

from submission.bench.settings.config import Source

SOURCES_OFF = {
    "xsum": Source(
        "xsum", "EdinburghNLP/xsum", revision="refs/convert/parquet", domain="summarization",
        rows=3_000, licence="none stated", on=False),
    "mixture_of_thoughts": Source(
        "mixture_of_thoughts", "open-r1/Mixture-of-Thoughts", subset="science", domain="science",
        rows=5_000, licence="none stated", on=False),
    "rar_science": Source(
        "rar_science", "ScaleAI/RaR-Science", domain="science", rows=3_000,
        revision="4b69f832234a7b10a2fe24d82616872e725115fb", licence="none stated", on=False),
    "sciq": Source(
        "sciq", "allenai/sciq", domain="science", checker="choice", licence="CC-BY-NC", on=False),
}  # fmt: skip
