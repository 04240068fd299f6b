"""Shop: an order with delivery or pick-up."""

from __future__ import annotations

from dataclasses import replace

from harness.sites.forms.common import EMAIL, FULL_NAME, NOTE, PHONE, STREET, either, page
from harness.sites.rules import AtMost
from harness.sites.schema import FieldSpec, FormSpec, When
from harness.sites.values import Whole

ORDER = FormSpec(
    kind="order",
    domain="shop",
    pages=(page("Place an order|Your order|Order form", "Buy it now|What you want"),),
    fields=(
        FieldSpec(
            id="item",
            kind="select",
            labels=either("Product|Item|Article", "Thing|Goods"),
            options=("Shirt", "Jacket", "Sweater", "Scarf", "Hat", "Gloves"),
            required=True,
        ),
        FieldSpec(
            id="quantity",
            kind="number",
            labels=either("Quantity|Pieces|Item count", "Number of items|Count"),
            draw=Whole(1, 12),
            prefill=("1",),
            minimum="1",
            maximum="20",
        ),
        FieldSpec(
            id="colour",
            kind="select",
            labels=either("Colour|Color|Main colour", "Shade|Paint"),
            options=("Red", "Blue", "Green", "Black", "White", "Grey"),
            rank=1,
        ),
        FieldSpec(
            id="delivery",
            kind="radio",
            labels=either("Delivery|Delivery method|Shipping", "Sending|Way to you"),
            options=("Post", "Pick-up"),
            required=True,
        ),
        replace(STREET, rank=0, required=True, when=When(field="delivery", answer="Post")),
        FieldSpec(
            id="gift",
            kind="checkbox",
            labels=either("Gift wrap|Gift paper|Present wrap", "Nice paper|Wrapping"),
            rank=1,
        ),
        FieldSpec(
            id="size",
            kind="radio",
            labels=either("Size|Clothes size|Fit", "Measure|Body size"),
            options=("Small", "Medium", "Large"),
            is_ordered=True,
            rank=2,
            superlatives=(("Small", "the smallest one"), ("Large", "the largest one")),
        ),
        replace(FULL_NAME, rank=2),
        replace(EMAIL, rank=2),
        replace(PHONE, rank=2),
        replace(NOTE, rank=2),
    ),
    rules=(AtMost("quantity", "item", (("Jacket", 5),)),),
)
FORMS = (ORDER,)
