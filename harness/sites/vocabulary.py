"""The words of the built-in sites: the closed pools that values are drawn from, and captions that are not labels.

Small sites use short ASCII words only (a value has at most 24 characters), so that a tiny model can learn to copy them;
the `*_FULL` pools add accents, quotes and longer texts for the full sites.
"""

from __future__ import annotations

from harness.sites.schema import Wording


def _listed(text: str, separator: str | None = None) -> tuple[str, ...]:
    """Read a pool that is written as one text."""
    return tuple(text.split(separator))


FIRST_NAMES = _listed(
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor Alice "
    "Boris Cora Dana Eric Fiona Gus Hana Ivan Julia Kurt Laura Max Nina Oscar Pia Quinn Ralf Sara Tom Uma Vera "
    "Will Xenia Yara Zoe Adam Bella Carl Diana Ella Frank Gina Hugo Iris James Karl Lena Mark Nora Otto Petra "
    "Rita Simon Tara Udo Viola Wanda Yusuf Zara Amir Beth Cyrus Dora Ewan Freya Greta Hans Ines Jonas"
)
LAST_NAMES = _listed(
    "Smith Brown Jones Miller Davis Wilson Moore Taylor White Harris Martin Young King Wright Lopez Hill Scott "
    "Green Adams Baker Nelson Carter Perez Turner Parker Evans Edwards Collins Stewart Morris Rogers Reed Cook "
    "Morgan Bell Murphy Bailey Rivera Cooper Cox Howard Ward Torres Peters Gray Ramirez Watson Brooks Kelly "
    "Sanders Price Bennett Wood Barnes Ross Jenkins Perry Powell Long Hughes Flores Butler Foster Bryant Russell "
    "Griffin Diaz Hayes Myers Ford Graham Wallace Woods Cole West Owens Fisher Ellis Gibson Hunter"
)
EMAIL_DOMAINS = ("mail.com", "post.net", "web.org", "inbox.io", "home.dev", "work.co")
CITIES = _listed(
    "Paris London Berlin Madrid Rome Vienna Oslo Dublin Prague Lisbon Athens Warsaw Geneva Zurich Milan Naples "
    "Porto Munich Hamburg Bremen Lyon Nice Turin Bergen Malmo Tampere Riga Vilnius Tallinn Krakow Seville "
    "Valencia Ghent Bruges Leeds York Bath Oxford Cardiff Belfast"
)
STREETS = tuple(
    f"{name} {kind}"
    for kind in _listed("Street Road Lane Avenue")
    for name in _listed("Oak Elm Park Lake Hill Mill Church Station Garden River")
)
COMPANIES = _listed(
    "Acme Group,Blue Lake,Bright Works,Cedar Labs,City Books,Delta Foods,East Bank,Fair Trade,Global Parts,"
    "Green Energy,Harbor Tools,Iron Bridge,Jade Garden,Key Systems,Lion Media,Metro Homes,North Star,Ocean Line,"
    "Prime Steel,Quick Print,Red Fox,Silver Peak,True North,Union Mills,Vista Travel,West Point",
    ",",
)
PHRASES = _listed(
    "please call me back,send more details,the screen is dark,need help soon,very happy so far,it works well,"
    "it does not start,please send a price,I have a question,the box was open,we like quiet rooms,no rush at all,"
    "see you next week,happy birthday,best wishes to all,arriving late at night,first time visitor,ring the bell,"
    "leave at the door,window seat please,no nuts please,ready to start,ten years in sales,open to learn,"
    "looking for a change,love to travel,my order is late,wrong size was sent,the page is slow,cannot log in",
    ",",
)
PHRASES_FULL = (
    'She said "call before noon", please do.',
    "Two things:\n1. the invoice is missing\n2. the colour is wrong",
    "Je préfère une chambre calme, à l'étage.",
    "C:\\reports\\2026 is where the log file lies.",
    "It stopped after the update; restarting helps for an hour, then it stops again. Nothing else was changed.",
    "Größe 42 passt nicht, bitte 43 senden.",
    "Allergic to nuts & shellfish <please tell the kitchen>.",
)
FIRST_NAMES_FULL = ("José", "Zoë", "Søren", "Łukasz", "Mary-Jane", "Chloé", "Ming", "Aïcha")
LAST_NAMES_FULL = ("O'Connor", "García", "Müller", "Nguyễn", "van der Berg", "Åkesson", "Smith-Jones", "Dvořák")
CAR_MAKES = ("Audi", "BMW", "Fiat", "Ford", "Honda", "Kia", "Mazda", "Opel", "Seat", "Skoda", "Toyota", "Volvo")
BRANDS = _listed(
    "Northwind Bluebird Riverside Hilltop Lakeview Maple Sunrise Cobalt Juniper Harbor Meadow Granite Willow Summit"
)

ONES = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = _listed("zero ten twenty thirty forty fifty sixty seventy eighty ninety")


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
# What the newer design adds before the last button.
DRAFT = Wording(
    train=("Save draft", "Save for later", "Keep as draft", "Keep for now"), held_out=("Hold it back", "Set it aside")
)
CONSENT = Wording(
    train=("I agree to the terms", "I accept the rules", "I have read the terms"),
    held_out=("The conditions suit me", "Consent given"),
)
LAST_STEP = Wording(train=("One more step", "Almost done", "Last step"), held_out=("Nearly there", "Before it goes"))
SOURCE = Wording(train=("How you found us", "Heard of us from", "Source"), held_out=("Who sent you", "Found through"))
SOURCES = ("Press", "Web", "Radio", "Friends", "Work")
# Captions of the buttons of what covers a page; any of them closes it.
OBSTACLE_CAPTIONS = {
    "cookies": Wording(
        train=("Accept all cookies", "Only necessary ones"), held_out=("Allow cookies", "Refuse cookies")
    ),
    "notice": Wording(train=("Close this notice",), held_out=("Go to the form",)),
}
