"""The history of champions, computed from the entries of the ledger."""

from datetime import datetime

from regraft.registry.ledger import Entry


def promotion_stack(entries: tuple[Entry, ...]) -> tuple[int, ...]:
    """Return the champions that led to the present champion, newest last.

    The bottom of the stack is the champion before the first entry. A promotion pushes a version. A
    rollback pops every version above its target. If the target is not on the stack (it was rolled
    back from before), it is pushed. A change by hand counts as a rollback if its target is on the
    stack, otherwise as a promotion. A change by hand to no champion leaves the stack as it is.
    """
    first = entries[0].before if entries else None
    stack = [] if first is None else [first]
    for entry in entries:
        if entry.after is None:
            continue
        if entry.action in ("rollback", "outside") and entry.after in stack:
            while stack[-1] != entry.after:
                stack.pop()
        if not stack or stack[-1] != entry.after:
            stack.append(entry.after)
    return tuple(stack)


def rollback_candidates(entries: tuple[Entry, ...], serving: int | None) -> tuple[int, ...]:
    """Return the targets of successive rollbacks from the serving version, nearest first."""
    stack = promotion_stack(entries)
    return stack[::-1] if not stack or stack[-1] != serving else stack[-2::-1]


def champion_at(entries: tuple[Entry, ...], when: datetime) -> int | None:
    """Return the champion at a time, None for no champion.

    A time before the first entry gives the `before` of that entry.

    Args:
        when: with a time zone.
    """
    champion = entries[0].before if entries else None
    for entry in entries:
        if datetime.fromisoformat(entry.when) <= when:
            champion = entry.after
    return champion
