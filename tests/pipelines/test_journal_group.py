"""The thread that commits: whatever it ends with, nobody waits for it."""

import asyncio

import pytest

from pipelines.journal.group import Group


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_a_bug_has_ended():
    def work(items):
        raise OverflowError(items)

    async def scenario():
        group = Group("committing", work)
        first = await asyncio.wait_for(asyncio.gather(*map(group.ask, range(3)), return_exceptions=True), 5)
        group._thread.join(5)
        with pytest.raises(RuntimeError, match="has ended"):
            await asyncio.wait_for(group.ask(3), 5)
        return first

    assert [type(error) for error in asyncio.run(scenario())] == [RuntimeError] * 3
