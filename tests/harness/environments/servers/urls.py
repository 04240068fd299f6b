"""The addresses of a stock Django project: a form behind its middleware for CSRF, its errors beside its fields."""

from __future__ import annotations

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.urls import path

PAGE = """<!doctype html><html lang=en><title>Evening courses</title><h1>Evening courses</h1>
<form method=post novalidate>{% csrf_token %}{{ form.as_p }}<button>Enrol</button></form>"""


class Enrolment(forms.Form):
    """As people write them: widgets and errors are Django's own."""

    full_name = forms.CharField(max_length=60)
    email = forms.EmailField(label="E-mail")
    course = forms.ChoiceField(choices=[("", "Choose one"), ("p", "Pottery"), ("w", "Weaving"), ("c", "Carving")])
    level = forms.ChoiceField(choices=[("b", "Beginner"), ("a", "Advanced")], widget=forms.RadioSelect)
    seats = forms.IntegerField(min_value=1, max_value=4, initial=1)
    terms = forms.BooleanField(label="I accept the terms")

    def clean(self) -> None:
        """Refuse what no single field shows."""
        if self.cleaned_data.get("course") == "c" and self.cleaned_data.get("level") == "b":
            raise forms.ValidationError("Carving is for advanced pupils only.")


def enrol(request: HttpRequest) -> HttpResponse:
    """Show the form, or take it."""
    form = Enrolment(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect("/thanks/")
    return HttpResponse(engines["django"].from_string(PAGE).render({"form": form}, request))


urlpatterns = [path("", enrol), path("thanks/", lambda request: HttpResponse("<h1>Thank you.</h1>"))]
