// Tries every option of every choice control and reports which controls stand there then; leaves the page as it was.
const CHOICES = new Set(["select", "multiselect", "radio", "checkbox"]);
const isOpener = (element) => element.localName === "summary" || (element.localName === "button" &&
  element.type === "button" && element.hasAttribute("aria-expanded") && !element.hasAttribute("aria-haspopup"));
const isOpen = (element) => (element.localName === "summary" ? element.parentElement.open : element.getAttribute("aria-expanded") === "true");
const canVary = (element) => (isOpener(element) || (CHOICES.has(kindOf(element)) && isNative(element))) && !element.disabled;
// What a choice sets under way is waited for; elsewhere its scripts get one turn.
async function pause() {
  await new Promise((done) => later(done, 0));
  if (isUnderWay()) await settled();
}
const keyOf = (element) => described([element])[0];

function choose(element, value) {
  if (isOpener(element)) element.click();
  else if (element.localName === "select") {
    for (const option of element.options) option.selected = optionText(option) === value;
    emit(element, "input");
    emit(element, "change");
  } else if (element.checked !== (value !== "unchecked")) {
    element.click();
  }
}

function alternatives(element) {
  if (isOpener(element)) return isOpen(element) ? [] : ["open"];
  if (element.localName === "select") {
    const current = valuesOf(element);
    return realOptions(element).map(optionText).filter((text) => !current.includes(text));
  }
  if (kindOf(element) === "radio") return element.checked ? [] : [accessibleName(element)];
  return [element.checked ? "unchecked" : "checked"];
}

// How to put a choice control back, radios with their whole group.
function memory(element) {
  if (isOpener(element)) return () => { if (isOpen(element)) element.click(); };
  const peers = kindOf(element) === "radio" ? controls().filter((peer) => peer.type === "radio" && peer.name === element.name) : [element];
  const before = peers.map((peer) => peer.localName === "select" ? Array.from(peer.options, (option) => option.selected) : peer.checked);
  return () => peers.forEach((peer, index) => {
    if (peer.localName === "select") Array.from(peer.options).forEach((option, at) => { option.selected = before[index][at]; });
    else peer.checked = before[index];
    emit(peer, "input");
    emit(peer, "change");
  });
}

const offers = (elements) => JSON.stringify(elements.map(optionsOf));

async function explore(depth = 0, isKnown = () => false) {
  const before = visibleControls();
  const known = new Set(before);
  const offered = offers(before);
  const states = depth ? [] : [{ decider: null, value: null, controls: described(before) }];
  for (const element of before.filter((item) => canVary(item) && !isKnown(item))) {
    for (const value of alternatives(element)) {
      const restore = memory(element);
      choose(element, value);
      await pause();
      const after = visibleControls();
      if (after.length !== before.length || after.some((item) => !known.has(item)) || offers(after) !== offered) {
        states.push({ decider: keyOf(element), value, controls: described(after) });
        choices();
        const isNew = after.some((item) => !known.has(item) && canVary(item));
        if (isNew && depth < 3) states.push(...(await explore(depth + 1, (item) => known.has(item))));
      }
      restore();
      await pause();
    }
  }
  return states;
}

// Gives answers, those of revealed controls included; answers by field name, in visible text. files: by name, what file
// fields may be given.
async function give(answers, files) {
  const done = new Set();
  for (let round = 0; round < 4; round++) {
    const open = visibleControls().filter((element) => fieldOf(element) in answers && !done.has(element) && !element.disabled);
    if (!open.length) break;
    for (const element of open) {
      done.add(element);
      await mirroring(element, () => giveOne(element, answers[fieldOf(element)], files));
    }
    await pause();
  }
}

async function giveOne(element, wanted, files) {
  const kind = kindOf(element);
  if (kind === "select" || kind === "multiselect") for (const text of wanted) await selectInTime(element, text);
  else if (kind === "radio") { if (wanted.includes(accessibleName(element))) setTicked(element, true); }
  else if (kind === "checkbox") setTicked(element, wanted.includes(tickedText(element)));
  else if (kind === "file") wanted.forEach((name) => upload(element, name, files[name]));
  else if (kind !== "button" && kind !== "link" && !element.readOnly) await fill(element, wanted[placeOf(element)] ?? wanted[0] ?? "");
}

// Which of several boxes of one field an element is.
const placeOf = (element) => controls().filter((other) => fieldOf(other) === fieldOf(element)).indexOf(element);

// Gives the answers of one page and hands it in.
async function answer({ answers, files }) {
  await give(answers, files);
  const values = snapshot();
  // A button with a name does something else beside handing the page in, such as keeping a draft of it.
  const buttons = visibleControls().filter((element) => kindOf(element) === "button" && element.type === "submit");
  const button = buttons.find((element) => !element.name) ?? buttons[0];
  if (button) click(button);
  return { isLeaving: isLeaving(), invalid: takeInvalid(), values };
}
