// What the richer controls do. Nothing is stored, nothing depends on time.
(() => {
  const emit = (element, type) => element.dispatchEvent(new Event(type, { bubbles: true }));

  // What covers the page goes away with any of its buttons.
  document.querySelectorAll("[data-obstacle]").forEach((veil) => {
    veil.querySelectorAll("button").forEach((button) => button.addEventListener("click", () => veil.remove()));
  });

  // A part of the page that a button opens and closes; what is open is told to the server by a hidden field.
  document.querySelectorAll(".opener").forEach((opener) => {
    const [button, marker] = [opener.querySelector("button"), opener.querySelector("input")];
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      button.setAttribute("aria-expanded", String(open));
      marker.value = open ? "on" : "";
      emit(marker, "change");
    });
  });

  document.querySelectorAll(".slider").forEach((slider) => {
    const [range, output] = [slider.querySelector("input"), slider.querySelector("output")];
    range.addEventListener("input", () => { output.value = range.value; });
  });

  // A list below a text field. The list stands in the flow, so that it covers nothing.
  document.querySelectorAll(".combobox").forEach((combobox) => {
    const [input, list] = [combobox.querySelector("input"), combobox.querySelector("ul")];
    const options = [...list.children];
    const texts = options.map((option) => option.textContent);
    let active = -1;
    const open = (isOpen) => {
      list.hidden = !isOpen;
      input.setAttribute("aria-expanded", String(isOpen));
      if (!isOpen) mark(-1);
    };
    const mark = (at) => {
      active = at;
      options.forEach((option, place) => option.setAttribute("aria-selected", String(place === at)));
      if (at < 0) input.removeAttribute("aria-activedescendant");
      else input.setAttribute("aria-activedescendant", options[at].id);
    };
    const judge = () => {
      const isKnown = input.value === "" || texts.includes(input.value);
      input.setCustomValidity(isKnown ? "" : "Please choose an entry of the list.");
      return isKnown;
    };
    const take = (at) => { input.value = texts[at]; judge(); open(false); emit(input, "change"); };
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      options.forEach((option, at) => { option.hidden = !texts[at].toLowerCase().includes(wanted); });
      open(!judge() && options.some((option) => !option.hidden));
    });
    input.addEventListener("change", judge);
    // Not at once when the field is left: what stands below would move away under the mouse that is just pressed.
    document.addEventListener("click", (event) => { if (!combobox.contains(event.target)) open(false); });
    input.addEventListener("keydown", (event) => {
      const shown = options.map((_, at) => at).filter((at) => !options[at].hidden);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && shown.length) {
        event.preventDefault();
        open(true);
        mark(shown.at((shown.indexOf(active) + step + (active < 0 && step < 0 ? 1 : 0)) % shown.length));
      } else if (event.key === "Enter" && active >= 0) {
        event.preventDefault();
        take(active);
      } else if (event.key === "Escape" || event.key === "Tab") open(false);
    });
    options.forEach((option, at) => option.addEventListener("mousedown", (event) => { event.preventDefault(); take(at); }));
    judge();
  });

  // A month to pick a day from; the text field beside it is the value.
  document.querySelectorAll(".picker").forEach((picker) => {
    const [input, button, sheet] = [picker.querySelector("input"), picker.querySelector("button"), picker.querySelector(".calendar")];
    const format = picker.dataset.format;
    const two = (number) => String(number).padStart(2, "0");
    const write = (day) => format.replace("%d", two(day.getUTCDate())).replace("%m", two(day.getUTCMonth() + 1)).replace("%Y", day.getUTCFullYear());
    const read = () => {
      const order = [...format.matchAll(/%([dmY])/g)].map((found) => found[1]);
      const parts = input.value.split(/[./]/).map(Number);
      if (parts.length !== 3 || parts.some(Number.isNaN)) return new Date();
      const of = (letter) => parts[order.indexOf(letter)];
      return new Date(Date.UTC(of("Y"), of("m") - 1, of("d")));
    };
    let month = null;
    const piece = (text, label, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.name = `${button.name}-day`;
      made.textContent = text;
      made.ariaLabel = label;
      made.addEventListener("click", act);
      return made;
    };
    const close = () => { sheet.hidden = true; button.setAttribute("aria-expanded", "false"); };
    const draw = () => {
      const [year, at] = [month.getUTCFullYear(), month.getUTCMonth()];
      const turn = (by) => () => { month = new Date(Date.UTC(year, at + by, 1)); draw(); };
      const caption = document.createElement("span");
      caption.className = "month";
      caption.textContent = month.toLocaleDateString("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });
      const days = document.createElement("span");
      days.className = "days";
      for (const name of ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"]) days.append(Object.assign(document.createElement("i"), { textContent: name }));
      for (let gap = (new Date(Date.UTC(year, at, 1)).getUTCDay() + 6) % 7; gap > 0; gap--) days.append(document.createElement("b"));
      const length = new Date(Date.UTC(year, at + 1, 0)).getUTCDate();
      for (let number = 1; number <= length; number++) {
        const day = new Date(Date.UTC(year, at, number));
        const made = piece(String(number), write(day), () => { input.value = write(day); close(); emit(input, "input"); emit(input, "change"); });
        if (write(day) === input.value) made.setAttribute("aria-current", "date");
        days.append(made);
      }
      sheet.replaceChildren(piece("\u2039", "Previous month", turn(-1)), caption, piece("\u203a", "Next month", turn(1)), days);
    };
    button.addEventListener("click", () => {
      if (!sheet.hidden) return close();
      const day = read();
      month = new Date(Date.UTC(day.getUTCFullYear(), day.getUTCMonth(), 1));
      draw();
      sheet.hidden = false;
      button.setAttribute("aria-expanded", "true");
    });
  });

  // A calendar button lives and dies with its field.
  const follow = () => document.querySelectorAll(".picker").forEach((picker) => {
    picker.querySelector("button").disabled = picker.querySelector("input").disabled;
  });
  document.addEventListener("change", follow);
  document.addEventListener("input", follow);
})();
