"""Words of a site that are not labels: buttons, placeholders, the review page."""

from __future__ import annotations

from harness.sites.schema import Wording

NEXT = Wording(train=("Next", "Continue", "Next step", "Go on"), held_out=("Proceed", "Forward"))
REVIEW = Wording(train=("Review", "Next", "Review answers", "Continue"), held_out=("Check answers", "Look it over"))
SUBMIT = Wording(train=("Submit", "Send", "Save", "Send form", "Done"), held_out=("Finish", "Complete", "Hand in"))
CONFIRM = Wording(train=("Confirm", "Confirm and send", "Send now"), held_out=("Approve", "All correct"))
REVIEW_TITLE = Wording(
    train=("Review and confirm", "Check your answers", "Summary"), held_out=("One last look", "Is this right")
)
PLACEHOLDER = Wording(train=("Choose", "Select one", "Please choose", "--"), held_out=("Pick one", "Not chosen"))
DONE = Wording(train=("Thank you", "We have it", "Received"), held_out=("That was all", "Got it"))
WRONG = Wording(
    train=("Please check these answers", "Something is missing or wrong", "Please correct"),
    held_out=("This cannot be taken yet", "Look at these again"),
)
# Captions of the buttons of what covers a page; any of them closes it.
OBSTACLE_CAPTIONS = {
    "cookies": Wording(
        train=("Accept all cookies", "Only necessary ones"), held_out=("Allow cookies", "Refuse cookies")
    ),
    "notice": Wording(train=("Close this notice",), held_out=("Go to the form",)),
}
