"""Why a step fails: which partitions are red, what is the matter with them, and what to do."""

from collections.abc import Iterable, Mapping
from itertools import chain
from shlex import quote

import dagster as dg

from ondine_dagster.assets.shared.events import Metadata, dollars
from ondine_dagster.assets.shared.partition_counts import PartitionCounts, too_many_rejected
from ondine_dagster.llm.asking_again import may_be_read_otherwise, retry_options
from ondine_dagster.wording import listed, plural

RED_PARTITIONS, STOPPED = "red_partitions", "stopped"  # metadata of the failure
_SHOWN_PARTITIONS = 20
_SHOWN_REASONS = 3


def red_failure(
    name: str,
    red: Mapping[str, PartitionCounts],
    stopped: str | None,
    money: Metadata,
    advice: str = "",
    not_asked: Mapping[str, int] | None = None,
) -> dg.Failure:
    """Return the failure of a step with the partitions `red`; `stopped` says why it ended early.

    `advice` is what to do about that, beyond running again. `not_asked` are rows that a retry did
    not ask, by reason.
    """
    incomplete = {key: counts for key, counts in red.items() if counts.incomplete}
    rejected = {key: counts for key, counts in red.items() if counts.too_many_rejected}
    waiting = sum(counts.unanswered for counts in incomplete.values())
    sentences = []
    if incomplete:
        wait = f"{plural(waiting, 'row')} waiting for another run. " if waiting else ""
        sentences.append(
            f"{name}: {plural(len(incomplete), 'partition')} not complete ({_listed(incomplete)}): "
            f"{wait}{_reasons(incomplete, stopped)} {_next(name, incomplete)}"
        )
    if rejected:
        sentences.append(_too_many(name, rejected))
    for reason, rows in (not_asked or {}).items():
        sentences.append(
            f"{name}: {plural(rows, 'rejected row')} not asked again, and left as before: "
            f"{reason.rstrip('.')}."
        )
    if advice:
        sentences.append(advice)
    return dg.Failure(
        description="\n".join(sentences),
        metadata={
            RED_PARTITIONS: ", ".join(sorted(red)),
            "rows_waiting": waiting,
            "rows_rejected": sum(counts.rejected_for_good for counts in red.values()),
            "cost_usd": dollars(sum(counts.cost for counts in red.values())),
            **({STOPPED: stopped} if stopped else {}),
            **money,
        },
        allow_retries=False,
    )


def _listed(partitions: Mapping[str, PartitionCounts]) -> str:
    return listed(sorted(partitions), _SHOWN_PARTITIONS)  # they end in any order


def _too_many(name: str, rejected: Mapping[str, PartitionCounts]) -> str:
    """Return a sentence per partition with too many rejected rows, and the command."""
    lines = []
    for key in sorted(rejected)[:_SHOWN_PARTITIONS]:
        counts = rejected[key]
        why = too_many_rejected(
            counts.rejected_for_good, counts.rows - counts.skipped, counts.max_rejected
        )
        codes = counts.rejected_codes.most_common(_SHOWN_REASONS)
        lines.append(f"{name} {key}: {why}: {', '.join(f'{rows} {code}' for code, rows in codes)}.")
    if (more := len(rejected) - len(lines)) > 0:
        lines.append(f"And {plural(more, 'more partition')}.")
    every = chain.from_iterable(counts.rejections for counts in rejected.values())
    lines.append(
        f"Their files are written. Look at rejected_rows for the reasons{_way_on(name, every)}"
    )
    return "\n".join(lines)


def _next(name: str, red: Mapping[str, PartitionCounts]) -> str:
    """Return what to do about partitions that are not complete."""
    gone = sorted(key for key, counts in red.items() if counts.wants_paying)
    helps = any(
        not counts.wants_paying or counts.unanswered > counts.lost for counts in red.values()
    )
    kept = "What was answered is kept"
    if helps:
        kept += ", and is not paid for again: materialize these partitions again"
    if not gone:
        return f"{kept}."
    named = "".join(f" --partition {quote(key)}" for key in gone[:_SHOWN_PARTITIONS])
    return (
        f"{kept}. No run brings texts back that were purged, or are under a lost key. To ask, and "
        f"to pay, for those rows and for no other: ondine-dagster run {name}{named} --pay-again"
    )


def _way_on(name: str, rejections: Iterable[tuple[str, str]]) -> str:
    """Return the one thing to do about such rows, as the end of a sentence."""
    rejections = list(rejections)
    options = retry_options(rejections)
    read = any(may_be_read_otherwise(code) for _, code in rejections)
    free = f"\nWhat is changed in how answers are read costs nothing: ondine-dagster run {name}"
    if options == "":
        told = f", and ask again for the rows that may succeed: ondine-dagster retry {name}"
        return told + free * read
    mend = "mend the rows or the declaration, or allow for them in limits.max_rejected"
    if options is None:
        return f", and {mend}; then: ondine-dagster run {name}"
    return (
        f". The same question will most likely end the same: {mend}. To ask it again all the "
        f"same: ondine-dagster retry {name}{options}{free * read}"
    )


def _reasons(red: Mapping[str, PartitionCounts], stopped: str | None) -> str:
    """Return why rows wait, and whether the files of an earlier run stay."""
    messages = {
        code: message for counts in red.values() for code, message in counts.messages.items()
    }
    why = [stopped] if stopped else list(messages.values())[:_SHOWN_REASONS]
    if all(counts.kept_older for counts in red.values()):
        why.append("The files in place answer more rows than this run did, and were kept")
    return " ".join(reason if reason.endswith(("?", "!", ".")) else f"{reason}." for reason in why)
