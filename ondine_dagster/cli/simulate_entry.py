"""`ondine-dagster simulate` as it is typed; nothing heavy is imported before it runs."""

from __future__ import annotations

from typing import Any

import click

from ondine_dagster.cli.usage import examples

_EXAMPLES = examples(
    "simulate --port 8000",
    'simulate --shape anthropic --fault "529: 5%" --latency-ms 200',
    "simulate --shape groq --list-faults",
    dataset=False,
)
_COUNT = click.IntRange(1)
_MILLISECONDS = click.FloatRange(0)


@click.command(epilog=_EXAMPLES)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="0 takes a free one.  [default: 8765]",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Listen on this address."
)
@click.option(
    "--shape",
    default="openai",
    show_default=True,
    metavar="NAME",
    help="Speak as this provider: openai, anthropic, azure, groq, ollama, openrouter or vllm.",
)
@click.option(
    "--model",
    default="demo-model",
    show_default=True,
    metavar="NAME",
    help="List this model, which `doctor` looks for. Any name is answered.",
)
@click.option(
    "--latency-ms", type=_MILLISECONDS, default=0.0, metavar="MS", help="Wait before each reply."
)
@click.option(
    "--jitter-ms",
    type=_MILLISECONDS,
    default=0.0,
    metavar="MS",
    help="Wait up to this long on top.",
)
@click.option(
    "--seed", type=int, default=0, metavar="N", help="Decides the jitter, and what fails."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT:SHARE",
    help='Let a share of the requests fail: "429 retry_after=1: 5%" or "stall: 0.01". Repeatable.',
)
@click.option(
    "--burst",
    "bursts",
    multiple=True,
    metavar="FAULT:SHARE",
    help='Let a share fail in bursts that come back: "429: 80%". Repeatable.',
)
@click.option(
    "--burst-every",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="From the start of a burst to the start of the next.",
)
@click.option(
    "--burst-for",
    type=float,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a burst lasts.",
)
@click.option("--list-faults", is_flag=True, help="List the faults of this shape, and exit.")
@click.option(
    "--input-price",
    default="0.15",
    show_default=True,
    metavar="USD",
    help="Per million prompt tokens.",
)
@click.option(
    "--output-price",
    default="0.60",
    show_default=True,
    metavar="USD",
    help="Per million completion tokens.",
)
@click.option("--rpm", type=_COUNT, metavar="N", help="Requests per minute; more get a 429.")
@click.option("--tpm", type=_COUNT, metavar="N", help="Tokens per minute; more get a 429.")
@click.option("--rpd", type=_COUNT, metavar="N", help="Requests per day (UTC); more get a 429.")
@click.option("--capacity", type=_COUNT, metavar="N", help="Requests at once; more get a 429.")
@click.option(
    "--rate-headers",
    type=click.Choice(("openai", "groq", "anthropic", "openrouter")),
    metavar="NAME",
    help="Send the rate-limit headers of openai, groq, anthropic or openrouter.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY:FAULT",
    help='Refuse one key: "key-1: 401", or "key-2: 402 after=100" once it was used. Repeatable.',
)
@click.option("--tokens-per-byte", is_flag=True, help="Count each byte as a token, not every four.")
@click.option(
    "--reasoning-tokens",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Bill this many hidden tokens per answer.",
)
@click.option("--credit-usd", metavar="USD", help="What each key may spend; then it gets a 402.")
@click.option("--ignore-ceiling", is_flag=True, help="Answer and bill past max_tokens.")
def simulate(**options: Any) -> None:
    """Start a simulated provider on this machine.

    It answers from the text that it is given, fails on demand, and keeps a bill at /bill. A POST to
    /outage takes it down, a POST to /recover brings it back.
    """
    from ondine_dagster.cli.simulate import simulate_command

    simulate_command(**options)
