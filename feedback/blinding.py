"""What is still compared blind: who wrote it is told to nobody, by any way."""

from collections.abc import Sequence

from feedback.archive import Archive
from feedback.judgements import COMPARED, Feedback, offer_behind
from feedback.store import Ledger


def blind(ledger: Ledger, items: Sequence[Feedback]) -> set[str]:
    """The ids of those that judge, be it beside other answers, what was laid side by side before anybody voted on it.

    A judgement of answers of one offer, set against each other, is itself the vote.
    """
    behind = {each.id: {target.partition(":")[0] for target in each.judgement.targets} for each in items}
    asked = {
        offer
        for each in items
        for offer in behind[each.id]
        if offer.startswith(COMPARED) and offer != offer_behind(each.judgement)
    }
    archive = Archive(ledger)
    found = (archive.response(offer) for offer in sorted(asked))
    unseen = archive.blind([response for response in found if response is not None])
    return {id for id, offers in behind.items() if offers & unseen}
